"""Child processes that die with their parent, keep the last lines they said, and are started again when they end.

Rules:
- A child never outlives its parent: Linux kills it through ``PR_SET_PDEATHSIG``, elsewhere an exit handler does its
  best. The signal follows the *thread* that forked: start children from the thread that runs the event loop.
- A child has its own session, so that Ctrl-C reaches the parent alone, which then stops children in its own order.
- When to start a child again is decided by :class:`RestartPolicy`, which reads no clock; ``Child`` and
  ``Supervisor`` are the shell.
"""

from __future__ import annotations

import asyncio
import atexit
import collections
import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Final, cast

import attrs

__all__ = ["Child", "ChildSpec", "RestartPolicy", "Supervisor"]

TAIL_LINES: Final = 40
"""Lines kept for error messages: enough for a program's last words, few enough for a terminal."""
MAX_LINE: Final = 8192
"""Bytes of a line; a longer one is cut, so that a child that never ends its line cannot fill our memory."""
MAX_LOG: Final = 16 * 1024 * 1024
"""Bytes of a log file before it becomes ``NAME.1``: two of them bound what a child can take of the disk."""
DRAIN_TIMEOUT: Final = 0.5
"""Seconds to wait for a dead child's last output: a grandchild may hold the pipe open for ever."""

_PR_SET_PDEATHSIG: Final = 1
# Children by the process that started them: a fork of ours inherits this table, but not the right to kill.
_live: dict[int, int] = {}


def _prctl() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return cast("Callable[..., int]", ctypes.CDLL(None, use_errno=True).prctl)
    except (OSError, AttributeError):
        return None


# Resolved before any fork: between fork and exec nothing may be looked up, allocated for long, or locked.
_PRCTL = _prctl()


def _before_exec(parent: int, open_files: int | None) -> Callable[[], None]:
    prctl = _PRCTL
    limits: tuple[int, int] | None = None
    if open_files is not None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = open_files if hard == resource.RLIM_INFINITY else min(open_files, hard)
        limits = (max(soft, allowed), hard) if soft != resource.RLIM_INFINITY else None

    def prepare() -> None:
        if limits is not None:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            # The parent may have died before the call above: then nobody will send the signal.
            if os.getppid() != parent:
                os._exit(1)

    return prepare


@atexit.register
def _kill_children() -> None:
    for pid in [pid for pid, parent in _live.items() if parent == os.getpid()]:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


@attrs.frozen(kw_only=True)
class ChildSpec:
    """What to run.

    ``env`` replaces the environment where given; ``log_file`` is appended to, and bounded; ``open_files`` raises the
    soft limit on descriptors, as far as the hard one allows.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    log_file: Path | None = None
    pass_fds: tuple[int, ...] = ()
    open_files: int | None = None


class _Output(asyncio.SubprocessProtocol):
    """Turns a child's output into whole lines."""

    def __init__(self, spec: ChildSpec, on_line: Callable[[str], None] | None) -> None:
        self.exited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._partial = b""
        self._on_line = on_line
        self._path = spec.log_file
        self._log: IO[bytes] | None = None
        if self._path is not None:
            self._log = self._open(self._path)

    @staticmethod
    def _open(path: Path) -> IO[bytes] | None:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return None  # a log that cannot be written is no reason not to serve
        return os.fdopen(fd, "ab", buffering=0)

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        """Take output as it comes."""
        del fd
        assert isinstance(data, bytes)
        self._write(data)
        *lines, rest = (self._partial + data).split(b"\n")
        while len(rest) > MAX_LINE:
            lines.append(rest[:MAX_LINE])
            rest = rest[MAX_LINE:]
        self._partial = rest
        for line in lines:
            self._line(line)

    def _line(self, line: bytes) -> None:
        text = line[:MAX_LINE].decode(errors="replace").rstrip("\r")
        self.tail.append(text)
        if self._on_line is not None:
            self._on_line(text)

    def _write(self, data: bytes) -> None:
        if self._log is None or self._path is None:
            return
        try:
            if self._log.tell() + len(data) > MAX_LOG:
                self._log.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._log = self._open(self._path)
            if self._log is not None:
                self._log.write(data)
        except OSError:
            pass  # a full disk must not stop the child or us

    def process_exited(self) -> None:
        """Note the end of the process; output may still follow."""
        if not self.exited.done():
            self.exited.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note the end of the output."""
        del exc
        if self._partial:
            self._line(self._partial)
            self._partial = b""
        self.close()
        if not self.drained.done():
            self.drained.set_result(None)

    def close(self) -> None:
        """Close the log. Idempotent."""
        if self._log is not None:
            self._log.close()
            self._log = None


class Child:
    """A running child process. Make one with :meth:`start`."""

    def __init__(self, spec: ChildSpec, transport: asyncio.SubprocessTransport, output: _Output) -> None:
        self.spec = spec
        self._transport = transport
        self._output = output
        self.pid = transport.get_pid()
        _live[self.pid] = os.getpid()
        output.exited.add_done_callback(lambda _: _live.pop(self.pid, None))

    @classmethod
    async def start(cls, spec: ChildSpec, *, on_line: Callable[[str], None] | None = None) -> Child:
        """Start the process; ``on_line`` gets each line of its output as it is said.

        Raises:
            OSError: The program cannot be run.
        """
        loop = asyncio.get_running_loop()
        output = _Output(spec, on_line)
        try:
            transport, _ = await loop.subprocess_exec(
                lambda: output,
                *spec.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=None if spec.env is None else dict(spec.env),
                cwd=spec.cwd,
                start_new_session=True,
                pass_fds=spec.pass_fds,
                preexec_fn=_before_exec(os.getpid(), spec.open_files),
            )
        except BaseException:
            output.close()
            raise
        return cls(spec, transport, output)

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal, ``None`` while it runs."""
        return self._transport.get_returncode()

    @property
    def tail(self) -> str:
        """The last lines of the output, at most :data:`TAIL_LINES`."""
        return "\n".join(self._output.tail)

    def send_signal(self, number: int) -> None:
        """Send a signal; a process that is gone is left alone."""
        with contextlib.suppress(ProcessLookupError):
            self._transport.send_signal(number)

    async def wait(self) -> int:
        """Return the exit status once the process has ended and its last output was read."""
        await asyncio.shield(self._output.exited)
        await asyncio.wait([self._output.drained], timeout=DRAIN_TIMEOUT)
        self._transport.close()
        code = self.returncode
        assert code is not None
        return code

    async def stop(self, *, timeout: float = 10.0) -> int:
        """Ask the process to end, kill it after ``timeout`` seconds, and return the exit status. Idempotent."""
        if self.returncode is None:
            self.send_signal(signal.SIGTERM)
            await asyncio.wait([self._output.exited], timeout=timeout)
        if self.returncode is None:
            self.send_signal(signal.SIGKILL)
        return await self.wait()


