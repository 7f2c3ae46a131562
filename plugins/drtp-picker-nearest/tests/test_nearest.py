"""What is particular to the picker: its distances, and what decides where they do not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drtp_api.pickers import Place
from drtp_api.plugins import load_plugins
from drtp_picker_nearest.picker import Nearest, NearestOptions
from drtp_picker_nearest.sphere import EARTH_RADIUS_KM, distance_km
from drtp_testkit.builders import make_server

latitudes, longitudes = st.floats(-90, 90), st.floats(-180, 180)


@pytest.mark.parametrize(
    ("place", "other", "expected"),
    [
        ((51.4700, -0.4543), (40.6413, -73.7781), 5540),  # London Heathrow to New York JFK
        ((-33.9461, 151.1772), (-33.3930, -70.7858), 11340),  # Sydney to Santiago, over the date line
        ((0, 179.5), (0, -179.5), 111.2),
        ((90, 0), (-90, 77), math.pi * EARTH_RADIUS_KM),
        ((12.5, 7.25), (12.5, 7.25), 0),
    ],
)
def test_known_distances_come_out_within_half_a_percent(place, other, expected):
    assert distance_km(*place, *other) == pytest.approx(expected, rel=0.005, abs=1e-6)


@given(latitudes, longitudes, latitudes, longitudes)
def test_distance_is_symmetric_and_never_beyond_the_antipodes(a, b, c, d):
    there = distance_km(a, b, c, d)
    assert there == pytest.approx(distance_km(c, d, a, b), abs=1e-6)
    assert 0 <= there <= math.pi * EARTH_RADIUS_KM + 1e-6


def order(place, *servers, **options):
    return [s.metadata.name for s in Nearest(NearestOptions(**options)).order(place, servers)]


def test_an_agent_of_unknown_place_gets_what_it_measured_as_nearest():
    servers = [make_server(name) for name in "abcd"]
    assert order(Place(round_trips={"c": 0.01, "b": 0.05}), *servers) == ["c", "b", "a", "d"]
    assert order(Place(), *servers) == ["a", "b", "c", "d"]


def test_within_one_place_the_measured_round_trip_decides():
    here = Place(latitude=52.0, longitude=5.0, round_trips={"a": 0.009, "b": 0.002})
    assert order(here, make_server("a", "52.3001", "4.9"), make_server("b", "52.3002", "4.9"), same_km=5) == ["b", "a"]


def test_a_server_without_a_usable_place_comes_last():
    here = Place(latitude=52.0, longitude=5.0)
    assert order(here, make_server("a", "", ""), make_server("z", "-52", "-175")) == ["z", "a"]


def test_the_loader_finds_it():
    plugins = load_plugins(only={"nearest"})
    assert plugins.failures == ()
    assert plugins.pickers.create("nearest").name == "nearest"
