"""Distances on the earth, taken for a sphere: half a percent off at worst, which no choice of a server depends on."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["EARTH_RADIUS_KM", "distance_km"]

EARTH_RADIUS_KM: Final = 6371.0088
"""Mean radius of the earth (IUGG, R1)."""


def distance_km(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """Return the great-circle distance of two places in kilometres, by the haversine formula.

    Degrees in; longitudes may be on any turn, so 179.9 and -179.9 are neighbours. Haversine and not the spherical law
    of cosines, because the latter loses all its digits where it matters, at short distances.
    """
    phi, other_phi = math.radians(latitude), math.radians(other_latitude)
    half_dphi = (other_phi - phi) / 2
    half_dlambda = math.radians(other_longitude - longitude) / 2
    square = math.sin(half_dphi) ** 2 + math.cos(phi) * math.cos(other_phi) * math.sin(half_dlambda) ** 2
    # Rounding may put antipodes a hair above 1.
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, square)))
