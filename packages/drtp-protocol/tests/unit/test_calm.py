"""The calm bucket."""

from drtp_protocol.calm import BYTES_PER_TOKEN, CalmBucket


def test_a_burst_is_paid_from_the_bucket_and_then_refused():
    bucket = CalmBucket(4, 1, now=0.0)
    assert bucket.charge(2, useful=0, now=0.0)
    assert bucket.charge(2, useful=0, now=0.0)
    assert not bucket.charge(1, useful=0, now=0.0)


def test_time_refills_up_to_the_burst():
    bucket = CalmBucket(4, 2, now=0.0)
    assert bucket.charge(4, useful=0, now=0.0)
    assert not bucket.charge(3, useful=0, now=1.0)
    assert bucket.charge(2, useful=0, now=1.0)
    assert not bucket.charge(5, useful=0, now=1_000.0)
    assert bucket.charge(4, useful=0, now=1_000.0)


def test_useful_bytes_refill():
    bucket = CalmBucket(4, 0, now=0.0)
    assert bucket.charge(4, useful=0, now=0.0)
    assert not bucket.charge(1, useful=BYTES_PER_TOKEN - 1, now=0.0)
    assert bucket.charge(1, useful=BYTES_PER_TOKEN, now=0.0)
    assert not bucket.charge(1, useful=BYTES_PER_TOKEN, now=0.0)
