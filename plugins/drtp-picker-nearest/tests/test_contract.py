"""The picker keeps the contract of pickers."""

from drtp_api.pickers import Picker
from drtp_picker_nearest.picker import Nearest, NearestOptions
from drtp_testkit.contracts import PickerContract


class TestNearest(PickerContract):
    def make_picker(self) -> Picker:
        return Nearest(NearestOptions())
