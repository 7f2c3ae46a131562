"""What the local cloud keeps between runs: a lock, tokens, and the ports it chose.

Rules:
- One cloud per state directory; the lock is the kernel's, so that a crash never leaves one behind.
- A port that was chosen once is chosen again while it is free: addresses survive a restart.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from pathlib import Path
from typing import Any

import attrs

from drtp_api.errors import DrtpError
from drtp_api.statedir import ensure_directory, write_private
from drtp_controller.reconcile.probe import free_port

__all__ = ["CloudState", "lock_directory", "open_state"]

HOST = "127.0.0.1"


def lock_directory(directory: Path) -> int:
    """Take the cloud's lock and return its descriptor; closing it gives the lock back.

    Raises:
        DrtpError: DRTP-1013 another cloud runs here; DRTP-1006 not writable.
    """
    ensure_directory(directory)
    path = directory / "lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DrtpError("DRTP-1006", f"cannot write {path}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(fd, 32).decode(errors="replace").strip()
        os.close(fd)
        who = f" (process {holder})" if holder.isdigit() else ""
        raise DrtpError("DRTP-1013", f"a local cloud{who} uses {directory.parent}") from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


@attrs.define
class CloudState:
    """Tokens by user name and ports by use; ``save`` writes them."""

    path: Path
    tokens: dict[str, str] = attrs.field(factory=dict)
    ports: dict[str, int] = attrs.field(factory=dict)

    def token(self, user: str) -> str:
        """Return the token of a user, made on first use."""
        return self.tokens.setdefault(user, secrets.token_urlsafe(32))

    def port(self, use: str, wanted: int) -> int:
        """Return the port for a use: the wanted one as it is, and for 0 the one of last time or a free one.

        Raises:
            DrtpError: DRTP-1014; the wanted port cannot be had, or no port is free.
        """
        try:
            port = free_port(HOST, wanted or self.ports.get(use, 0))
        except OSError as error:
            raise DrtpError("DRTP-1014", f"no port is free on {HOST}: {error}") from error
        if wanted and port != wanted:
            raise DrtpError("DRTP-1014", f"port {wanted} for {use} is in use or forbidden on {HOST}")
        if not wanted:
            self.ports[use] = port
        return port

    def forget_port(self, use: str) -> None:
        """Choose another port next time: this one turned out to be taken."""
        self.ports.pop(use, None)

    def save(self) -> None:
        """Write the state.

        Raises:
            DrtpError: DRTP-1006.
        """
        data = {"tokens": self.tokens, "ports": self.ports}
        write_private(self.path, json.dumps(data, indent=1, sort_keys=True).encode())


def open_state(directory: Path) -> CloudState:
    """Return the state of a directory, empty where there is none yet.

    Raises:
        DrtpError: DRTP-1011; the file is damaged.
    """
    path = directory / "cloud.json"
    try:
        data: Any = json.loads(path.read_bytes())
        return CloudState(path, tokens=dict(data["tokens"]), ports=dict(data["ports"]))
    except FileNotFoundError:
        return CloudState(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DrtpError("DRTP-1011", f"cannot read {path}: {error}", hint=f"Delete {path}.") from error
