"""Where bearer tokens come from: a fixed text, a file, or datumctl.

Rules:
- A token is asked for when it is needed and never written anywhere.
- datumctl is asked per need, and its answer kept until shortly before it expires, because each call is a process.

What must not live here: what a token permits.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import attrs

from drtp_api.errors import DrtpError

__all__ = ["FileToken", "HelperToken", "StaticToken", "TokenSource", "expiry_of"]

EARLY: Final = 300.0
"""Seconds before its expiry at which a token is replaced: a long request must not outlive it."""
OPAQUE_LIFETIME: Final = 30.0
"""Seconds for which a token that does not say when it expires is kept."""
HELPER_TIMEOUT: Final = 30.0
"""Seconds for the helper: it may have to refresh the session over the network."""


class TokenSource(Protocol):
    """Gives the bearer token for a request."""

    async def token(self) -> str:
        """Return the token.

        Raises:
            DrtpError: DRTP-2003.
        """
        ...

    def forget(self) -> None:
        """Drop what was kept: the token was refused."""
        ...


@attrs.frozen
class StaticToken:
    """A token that does not change, such as that of a local cloud."""

    value: str = attrs.field(repr=False)

    async def token(self) -> str:
        """Return it."""
        return self.value

    def forget(self) -> None:
        """Keep it: there is no other."""


@attrs.frozen
class FileToken:
    """A token in a file that something else renews, such as a mounted service account."""

    path: Path

    async def token(self) -> str:
        """Read it."""
        try:
            text = self.path.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise DrtpError("DRTP-2003", f"cannot read the token file {self.path}: {error}") from error
        if not text:
            raise DrtpError("DRTP-2003", f"the token file {self.path} is empty")
        return text

    def forget(self) -> None:
        """Nothing is kept."""


@attrs.define
class HelperToken:
    """Asks ``$DATUM_CREDENTIALS_HELPER auth get-token [--session S]``."""

    helper: str
    session: str | None = None
    clock: Callable[[], float] = time.time
    _token: str | None = attrs.field(default=None, init=False, repr=False)
    _until: float = attrs.field(default=0.0, init=False)

    async def token(self) -> str:
        """Return the kept token, or a new one."""
        if self._token is None or self.clock() >= self._until:
            self._token = await self._ask()
            expiry = expiry_of(self._token)
            self._until = self.clock() + OPAQUE_LIFETIME if expiry is None else expiry - EARLY
        return self._token

    def forget(self) -> None:
        """Ask again next time."""
        self._token = None

    async def _ask(self) -> str:
        arguments = ["auth", "get-token", *(["--session", self.session] if self.session else [])]
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                self.helper, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
            )
        except OSError as error:
            raise DrtpError("DRTP-2003", f"the credentials helper {self.helper} cannot be run: {error}") from error
        try:
            async with asyncio.timeout(HELPER_TIMEOUT):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise DrtpError("DRTP-2003", f"the credentials helper took longer than {HELPER_TIMEOUT:.0f} s") from None
        token = out.decode("ascii", "replace").strip()
        if process.returncode or not token:
            said = err.decode(errors="replace").strip().splitlines()
            raise DrtpError("DRTP-2003", said[-1][:300] if said else "the credentials helper gave no token")
        return token


def expiry_of(token: str) -> float | None:
    """Return when a JWT expires (Unix seconds), without verifying it; ``None`` if it does not say."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    expiry = claims.get("exp") if isinstance(claims, dict) else None
    return float(expiry) if isinstance(expiry, int | float) else None
