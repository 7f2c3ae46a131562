"""How decisions combine: deny overrides, and whatever goes wrong denies."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools

import pytest

from drtp_api import acl
from drtp_api.acl import Decision, Verdict, Visitor, combine, decide_all, normalise_ip
from drtp_api.resources import Application, Metadata, Protocol, Service, ServiceSpec

VISITOR = Visitor(
    service=Service(metadata=Metadata(name="web"), spec=ServiceSpec(application=Application(protocol=Protocol.TCP))),
    lists=(), source=ipaddress.ip_address("192.0.2.1"), source_port=5,
)  # fmt: skip
ALLOW, DENY, ABSTAIN = (Decision(v, v.value) for v in Verdict)


class Backend:
    def __init__(self, answer, name="b"):
        self.name, self.answer = name, answer

    def decide(self, visitor):
        answer = self.answer() if callable(self.answer) else self.answer
        if isinstance(answer, BaseException):
            raise answer
        return answer


def decide(*answers):
    async def main():
        decision = decide_all([Backend(a, f"b{i}") for i, a in enumerate(answers)], VISITOR)
        return decision if isinstance(decision, Decision) else await decision

    return asyncio.run(main())


def later(result):
    def make():
        future = asyncio.get_running_loop().create_future()
        if isinstance(result, BaseException):
            future.set_exception(result)
        elif result is not None:
            future.set_result(result)
        return future

    return make


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_addresses_are_normalised(text, expected):
    assert str(normalise_ip(text)) == expected


def test_what_is_no_address_is_a_value_error():
    for text in ("", "localhost", "192.0.2.256", "192.0.2.1:80"):
        with pytest.raises(ValueError):
            normalise_ip(text)


@pytest.mark.parametrize("default", [Verdict.ALLOW, Verdict.DENY])
def test_deny_overrides_then_allow_then_the_default(default):
    for size in range(4):
        for decisions in itertools.product((ALLOW, DENY, ABSTAIN), repeat=size):
            verdict = combine(decisions, default=default).verdict
            if DENY in decisions:
                assert verdict is Verdict.DENY
            elif ALLOW in decisions:
                assert verdict is Verdict.ALLOW
            else:
                assert verdict is default


def test_backends_that_answer_at_once_need_no_loop():
    decision = decide_all([Backend(ALLOW), Backend(ABSTAIN)], VISITOR)
    assert isinstance(decision, Decision)
    assert decision is ALLOW


def test_answers_now_and_later_are_combined():
    assert decide(ALLOW, later(ALLOW)).verdict is Verdict.ALLOW
    assert decide(ALLOW, later(DENY)).verdict is Verdict.DENY
    assert decide(DENY, later(ALLOW)).verdict is Verdict.DENY
    assert decide(ABSTAIN, later(ABSTAIN)).rule == "default"


@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("x"), later(RuntimeError("x")), None, "allow", True, 0, later("allow"), Decision("allow", "r"),
        later(Decision(True, "r")),
    ],
)  # fmt: skip
def test_whatever_a_faulty_backend_does_denies_and_names_it(fault):
    decision = decide(ALLOW, fault)
    assert decision.verdict is Verdict.DENY
    assert decision.rule == "b1/error"


def test_a_backend_that_takes_too_long_denies_and_is_cancelled(monkeypatch):
    monkeypatch.setattr(acl, "DECISION_TIMEOUT", 0.01)

    async def main():
        future = asyncio.get_running_loop().create_future()
        decision = await decide_all([Backend(lambda: future, "slow")], VISITOR)
        return decision, future.cancelled()

    decision, cancelled = asyncio.run(main())
    assert (decision.verdict, decision.rule, cancelled) == (Verdict.DENY, "slow/timeout", True)


def test_a_backend_that_cancels_its_answer_denies():
    def make():
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        return future

    assert decide(make).rule == "b0/error"


def test_a_visitor_who_leaves_cancels_what_is_asked_for_it():
    async def main():
        future = asyncio.get_running_loop().create_future()
        decision = decide_all([Backend(lambda: future)], VISITOR)
        await asyncio.sleep(0)
        decision.cancel()
        with pytest.raises(asyncio.CancelledError):
            await decision
        return future.cancelled()

    assert asyncio.run(main())
