"""What every ACL backend promises, and what those that read DRTP's own lists promise beyond."""

from __future__ import annotations

import abc
import asyncio
import time

from drtp_api.acl import DECISION_TIMEOUT, AclBackend, Decision, Verdict, Visitor, decide_all
from drtp_api.resources import AclMode, Action, EnforceAt
from drtp_testkit.builders import make_list, make_service, make_visitor

__all__ = ["AclContract", "NetworkListContract"]


class AclContract(abc.ABC):
    """Inherit this for any ACL backend."""

    @abc.abstractmethod
    def make_backend(self) -> AclBackend:
        """Return a new backend; called within a running loop."""

    @abc.abstractmethod
    def allowed_visitor(self) -> Visitor:
        """Return a visitor whom the backend allows."""

    @abc.abstractmethod
    def denied_visitor(self) -> Visitor:
        """Return a visitor whom the backend denies."""

    def undecidable_visitor(self) -> Visitor:
        """Return a visitor about whom the backend's rules are faulty or cannot be had."""
        return make_visitor("192.0.2.1", service=make_service(allow=["nonsense/99"]))

    def decide(self, *visitors: Visitor) -> list[Decision]:
        """Return the decisions of one backend about these visitors, in order."""

        async def ask() -> list[Decision]:
            backend = self.make_backend()
            try:
                answers = []
                for visitor in visitors:
                    answer = backend.decide(visitor)
                    answers.append(answer if isinstance(answer, Decision) else await answer)
                return answers
            finally:
                await backend.aclose()
                await backend.aclose()

        return asyncio.run(ask())

    def test_it_has_a_name(self) -> None:
        """The name prefixes what is said of it."""

        async def name() -> str:
            backend = self.make_backend()
            await backend.aclose()
            return backend.name

        assert asyncio.run(name())

    def test_it_allows_and_denies_and_names_the_rule(self) -> None:
        """Also when asked alternately: no decision may stick to the next visitor."""
        allowed, denied = self.allowed_visitor(), self.denied_visitor()
        decisions = self.decide(allowed, denied, allowed, denied)
        assert [d.verdict for d in decisions] == [Verdict.ALLOW, Verdict.DENY] * 2
        assert all(d.rule for d in decisions)

    def test_it_fails_closed(self) -> None:
        """Whatever the backend does with faulty rules, the visitor does not get in."""

        async def ask() -> Decision:
            backend = self.make_backend()
            try:
                answer = decide_all([backend], self.undecidable_visitor())
                return answer if isinstance(answer, Decision) else await answer
            finally:
                await backend.aclose()

        assert asyncio.run(ask()).verdict is Verdict.DENY

    def test_it_decides_in_time(self) -> None:
        """An answer that takes longer than the timeout is a denial, so the backend would never allow anybody."""
        visitor = self.allowed_visitor()
        before = time.perf_counter()
        self.decide(visitor)
        assert time.perf_counter() - before < DECISION_TIMEOUT


