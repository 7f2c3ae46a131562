"""Factories by name, one registry per hook.

Rules:
- A name belongs to one distribution; a second one is DRTP-6002 and names both.
- Options are structured strictly: an unknown option is DRTP-6004.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import attrs

from drtp_api.errors import DrtpError
from drtp_api.wire import from_wire

__all__ = ["Registration", "Registry"]

F = TypeVar("F")


@attrs.frozen
class Registration(Generic[F]):
    """One registered factory and the distribution it came from."""

    name: str
    factory: F
    origin: str


@attrs.define
class Registry(Generic[F]):
    """The factories that one hook collected. ``kind`` is the word for people: transport, gateway, ..."""

    kind: str
    origin: str = "built in"
    left_out: tuple[str, ...] = ()
    """Plugins that could not be loaded and why, for whoever misses one of them."""
    _entries: dict[str, Registration[F]] = attrs.field(factory=dict)

    def register(self, name: str, factory: F) -> None:
        """Register a factory under a name.

        Raises:
            DrtpError: DRTP-6002; another distribution has the name.
            TypeError: It is not a factory.
        """
        config_type = getattr(factory, "config_type", None)
        if not callable(factory) or not isinstance(config_type, type) or not attrs.has(config_type):
            raise TypeError(f"{self.kind} {name!r}: a factory is callable and has an attrs class as its config_type")
        if (other := self._entries.get(name)) is not None:
            raise DrtpError("DRTP-6002", f"{self.kind} {name!r} is registered by {other.origin} and by {self.origin}")
        self._entries[name] = Registration(name, factory, self.origin)

    def __iter__(self) -> Iterator[Registration[F]]:
        return iter(self._entries.values())

    def create(self, name: str, options: Mapping[str, Any] | None = None) -> Any:
        """Return what the factory of that name makes from the options.

        Raises:
            DrtpError: DRTP-6001 no such name; DRTP-6003 the factory failed; DRTP-6004 faulty options.
        """
        entry = self._entries.get(name)
        if entry is None:
            known = ", ".join(sorted(self._entries)) or "none"
            faults = f"; left out: {'; '.join(self.left_out)}" if self.left_out else ""
            raise DrtpError("DRTP-6001", f"there is no {self.kind} plugin {name!r}; installed: {known}{faults}")
        factory: Any = entry.factory
        try:
            config = from_wire(dict(options or {}), factory.config_type, strict=True)
        except DrtpError as error:
            raise DrtpError("DRTP-6004", f"{self.kind} {name!r} ({entry.origin}): {error.message}") from error
        try:
            return factory(config)
        except DrtpError:
            raise
        except Exception as error:
            raise DrtpError(
                "DRTP-6003", f"{self.kind} {name!r} ({entry.origin}): {type(error).__name__}: {error}"
            ) from error

    def snapshot(self) -> dict[str, Registration[F]]:
        """Return what is registered now, for :meth:`restore`."""
        return dict(self._entries)

    def restore(self, entries: Mapping[str, Registration[F]]) -> None:
        """Forget what was registered since the snapshot: a plugin that fails half-way is left out whole."""
        self._entries = dict(entries)
