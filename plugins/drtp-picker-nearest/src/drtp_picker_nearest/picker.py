"""The picker ``nearest``: servers by distance, else by measured round trip, else by name.

Rules:
- Where the agent's place is known, distance decides; servers without usable coordinates come last.
- Where it is not, the agent's own measurements decide; servers it did not reach come last.
- Ties go by name, so that the same question has the same answer in every replica of the controller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from drtp_api.pickers import Place
from drtp_api.resources import Server
from drtp_picker_nearest.sphere import distance_km

__all__ = ["Nearest", "NearestFactory", "NearestOptions"]


@attrs.frozen(kw_only=True)
class NearestOptions:
    """Options of the picker.

    ``same_km``: distances closer to each other than this are one place, where measured round trips decide; two data
    centres of one city must not be told apart by the precision of somebody's coordinates.
    """

    same_km: float = 1.0


class Nearest:
    """Orders servers by distance from the agent."""

    name = "nearest"

    def __init__(self, options: NearestOptions) -> None:
        self._same_km = max(options.same_km, 1e-9)

    def order(self, place: Place, candidates: Sequence[Server]) -> Sequence[Server]:
        """Return every candidate, nearest first."""
        return sorted(candidates, key=lambda server: self._key(place, server))

    def _key(self, place: Place, server: Server) -> tuple[float, float, str]:
        round_trip = place.round_trips.get(server.metadata.name, math.inf)
        if not math.isfinite(round_trip) or round_trip < 0:
            round_trip = math.inf
        return self._distance(place, server), round_trip, server.metadata.name

    def _distance(self, place: Place, server: Server) -> float:
        """Return the distance in steps of ``same_km``; 0 for every server where the agent's place is unknown."""
        if not _on_earth(place.latitude, place.longitude):
            return 0.0
        assert place.latitude is not None
        assert place.longitude is not None
        try:
            latitude = float(server.spec.coordinates.latitude)
            longitude = float(server.spec.coordinates.longitude)
        except ValueError:
            return math.inf
        if not _on_earth(latitude, longitude):
            return math.inf
        return distance_km(place.latitude, place.longitude, latitude, longitude) // self._same_km


def _on_earth(latitude: float | None, longitude: float | None) -> bool:
    if latitude is None or longitude is None:
        return False
    return abs(latitude) <= 90 and abs(longitude) <= 180  # false for a NaN, as it should


class NearestFactory:
    """Makes the picker ``nearest``."""

    config_type = NearestOptions

    def __call__(self, config: NearestOptions) -> Nearest:
        """Return the picker."""
        return Nearest(config)
