"""DRTP server picker by great-circle distance.

Rules:
- ``sphere`` measures, ``picker`` orders; both are pure.
"""

from __future__ import annotations

from drtp_api.hooks import hookimpl
from drtp_api.pickers import PickerFactory
from drtp_api.registry import Registry
from drtp_picker_nearest.picker import NearestFactory

__all__ = ["drtp_register_pickers"]


@hookimpl
def drtp_register_pickers(registry: Registry[PickerFactory]) -> None:
    """Register the picker ``nearest``."""
    registry.register("nearest", NearestFactory())