@attrs.define(kw_only=True)
class RestartPolicy:
    """Decides how long to wait before a child is started again: doubling, forgiven after a good run.

    Times are seconds. A child that ran for ``good_run`` starts over at ``base``.
    """

    base: float = 0.1
    maximum: float = 10.0
    good_run: float = 30.0
    failures: int = attrs.field(default=0, init=False)
    _started: float = attrs.field(default=0.0, init=False)

    def handle_start(self, now: float) -> None:
        """Note that the child was started."""
        self._started = now

    def handle_end(self, now: float) -> float:
        """Note that the child ended, and return the seconds until it shall be started again."""
        if now - self._started >= self.good_run:
            self.failures = 0
        # The exponent is bounded before the power: 2.0 ** 1100 is an OverflowError after a long night.
        delay = min(self.maximum, self.base * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return delay


class Supervisor:
    """Keeps one child running: starts it, and starts it again after the policy's pause whenever it ends.

    ``on_start`` is called with each new child, ``on_end`` with each one that ended without being asked to.
    """

    def __init__(
        self,
        spec: ChildSpec,
        *,
        policy: RestartPolicy | None = None,
        on_line: Callable[[str], None] | None = None,
        on_start: Callable[[Child], None] | None = None,
        on_end: Callable[[Child, int], None] | None = None,
    ) -> None:
        self.spec = spec
        self.policy = policy or RestartPolicy()
        self.child: Child | None = None
        self.restarts = 0
        self._on_line = on_line
        self._on_start = on_start
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Child:
        """Start the child for the first time and return it.

        Raises:
            OSError: The program cannot be run.
        """
        child = await self._launch()
        self._task = asyncio.create_task(self._run(child), name=f"supervise {self.spec.name}")
        return child

    async def _launch(self) -> Child:
        child = await Child.start(self.spec, on_line=self._on_line)
        self.policy.handle_start(asyncio.get_running_loop().time())
        self.child = child
        if self._on_start is not None:
            self._on_start(child)
        return child

    async def _run(self, child: Child) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            code = await child.wait()
            if self._on_end is not None:
                self._on_end(child, code)
            while True:
                await asyncio.sleep(self.policy.handle_end(clock()))
                try:
                    child = await self._launch()
                except OSError:
                    continue  # the program may be in the middle of an upgrade; the pause grows meanwhile
                self.restarts += 1
                break

    async def stop(self, *, timeout: float = 10.0) -> None:
        """End the supervision and the child: asked first, killed after ``timeout`` seconds. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self.child is not None:
            await self.child.stop(timeout=timeout)