class NetworkListContract(AclContract):
    """Inherit this for a backend that decides by a service's allow-list and by access control lists."""

    ENTRIES = 10_000
    LOOKUP_SECONDS = 50e-6
    """Ten times the promised 5 µs: a shared machine is noisy, and a linear search takes a hundred times as long."""

    def allowed_visitor(self) -> Visitor:
        """Return a visitor from a network on the service's allow-list."""
        return make_visitor("203.0.113.7", service=make_service(allow=["203.0.113.0/24"]))

    def denied_visitor(self) -> Visitor:
        """Return a visitor from elsewhere."""
        return make_visitor("198.51.100.7", service=make_service(allow=["203.0.113.0/24"]))

    def verdicts(self, *visitors: Visitor) -> list[Verdict]:
        """Return the verdicts about these visitors."""
        return [decision.verdict for decision in self.decide(*visitors)]

    def test_without_rules_it_abstains(self) -> None:
        """Another backend, or the default, decides then."""
        assert self.verdicts(make_visitor("192.0.2.1")) == [Verdict.ABSTAIN]

    def test_the_first_rule_that_matches_decides(self) -> None:
        """Not the narrowest, and not the last."""
        rules = make_list(
            ("exception", Action.DENY, ["10.1.0.0/16"]), ("office", Action.ALLOW, ["10.0.0.0/8"]),
            ("late", Action.DENY, ["10.2.3.0/24"]),
        )  # fmt: skip
        decisions = self.decide(*(make_visitor(ip, rules) for ip in ("10.1.2.3", "10.2.3.4", "192.0.2.1")))
        assert [d.verdict for d in decisions] == [Verdict.DENY, Verdict.ALLOW, Verdict.DENY]
        assert ["exception" in decisions[0].rule, "office" in decisions[1].rule] == [True, True]

    def test_the_default_action_holds_where_no_rule_matches(self) -> None:
        """Both of them."""
        rule = ("bad", Action.DENY, ["192.0.2.0/24"])
        allow, deny = make_list(rule, default=Action.ALLOW), make_list(rule, default=Action.DENY)
        assert self.verdicts(make_visitor("10.0.0.1", allow), make_visitor("10.0.0.1", deny)) == [
            Verdict.ALLOW, Verdict.DENY,
        ]  # fmt: skip

    def test_ipv4_mapped_into_ipv6_is_ipv4(self) -> None:
        """In the visitor's address and in the rule."""
        plain, mapped = make_service(allow=["203.0.113.0/24"]), make_service(allow=["::ffff:203.0.113.0/120"])
        verdicts = self.verdicts(
            make_visitor("::ffff:203.0.113.9", service=plain, normalise=False),
            make_visitor("203.0.113.9", service=mapped),
            make_visitor("::ffff:198.51.100.9", service=plain, normalise=False),
        )
        assert verdicts == [Verdict.ALLOW, Verdict.ALLOW, Verdict.DENY]

    def test_ipv6_networks_match_ipv6_visitors_only(self) -> None:
        """``::/0`` is everybody with IPv6, and nobody else."""
        everybody = make_service(allow=["::/0"])
        site = make_service(allow=["2001:db8:1::/48"])
        verdicts = self.verdicts(
            make_visitor("2001:db8::1", service=everybody), make_visitor("192.0.2.1", service=everybody),
            make_visitor("2001:db8:1:ffff::1", service=site), make_visitor("2001:db8:2::1", service=site),
        )  # fmt: skip
        assert verdicts == [Verdict.ALLOW, Verdict.DENY, Verdict.ALLOW, Verdict.DENY]

    def test_a_list_that_observes_or_sleeps_or_holds_elsewhere_denies_nobody(self) -> None:
        """Observe lets through whom it would deny."""
        rule = ("nobody", Action.DENY, ["0.0.0.0/0"])
        for quiet in (
            make_list(rule, mode=AclMode.OBSERVE),
            make_list(rule, mode=AclMode.DISABLED),
            make_list(rule, enforce_at=(EnforceAt.GATEWAY,)),
        ):
            assert self.verdicts(make_visitor("192.0.2.1", quiet)) == [Verdict.ABSTAIN]

    def test_one_denial_outweighs_another_lists_consent(self) -> None:
        """In either order."""
        yes = make_list(("all", Action.ALLOW, ["0.0.0.0/0"]))
        no = make_list(("all", Action.DENY, ["0.0.0.0/0"]))
        assert self.verdicts(make_visitor("192.0.2.1", yes, no), make_visitor("192.0.2.1", no, yes)) == [
            Verdict.DENY, Verdict.DENY,
        ]  # fmt: skip

    def test_ten_thousand_entries_are_as_quick_as_ten(self) -> None:
        """A visitor must not wait for the length of somebody's list."""
        networks = [f"10.{i >> 8}.{i & 255}.0/25" for i in range(self.ENTRIES)]
        service = make_service(allow=networks)
        inside = [make_visitor(f"10.{i >> 8}.{i & 255}.77", service=service) for i in range(0, self.ENTRIES, 50)]
        outside = [make_visitor(f"10.{i >> 8}.{i & 255}.177", service=service) for i in range(0, self.ENTRIES, 50)]

        async def measure() -> tuple[float, set[Verdict], set[Verdict]]:
            backend = self.make_backend()
            answers: list[Decision] = []

            def ask(visitors: list[Visitor]) -> None:
                for visitor in visitors:
                    answer = backend.decide(visitor)
                    assert isinstance(answer, Decision), "a backend that has the rules answers at once"
                    answers.append(answer)

            try:
                ask(inside[:1])
                best = float("inf")
                for _ in range(3):
                    answers.clear()
                    before = time.perf_counter()
                    ask(inside)
                    ask(outside)
                    best = min(best, time.perf_counter() - before)
            finally:
                await backend.aclose()
            found = [d.verdict for d in answers]
            return best / len(answers), set(found[: len(inside)]), set(found[len(inside) :])

        seconds, allowed, denied = asyncio.run(measure())
        assert (allowed, denied) == ({Verdict.ALLOW}, {Verdict.DENY})
        assert seconds < self.LOOKUP_SECONDS
