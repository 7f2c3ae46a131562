"""What the macros over lists and maps do when they run.

Rules:
- `all` and `exists` stop at the first item that decides; an error of an earlier item then does not count.
- Every step is charged to the frame's first slot; when it is used up the rule fails.
- With one name a list gives its items and a map its keys; with two a list gives index and item, a map key and value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from drtp_controller.apiserver.cel.code import Code, Frame, truth
from drtp_controller.apiserver.cel.types import BOOL, DYN, Type, fits, list_of, map_of
from drtp_controller.apiserver.cel.values import CelError, map_key

Steps: TypeAlias = Callable[[Frame], Iterator[Any]]


def loop(kind: str, target: Code, slots: list[int], parts: list[tuple[Type, Code]], item: Type) -> tuple[Type, Code]:
    """Return the type and the code of a loop.

    Args:
        kind: the macro's name.
        target: what is looped over.
        slots: where the frame keeps the names it binds.
        parts: the compiled arguments: a condition, or the result, or both in that order.
        item: the type of what a loop with one name binds.

    Raises:
        TypeError: a condition is no bool; the message is for whoever wrote the rule.
    """
    steps = _steps(target, slots)
    *filters, (last_kind, last) = parts
    condition = filters[0][1] if filters else None
    for part_kind, _ in filters or (parts if kind in _CONDITIONS else ()):
        if not fits(BOOL, part_kind, {}):
            raise TypeError(f"expected type 'bool' but found '{part_kind}'")
    match kind:
        case "all":
            return BOOL, _decided(steps, last, decides=False)
        case "exists":
            return BOOL, _decided(steps, last, decides=True)
        case "exists_one" | "existsOne":
            return BOOL, lambda frame: sum(truth(last(frame)) for _ in steps(frame)) == 1
        case "filter":
            return list_of(item), lambda frame: [found for found in steps(frame) if truth(last(frame))]
        case "map" | "transformList":
            return list_of(last_kind), _collected(steps, condition, last)
        case "transformMap":
            return map_of(DYN, last_kind), _mapped(steps, slots[0], condition, last)
        case _:
            return last_kind, _entries(steps, condition, last)


_CONDITIONS = {"all", "exists", "exists_one", "existsOne", "filter"}


def _steps(target: Code, slots: list[int]) -> Steps:
    first, second = slots[0], slots[-1]
    pair = len(slots) == 2

    def run(frame: Frame) -> Iterator[Any]:
        over = target(frame)
        if not isinstance(over, (list, dict)):
            raise CelError("no such overload")
        frame[0] -= len(over)
        if frame[0] < 0:
            raise CelError("operation cancelled: actual cost limit exceeded")
        if not pair:
            for item in over:
                frame[first] = item
                yield item
            return
        for key, value in over.items() if isinstance(over, dict) else enumerate(over):
            frame[first], frame[second] = key, value
            yield value

    return run


def _decided(steps: Steps, condition: Code, *, decides: bool) -> Code:
    def run(frame: Frame) -> bool:
        failed: CelError | None = None
        for _ in steps(frame):
            try:
                if truth(condition(frame)) is decides:
                    return decides
            except CelError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return not decides

    return run


def _collected(steps: Steps, condition: Code | None, result: Code) -> Code:
    def run(frame: Frame) -> list[Any]:
        return [result(frame) for _ in steps(frame) if condition is None or truth(condition(frame))]

    return run


def _mapped(steps: Steps, key: int, condition: Code | None, result: Code) -> Code:
    def run(frame: Frame) -> dict[Any, Any]:
        out: dict[Any, Any] = {}
        for _ in steps(frame):
            if condition is None or truth(condition(frame)):
                out[frame[key]] = result(frame)
        return out

    return run


def _entries(steps: Steps, condition: Code | None, result: Code) -> Code:
    def run(frame: Frame) -> dict[Any, Any]:
        out: dict[Any, Any] = {}
        for _ in steps(frame):
            if condition is None or truth(condition(frame)):
                for key, value in result(frame).items():
                    if map_key(key) in out:
                        raise CelError(f"insert failed: key {key} already exists")
                    out[map_key(key)] = value
        return out

    return run
