"""Public host names: ``<word>-<word>-<5>.<base domain>`` for every HTTP service, and names that users bring.

Rules:
- A vended name is derived from the installation and the service's key alone: the same service gets the same name
  after a restart, a lost database, or on the next day.
- One name never has two owners; a vended name that collides is derived again, a requested one is refused.
What must not enter: randomness, DNS.
"""

from __future__ import annotations

import hashlib
import itertools

import attrs

from drtp_api.errors import DrtpError
from drtp_controller.planners.ports import shown_owner
from drtp_controller.planners.words import ADJECTIVES, NOUNS

__all__ = ["HostnameBook", "vended_name"]

ALPHABET = "bcdfghjklmnpqrstvwxz0123456789"
"""Consonants and digits: no vowels, so that no word appears by accident."""
SUFFIX_SIZE = 5


def vended_name(installation: str, owner: str, base_domain: str, attempt: int = 0) -> str:
    """Return the name that a service gets at a given attempt, 0 unless that one collided."""
    digest = hashlib.sha256(f"{installation}\0{owner}\0{attempt}".encode()).digest()
    number = int.from_bytes(digest, "big")
    number, adjective = divmod(number, len(ADJECTIVES))
    number, noun = divmod(number, len(NOUNS))
    suffix = ""
    for _ in range(SUFFIX_SIZE):
        number, index = divmod(number, len(ALPHABET))
        suffix += ALPHABET[index]
    return f"{ADJECTIVES[adjective]}-{NOUNS[noun]}-{suffix}.{base_domain}"


@attrs.define
class HostnameBook:
    """Who owns which host name."""

    installation: str
    base_domain: str
    _owners: dict[str, str] = attrs.field(factory=dict)

    def observe(self, owner: str, name: str) -> None:
        """Take note of a name that an owner's status has already; the first owner keeps it."""
        self._owners.setdefault(name, owner)

    def owners(self) -> frozenset[str]:
        """Return everybody who has a name."""
        return frozenset(self._owners.values())

    def vend(self, owner: str, current: str | None) -> str:
        """Return the owner's vended name: the one it has, else a new one."""
        if current is not None and self._owners.setdefault(current, owner) == owner:
            return current
        for attempt in itertools.count():
            name = vended_name(self.installation, owner, self.base_domain, attempt)
            if self._owners.setdefault(name, owner) == owner:
                return name
        raise AssertionError  # the count does not end

    def check(self, owner: str, name: str) -> None:
        """Prove that the owner could have this name.

        Raises:
            DrtpError: DRTP-2013.
        """
        holder = self._owners.get(name, owner)
        if holder != owner:
            raise DrtpError("DRTP-2013", f"the host name {name} belongs to {shown_owner(holder)}")

    def claim(self, owner: str, name: str) -> None:
        """Give a requested name to an owner.

        Raises:
            DrtpError: DRTP-2013.
        """
        self.check(owner, name)
        self._owners[name] = owner

    def retain(self, owner: str, names: frozenset[str]) -> None:
        """Take back every name of the owner that is not among ``names``."""
        for name in [n for n, o in self._owners.items() if o == owner and n not in names]:
            del self._owners[name]
