"""What every picker promises: every candidate, in an order that only the question determines."""

from __future__ import annotations

import abc
import itertools

from drtp_api.pickers import Picker, Place
from drtp_api.resources import Server
from drtp_testkit.builders import make_server

__all__ = ["PickerContract"]


class PickerContract(abc.ABC):
    """Inherit this for any picker."""

    uses_coordinates = True
    """Whether the picker orders by the agent's and the servers' coordinates."""

    @abc.abstractmethod
    def make_picker(self) -> Picker:
        """Return a new picker."""

    def names(self, place: Place, *candidates: Server) -> list[str]:
        """Return the names of the candidates in the picker's order."""
        return [server.metadata.name for server in self.make_picker().order(place, candidates)]

    def fleet(self) -> tuple[Server, ...]:
        """Return servers in a few cities of the world."""
        return (
            make_server("ams", "52.37", "4.90"), make_server("dfw", "32.90", "-97.04"),
            make_server("iad", "38.95", "-77.45"), make_server("nrt", "35.76", "140.39"),
            make_server("syd", "-33.95", "151.18"),
        )  # fmt: skip

    def test_every_candidate_is_returned_once(self) -> None:
        """The controller filters, not the picker."""
        place = Place(latitude=47.4, longitude=8.5)
        assert sorted(self.names(place, *self.fleet())) == ["ams", "dfw", "iad", "nrt", "syd"]
        assert self.names(place) == []

    def test_the_order_of_the_question_does_not_matter(self) -> None:
        """Every replica of the controller gives the same answer."""
        for place in (Place(latitude=47.4, longitude=8.5), Place(), Place(round_trips={"iad": 0.02})):
            answers = {tuple(self.names(place, *fleet)) for fleet in itertools.permutations(self.fleet())}
            assert len(answers) == 1

    def test_missing_data_is_no_error(self) -> None:
        """Neither the agent's place nor the servers' need be known, or make sense."""
        odd = (make_server("empty", "", ""), make_server("text", "north", "pole"), make_server("far", "95", "999"))
        for place in (
            Place(), Place(wan_ip="192.0.2.1"), Place(wan_ip="not an address"), Place(latitude=10.0),
            Place(latitude=float("nan"), longitude=float("nan")), Place(round_trips={"gone": 0.1}),
            Place(round_trips={"ams": float("nan"), "iad": -1.0}),
        ):  # fmt: skip
            assert len(self.names(place, *self.fleet(), *odd)) == 8

    def test_the_nearest_comes_first(self) -> None:
        """From Zürich to Amsterdam, from Denver to Dallas."""
        if self.uses_coordinates:
            assert self.names(Place(latitude=47.4, longitude=8.5), *self.fleet())[:2] == ["ams", "iad"]
            assert self.names(Place(latitude=39.7, longitude=-105.0), *self.fleet())[:2] == ["dfw", "iad"]

    def test_the_date_line_is_no_wall(self) -> None:
        """From Fiji at 178 degrees east, Samoa at 172 degrees west is nearer than Sydney."""
        if self.uses_coordinates:
            samoa, sydney = make_server("samoa", "-13.83", "-171.77"), make_server("sydney", "-33.95", "151.18")
            assert self.names(Place(latitude=-18.1, longitude=178.4), sydney, samoa) == ["samoa", "sydney"]

    def test_at_a_pole_longitude_means_nothing(self) -> None:
        """A server a degree from the pole on the far side is nearer than one ten degrees off on this side."""
        if self.uses_coordinates:
            across, same = make_server("across", "89", "180"), make_server("same", "79", "0")
            assert self.names(Place(latitude=90.0, longitude=0.0), same, across) == ["across", "same"]
