from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drtp_api.kube import Backoff


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_delay_stays_between_the_first_and_the_largest(failures: int, random: float):
    assert 0.2 <= Backoff().delay(failures, random) <= 30.0


def test_delays_grow_with_the_number_of_failures():
    delays = [Backoff().delay(n, 0.999) for n in range(1, 12)]
    assert delays == sorted(delays)
    assert 0.2 <= delays[0] <= 0.4
    assert delays[-1] > 29


def test_the_jitter_spreads_over_the_whole_range():
    backoff = Backoff(initial=1.0, maximum=9.0)
    assert backoff.delay(10, 0.0) == 1.0
    assert backoff.delay(10, 0.5) == 5.0
