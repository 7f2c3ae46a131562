"""Spreading servers over cities."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drtp_api.pickers import CITY_LABEL, city_of, spread
from drtp_api.resources import Coordinates, Instance, Metadata, Server, ServerSpec


def server(name, city=None):
    return Server(
        metadata=Metadata(name=name, labels={CITY_LABEL: city} if city else {}),
        spec=ServerSpec(instance=Instance(host="h", id="i"), coordinates=Coordinates(latitude="0", longitude="0")),
    )


def names(servers):
    return [s.metadata.name for s in servers]


def test_a_server_without_a_city_is_a_city_of_its_own():
    assert (city_of(server("a", "AMS")), city_of(server("a"))) == ("AMS", "a")


def test_the_second_server_stands_in_another_city():
    ordered = [server("a1", "AMS"), server("a2", "AMS"), server("d1", "DFW")]
    assert names(spread(ordered, 2)) == ["a1", "d1"]


def test_where_cities_run_out_servers_share_one():
    ordered = [server("a1", "AMS"), server("a2", "AMS"), server("d1", "DFW")]
    assert names(spread(ordered, 3)) == ["a1", "d1", "a2"]
    assert names(spread(ordered[:2], 2)) == ["a1", "a2"]


def test_fewer_are_returned_where_there_are_no_more():
    assert spread([], 2) == ()
    assert names(spread([server("a")], 3)) == ["a"]
    assert spread([server("a")], 0) == ()


@given(st.lists(st.sampled_from("ABC"), max_size=7), st.integers(0, 4))
def test_the_best_is_always_first_and_cities_are_as_many_as_can_be(cities, count):
    ordered = [server(f"s{i}", city) for i, city in enumerate(cities)]
    chosen = spread(ordered, count)
    assert len(chosen) == min(count, len(ordered))
    assert len(set(names(chosen))) == len(chosen)
    assert len({city_of(s) for s in chosen}) == min(count, len(set(cities)))
    if chosen:
        assert chosen[0] is ordered[0]
