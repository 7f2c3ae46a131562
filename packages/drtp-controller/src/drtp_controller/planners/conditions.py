"""Conditions: how planners read them, and how a new set replaces an old one.

Rules:
- ``lastTransitionTime`` moves only when the status moves, so that an unchanged plan is an unchanged object.
- A condition that reports a fault starts its message with the code of the error table, and ends with what to do.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence

from drtp_api.errors import CATALOGUE, DrtpError
from drtp_api.resources import Condition

__all__ = ["condition", "fault_of", "find", "is_true", "merge_conditions", "parse_time", "timestamp"]

_CODE = re.compile(r"(DRTP-\d{4}) (.*)", re.DOTALL)


def timestamp(now: float) -> str:
    """Return seconds since the Unix epoch as RFC 3339 in whole seconds, as Kubernetes writes them."""
    return dt.datetime.fromtimestamp(int(now), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str | None) -> float | None:
    """Return the seconds since the Unix epoch of an RFC 3339 time, ``None`` where it is none."""
    if not text:
        return None
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def condition(kind: str, status: bool | None, reason: str, message: str = "") -> Condition:
    """Return a condition whose status is True, False or (``None``) Unknown; a coded message gets its next step."""
    word = "Unknown" if status is None else str(status)
    return Condition(type=kind, status=word, reason=reason, message=_with_next_step(message))


def find(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """Return the condition of a type."""
    return next((c for c in conditions if c.type == kind), None)


def is_true(conditions: Iterable[Condition], kind: str) -> bool:
    """Return whether the condition of a type is there and True."""
    found = find(conditions, kind)
    return found is not None and found.status == "True"


def merge_conditions(
    existing: Sequence[Condition], wanted: Sequence[Condition], *, generation: int, now: float
) -> tuple[Condition, ...]:
    """Return the wanted conditions with the transition times they had, then those of other writers."""
    merged: list[Condition] = []
    for new in wanted:
        old = find(existing, new.type)
        same = old is not None and old.status == new.status
        merged.append(
            Condition(
                type=new.type,
                status=new.status,
                reason=new.reason,
                message=new.message,
                observed_generation=generation,
                last_transition_time=old.last_transition_time if old is not None and same else timestamp(now),
            )
        )
    ours = {c.type for c in wanted}
    return (*merged, *(c for c in existing if c.type not in ours))


def fault_of(conditions: Iterable[Condition]) -> DrtpError | None:
    """Return the first fault that a set of conditions reports."""
    for found in conditions:
        match = _CODE.fullmatch(found.message) if found.status != "True" else None
        if match is not None and match[1] in CATALOGUE:
            return DrtpError(match[1], match[2].removesuffix(_next_step(match[1])))
    return None


def _with_next_step(message: str) -> str:
    match = _CODE.fullmatch(message)
    if match is None or match[1] not in CATALOGUE:
        return message
    step = _next_step(match[1])
    return message if message.endswith(step) else message.removesuffix(".") + step


def _next_step(code: str) -> str:
    return f". {CATALOGUE[code].hint}"
