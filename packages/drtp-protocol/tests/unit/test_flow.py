"""Budget, round-trip time, delivery rate."""

import pytest

from drtp_protocol import Budget, RttEstimate
from drtp_protocol.flow import SAMPLE_TIME, SMALL_FRAME, DeliveryRate


def test_a_budget_promises_up_to_its_total():
    budget = Budget(10)
    assert budget.acquire(10)
    assert not budget.acquire(1)
    budget.release(4)
    assert budget.used == 6
    assert budget.acquire(4)


def test_round_trip_time_is_smoothed_as_in_rfc_6298():
    first = RttEstimate.first(0.1)
    assert (first.smoothed, first.variation, first.minimum) == (0.1, 0.05, 0.1)
    second = first.updated(0.2)
    assert second.latest == 0.2
    assert second.smoothed == pytest.approx(0.1125)
    assert second.variation == pytest.approx(0.0625)
    assert second.minimum == 0.1
    assert second.updated(0.05).minimum == 0.05


def send(rate, size, seconds, *, start=0.0):
    rate.started = start
    rate.size += size
    rate.pause(start + seconds)


def test_frames_stay_small_until_the_path_is_known():
    rate = DeliveryRate(262_144)
    assert rate.frame == SMALL_FRAME
    send(rate, 100_000, SAMPLE_TIME / 2)
    assert (rate.frame, rate.bytes_per_second) == (SMALL_FRAME, 0.0)


def test_a_fast_path_earns_frames_that_take_two_milliseconds():
    rate = DeliveryRate(262_144)
    send(rate, 1_000_000, 0.025)
    assert rate.bytes_per_second == pytest.approx(40_000_000)
    assert rate.frame == 80_000


def test_a_slow_path_keeps_small_frames():
    rate = DeliveryRate(262_144)
    send(rate, 25_000, 0.02)
    assert rate.frame == SMALL_FRAME


def test_the_frame_never_exceeds_the_limit_in_force():
    rate = DeliveryRate(1_000)
    assert rate.frame == 1_000
    send(rate, 10**9, 1.0)
    assert rate.frame == 1_000


def test_a_path_that_takes_a_megabyte_at_once_is_fast_even_if_the_clock_stood_still():
    rate = DeliveryRate(65_536)
    send(rate, 2**20, 0.0)
    assert rate.frame == 65_536


def test_samples_are_smoothed():
    rate = DeliveryRate(65_536)
    send(rate, 40_000, 0.04)
    send(rate, 200_000, 0.04)
    assert rate.bytes_per_second == pytest.approx(2_000_000)


def test_a_long_busy_time_is_sampled_as_it_goes():
    rate = DeliveryRate(65_536)
    rate.started = 1.0
    rate.size = 50_000
    rate.proceed(1.05)
    assert rate.bytes_per_second == pytest.approx(1_000_000)
    assert (rate.started, rate.size) == (1.05, 0)
