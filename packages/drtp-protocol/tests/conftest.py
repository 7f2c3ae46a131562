"""Hypothesis profiles of the protocol's tests, chosen by `DRTP_HYPOTHESIS_PROFILE`.

`fast` (the default) is for every edit, `ci` for every change, `deep` for the night, `mutants` for `tools/mutants.py`,
which asks whether something fails and not for the smallest example. All but `deep` are derandomised, so that a red run
repeats; a failure found by `deep` is pinned as an `@example`.
"""

import os

from hypothesis import HealthCheck, Phase, settings

_COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
}
_REPEATABLE = {**_COMMON, "derandomize": True, "database": None}
_NO_EXPLANATION = [Phase.explicit, Phase.generate, Phase.target, Phase.shrink]

settings.register_profile("fast", max_examples=25, phases=_NO_EXPLANATION, **_REPEATABLE)
settings.register_profile("ci", max_examples=200, **_REPEATABLE)
settings.register_profile("deep", max_examples=20_000, **_COMMON)
settings.register_profile("mutants", max_examples=25, phases=[Phase.explicit, Phase.generate], **_REPEATABLE)
settings.load_profile(os.environ.get("DRTP_HYPOTHESIS_PROFILE", "fast"))
