from __future__ import annotations

import itertools

import pytest

from drtp_edge.ports import PortBook, PortRange


def test_a_service_gets_its_number_back_and_nobody_else_does_within_the_reservation():
    book = PortBook(PortRange(5000, 5001), 30.0)
    first = next(book.candidates("a", 0.0))
    book.take(first, "a")
    book.release("a", 10.0)
    assert not book.may_use(first, "b", 39.9)
    assert next(book.candidates("a", 39.9)) == first
    assert book.may_use(first, "b", 40.1)


def test_a_number_in_use_is_offered_to_nobody():
    book = PortBook(PortRange(5000, 5000), 30.0)
    book.take(5000, "a")
    assert list(book.candidates("b", 0.0)) == []


def test_the_kernel_chooses_where_no_range_is_given_and_the_last_number_is_preferred():
    book = PortBook(PortRange(), 30.0)
    assert set(itertools.islice(book.candidates("a", 0.0), 20)) == {0}
    book.take(41000, "a")
    book.release("a", 0.0)
    assert next(book.candidates("a", 1000.0)) == 41000


def test_releasing_twice_changes_nothing():
    book = PortBook(PortRange(5000, 5009), 30.0)
    port = next(book.candidates("a", 0.0))
    book.take(port, "a")
    book.release("a", 0.0)
    book.release("a", 20.0)
    assert book.may_use(port, "b", 31.0)


@pytest.mark.parametrize("text", ["5-1", "70000", "0-5", "1-70000", "x", ""])
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(ValueError):
        PortRange.parse(text)


def test_ranges_are_read():
    assert PortRange.parse("0") == PortRange(0, 0)
    assert len(PortRange.parse("20000-20009")) == 10
    assert PortRange.parse("443") == PortRange(443, 443)
