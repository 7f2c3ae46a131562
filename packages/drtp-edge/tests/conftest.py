"""The Playbook: a visitor's session as a transcript, event by event."""

from __future__ import annotations

import pytest

from drtp_edge.session import Command, Event, Finish, Session

CONN_ID = bytes(range(16))


class Playbook:
    """Feeds a session and compares what it commands.

    Each step is ``playbook >> event << (command, ...)``; a ``Finish`` may be named by its outcome as a string. Time
    moves only by ``playbook.at(seconds)``.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.now = session.arrived
        self.commands: list[Command] = list(session.start())
        self.record = None

    def at(self, now: float) -> Playbook:
        self.now = now
        return self

    def __rshift__(self, event: Event) -> Playbook:
        assert not self.commands, f"not expected: {self.commands}"
        self.commands = list(self.session.receive(event, now=self.now))
        return self

    def __lshift__(self, expected: object) -> Playbook:
        steps = expected if isinstance(expected, tuple) else (expected,)
        for step in steps:
            assert self.commands, f"missing: {step}"
            command = self.commands.pop(0)
            if isinstance(command, Finish):
                self.record = command.record
            if isinstance(step, str):
                assert isinstance(command, Finish), command
                assert command.record.outcome == step
            else:
                assert command == step
        assert not self.commands, f"more than expected: {self.commands}"
        return self


@pytest.fixture
def playbook() -> type[Playbook]:
    return Playbook


def new_session(early: bytes = b"") -> Session:
    return Session(CONN_ID, "default/web", "203.0.113.7:4711", 100.0, early)


@pytest.fixture
def session() -> Session:
    return new_session()


@pytest.fixture
def make_session():
    return new_session
