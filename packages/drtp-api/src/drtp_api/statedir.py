"""Where DRTP keeps state on a machine, and how commands find a running ``drtp local``.

Rules:
- Everything is below one directory: ``$DRTP_STATE_DIR``, else the platform's state directory for ``drtp``.
- Files with secrets are created 0600 and replaced atomically, so a reader never sees half a file.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import attrs

from drtp_api.errors import DrtpError
from drtp_api.wire import from_wire, to_wire

__all__ = [
    "LOCAL_FILE",
    "LocalCloud",
    "ensure_directory",
    "read_local",
    "state_directory",
    "write_local",
    "write_private",
]

LOCAL_FILE: Final = "local.json"


@attrs.frozen(kw_only=True)
class LocalCloud:
    """How to reach a running ``drtp local``: written by it, read by commands of the same user."""

    api_url: str
    registration_url: str
    kubeconfig: str
    user_token: str
    pid: int
    ca_file: str | None = None


def state_directory(explicit: Path | None = None) -> Path:
    """Return the state directory; it need not exist."""
    if explicit is not None:
        return explicit
    if from_env := os.environ.get("DRTP_STATE_DIR"):
        return Path(from_env)
    import platformdirs

    return Path(platformdirs.user_state_dir("drtp", appauthor=False))


def ensure_directory(path: Path) -> Path:
    """Create the directory for this user alone if it is missing, and prove that it can be written.

    Raises:
        DrtpError: DRTP-1006.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise DrtpError("DRTP-1006", f"cannot write {path}: {error.strerror or error}") from error
    return path


def write_private(path: Path, data: bytes) -> None:
    """Replace a file atomically; the new one is readable by this user alone.

    Raises:
        DrtpError: DRTP-1006.
    """
    try:
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DrtpError("DRTP-1006", f"cannot write {path}: {error.strerror or error}") from error


def write_local(directory: Path, cloud: LocalCloud) -> None:
    """Say that a local cloud runs.

    Raises:
        DrtpError: DRTP-1006.
    """
    write_private(directory / LOCAL_FILE, json.dumps(to_wire(cloud), indent=1).encode())


def read_local(directory: Path) -> LocalCloud | None:
    """Return how to reach the local cloud of this state directory, or ``None`` where none runs.

    A file left behind by a process that is gone counts as none.

    Raises:
        DrtpError: DRTP-1011; the file is damaged.
    """
    path = directory / LOCAL_FILE
    try:
        data: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DrtpError("DRTP-1011", f"cannot read {path}: {error}") from error
    cloud = from_wire(data, LocalCloud)
    try:
        os.kill(cloud.pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return cloud
