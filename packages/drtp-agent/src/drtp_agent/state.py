"""What an agent keeps between runs, per name: who it is, its key, and its last grants; under a lock.

Rules:
- One process per name and machine: the lock is held as long as the process serves (``flock``: it dies with it).
- The epoch grows strictly, also when the clock steps back, so that a restarted agent always wins over its ghost.
- Files are replaced atomically and readable by this user alone.

What must not live here: what the files mean to the control plane (``control.py``).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from drtp_api.errors import DrtpError
from drtp_api.grants import b64url, generate_key, load_key, public_key_bytes, save_key
from drtp_api.registration import RegisterResponse
from drtp_api.statedir import ensure_directory, write_private
from drtp_api.wire import from_wire, to_wire

__all__ = ["AgentState", "CachedRegistration", "Identity", "locked", "running_pid"]

INSTANCE_FILE: Final = "instance.json"
KEY_FILE: Final = "key.pem"
GRANTS_FILE: Final = "grants.json"
LOCK_FILE: Final = "lock"


@attrs.frozen(kw_only=True)
class Identity:
    """Who this process is: a stable instance, and an epoch newer than any before."""

    instance_id: bytes
    epoch: int
    key: Ed25519PrivateKey = attrs.field(repr=False)

    @property
    def public_key(self) -> bytes:
        """The 32 bytes of the public key."""
        return public_key_bytes(self.key)

    @property
    def public_key_text(self) -> str:
        """The public key as the registration API carries it."""
        return b64url(self.public_key)


@attrs.frozen(kw_only=True)
class CachedRegistration:
    """The last answer of the registration API, for restarts while it is down. ``saved_at`` is Unix seconds."""

    response: RegisterResponse
    saved_at: float
    registration_url: str


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a short exclusive lock; waits for whoever holds it.

    Raises:
        DrtpError: DRTP-1006.
    """
    fd = _open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def running_pid(directory: Path) -> int | None:
    """Return the process that serves under this name's directory, or ``None``.

    Raises:
        DrtpError: DRTP-1006.
    """
    path = directory / LOCK_FILE
    if not path.exists():
        return None
    fd = _open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).strip()
        return int(text) if text.isdigit() else None
    else:
        return None
    finally:
        os.close(fd)


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DrtpError("DRTP-1006", f"cannot write {path}: {error.strerror or error}") from error


@attrs.define
class AgentState:
    """The state of one name, locked by this process."""

    directory: Path
    name: str
    _lock: int

    @classmethod
    def open(cls, root: Path, name: str) -> Self:
        """Lock the state of a name below the agent's state directory (``<state>/serve``).

        Raises:
            DrtpError: DRTP-1005 another process holds it; DRTP-1006 it cannot be written.
        """
        directory = ensure_directory(root / name)
        fd = _open_lock(directory / LOCK_FILE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).strip().decode("ascii", "replace")
            os.close(fd)
            raise DrtpError("DRTP-1005", f"process {holder or '(unknown)'} serves under the name {name!r}") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return cls(directory, name, fd)

    def close(self) -> None:
        """Let go of the lock. Idempotent."""
        fd, self._lock = self._lock, -1
        if fd >= 0:
            os.ftruncate(fd, 0)
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def new_identity(self, *, unix_time: float) -> Identity:
        """Return this run's identity; the instance and its key are made at the first run.

        Raises:
            DrtpError: DRTP-1006 cannot be written; DRTP-1011 a file is damaged.
        """
        path = self.directory / INSTANCE_FILE
        stored = self._read_json(path)
        try:
            instance_id = bytes.fromhex(stored["instanceID"]) if stored else secrets.token_bytes(16)
            last = int(stored["epoch"]) if stored else 0
        except (KeyError, TypeError, ValueError) as error:
            raise DrtpError("DRTP-1011", f"{path} is damaged: {error!r}") from error
        if len(instance_id) != 16:
            raise DrtpError("DRTP-1011", f"{path} is damaged: an instance id has 16 bytes")
        epoch = max(int(unix_time * 1000), last + 1)
        key = self._key()
        write_private(path, json.dumps({"instanceID": instance_id.hex(), "epoch": epoch}).encode())
        return Identity(instance_id=instance_id, epoch=epoch, key=key)

    def save_registration(self, cached: CachedRegistration) -> None:
        """Keep the registration API's answer for a restart without it.

        Raises:
            DrtpError: DRTP-1006.
        """
        write_private(self.directory / GRANTS_FILE, json.dumps(to_wire(cached)).encode())

    def load_registration(self) -> CachedRegistration | None:
        """Return the kept answer; a damaged one counts as none, because the next answer replaces it."""
        try:
            data = self._read_json(self.directory / GRANTS_FILE)
            return None if data is None else from_wire(data, CachedRegistration)
        except DrtpError:
            return None

    def forget_registration(self) -> None:
        """Drop the kept answer: it was revoked, or belongs to another cloud."""
        (self.directory / GRANTS_FILE).unlink(missing_ok=True)

    def _key(self) -> Ed25519PrivateKey:
        path = self.directory / KEY_FILE
        try:
            return load_key(path.read_bytes())
        except FileNotFoundError:
            key = generate_key()
            write_private(path, save_key(key))
            return key
        except OSError as error:
            raise DrtpError("DRTP-1006", f"cannot read {path}: {error.strerror or error}") from error

    @staticmethod
    def _read_json(path: Path) -> dict[str, Any] | None:
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DrtpError("DRTP-1011", f"cannot read {path}: {error}") from error
        if not isinstance(data, dict):
            raise DrtpError("DRTP-1011", f"{path} does not hold an object")
        return data
