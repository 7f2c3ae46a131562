"""Hypothesis profiles of the protocol's tests, chosen by ``DRTP_HYPOTHESIS_PROFILE``.

``fast`` (the default) is for every edit, ``ci`` for every change, ``deep`` for the night. The first two are
derandomised, so that a red run repeats; a failure found by ``deep`` is pinned as an ``@example``.
"""

import os

from hypothesis import HealthCheck, settings

_SLOW_ON_PURPOSE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "fast", max_examples=25, derandomize=True, deadline=None, database=None, suppress_health_check=_SLOW_ON_PURPOSE
)
settings.register_profile(
    "ci", max_examples=200, derandomize=True, deadline=None, database=None, suppress_health_check=_SLOW_ON_PURPOSE
)
settings.register_profile("deep", max_examples=20_000, deadline=None, suppress_health_check=_SLOW_ON_PURPOSE)
settings.load_profile(os.environ.get("DRTP_HYPOTHESIS_PROFILE", "fast"))
