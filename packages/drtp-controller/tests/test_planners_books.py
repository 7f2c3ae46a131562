"""Ports and host names have one owner each, whatever order things happen in."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from drtp_api.errors import DrtpError
from drtp_api.resources import Protocol
from drtp_controller.planners.hostnames import HostnameBook, vended_name
from drtp_controller.planners.ports import PortAllocator, PortState
from drtp_controller.planners.words import ADJECTIVES, NOUNS

FIRST, LAST = 100, 104
OWNERS = st.sampled_from([f"default/s{i}" for i in range(7)])
PROTOCOLS = st.sampled_from([Protocol.TCP, Protocol.UDP])
PORTS = st.integers(FIRST - 1, LAST + 2)


class Ports(RuleBasedStateMachine):
    """The allocator against a model: a dict of who was told which port."""

    def __init__(self) -> None:
        super().__init__()
        self.blocked: set[int] = set()
        self.now = 0.0
        self.allocator = PortAllocator(FIRST, LAST, self.is_free)
        self.told: dict[str, tuple[Protocol, int]] = {}

    def is_free(self, protocol: Protocol, port: int) -> PortState:
        return PortState.TAKEN if port in self.blocked else PortState.FREE

    @rule(owner=OWNERS, protocol=PROTOCOLS, wanted=st.one_of(st.just(0), PORTS))
    def allocate(self, owner, protocol, wanted):
        try:
            port = self.allocator.allocate(owner, protocol, wanted, self.now)
        except DrtpError as error:
            assert error.code == "DRTP-2011"  # noqa: PT017 - either outcome is right
            return
        assert wanted in {0, port}
        assert wanted or FIRST <= port <= LAST or self.told.get(owner) == (protocol, port)
        self.told[owner] = (protocol, port)

    @rule(owner=OWNERS, protocol=PROTOCOLS, port=PORTS)
    def observe(self, owner, protocol, port):
        self.allocator.observe(owner, protocol, port)
        if owner not in self.told and (protocol, port) not in self.told.values():
            self.told[owner] = (protocol, port)

    @rule(owner=OWNERS)
    def release(self, owner):
        self.allocator.release(owner, self.now)
        self.told.pop(owner, None)

    @rule(owner=OWNERS)
    def reject(self, owner):
        self.allocator.reject(owner, self.now)
        self.told.pop(owner, None)

    @rule(port=PORTS)
    def block_or_free(self, port):
        self.blocked ^= {port}

    @rule(seconds=st.sampled_from([1.0, 61.0, 400.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @invariant()
    def nobody_shares_a_port(self):
        assert len(set(self.told.values())) == len(self.told)
        for owner, (_, port) in self.told.items():
            assert self.allocator.owned(owner) == port


Ports.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPorts = Ports.TestCase


def free(protocol, port):
    return PortState.FREE


def test_a_released_port_rests_before_another_owner_gets_it():
    allocator = PortAllocator(100, 100, free)
    assert allocator.allocate("a", Protocol.TCP, 0, now=0.0) == 100
    allocator.release("a", now=10.0)
    with pytest.raises(DrtpError, match="every TCP port"):
        allocator.allocate("b", Protocol.TCP, 0, now=69.0)
    assert allocator.allocate("b", Protocol.TCP, 0, now=70.0) == 100


def test_a_port_that_the_gateway_could_not_bind_is_replaced_by_another():
    allocator = PortAllocator(100, 199, free)
    first = allocator.allocate("a", Protocol.TCP, 0, now=0.0)
    allocator.reject("a", now=1.0)
    assert allocator.allocate("a", Protocol.TCP, 0, now=1.0) != first


def test_a_forbidden_port_has_its_own_code():
    allocator = PortAllocator(100, 199, lambda protocol, port: PortState.FORBIDDEN)
    with pytest.raises(DrtpError) as caught:
        allocator.allocate("a", Protocol.TCP, 80, now=0.0)
    assert caught.value.code == "DRTP-2012"


def test_the_owner_of_a_requested_port_is_named():
    allocator = PortAllocator(100, 199, free)
    allocator.allocate("default/first", Protocol.TCP, 5432, now=0.0)
    with pytest.raises(DrtpError, match="default/first"):
        allocator.check("default/second", Protocol.TCP, 5432)
    allocator.check("default/second", Protocol.UDP, 5432)


def test_a_lost_state_vends_the_same_port_again():
    ports = {PortAllocator(20000, 29999, free).allocate("default/pg", Protocol.TCP, 0, now=0.0) for _ in range(3)}
    assert len(ports) == 1


def test_a_vended_name_has_two_words_and_five_signs_and_stays():
    name = vended_name("installation", "default/web", "prism.localhost")
    assert re.fullmatch(r"[a-z]+-[a-z]+-[bcdfghjklmnpqrstvwxz0-9]{5}\.prism\.localhost", name)
    assert vended_name("installation", "default/web", "prism.localhost") == name
    assert vended_name("other", "default/web", "prism.localhost") != name


@given(owners=st.lists(st.text(min_size=1, max_size=20), unique=True, max_size=30))
def test_vended_names_are_distinct_and_stable(owners):
    book = HostnameBook("i", "test")
    names = {o: book.vend(o, None) for o in owners}
    assert len(set(names.values())) == len(names)
    assert {o: book.vend(o, None) for o in reversed(owners)} == names


def test_a_name_that_collides_is_derived_again():
    book = HostnameBook("i", "test")
    book.claim("thief", vended_name("i", "default/web", "test"))
    assert book.vend("default/web", None) == vended_name("i", "default/web", "test", attempt=1)


def test_a_name_in_status_is_kept_even_if_it_would_be_derived_otherwise_now():
    assert HostnameBook("i", "test").vend("default/web", "old-name.test") == "old-name.test"


def test_a_requested_name_of_another_service_is_refused_until_it_is_given_up():
    book = HostnameBook("i", "test")
    book.claim("default/a", "shop.test")
    with pytest.raises(DrtpError) as caught:
        book.claim("default/b", "shop.test")
    assert caught.value.code == "DRTP-2013"
    book.retain("default/a", frozenset())
    book.claim("default/b", "shop.test")


def test_the_words_are_short_lower_case_and_unique():
    for words in (ADJECTIVES, NOUNS):
        assert len(words) >= 200
        assert len(set(words)) == len(words)
        assert all(re.fullmatch("[a-z]{3,10}", w) for w in words)
