"""A whole cloud in processes: ``drtp local`` and ``datumctl-serve`` as their users run them.

Rules:
- Nothing is faked: the commands that are installed are started, and what they print is what is known of them.
- Every wait has a deadline and fails with the output so far; every process started here is ended here, by pid.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

__all__ = ["CloudError", "EventProcess", "LocalCloud", "Serve", "command"]


class CloudError(Exception):
    """A process of the cloud did not do what was waited for; the message holds what it printed."""


def command(name: str) -> str:
    """Return the path of an installed command, preferring the one beside this Python.

    Raises:
        CloudError: It is not installed.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise CloudError(f"the command {name} is not installed")
    return found


class EventProcess:
    """A child process that prints one JSON object a line on stdout; ``stdin`` is what it is given to read."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str | None = None,
    ) -> None:
        self.argv = list(argv)
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.seen: list[dict[str, Any]] = []
        self._stderr: list[str] = []
        self._process = subprocess.Popen(  # noqa: S603 - the commands of this project
            self.argv,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}, cwd=cwd,
        )  # fmt: skip
        if self._process.stdin is not None:
            with self._process.stdin as pipe:
                pipe.write(stdin or "")
        self._readers = [
            threading.Thread(target=self._read_events, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_stderr, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_events(self, stream: IO[str]) -> None:
        for line in stream:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    self._events.put(event)
        self._events.put(None)

    def _read_stderr(self, stream: IO[str]) -> None:
        for line in stream:
            self._stderr.append(line)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def stderr(self) -> str:
        """What the process printed on stderr so far."""
        return "".join(self._stderr)

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def wait_event(self, kind: str, *, timeout: float = 30.0) -> dict[str, Any]:
        """Return the next event of that type; earlier ones of other types are kept in ``seen``.

        Raises:
            CloudError: The process ended, or ``timeout`` seconds passed, without it.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise CloudError(f"no {kind!r} within {timeout} s\n{self.report()}") from None
            if event is None:
                self._events.put(None)
                self._process.wait(timeout=10)
                raise CloudError(f"ended with {self._process.returncode} before {kind!r}\n{self.report()}")
            self.seen.append(event)
            if event.get("type") == kind:
                return event

    def report(self) -> str:
        """Return what is known of the process, for a failure's message."""
        events = "\n".join(json.dumps(e) for e in self.seen[-20:])
        return f"$ {' '.join(self.argv)}\n{events}\n{self.stderr[-8000:]}"

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def wait(self, *, timeout: float = 40.0) -> int:
        """Wait for the end and return the exit code.

        Raises:
            CloudError: It still runs after ``timeout`` seconds.
        """
        try:
            code = self._process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise CloudError(f"still runs after {timeout} s\n{self.report()}") from None
        for reader in self._readers:
            reader.join(timeout=5)
        while True:
            with contextlib.suppress(queue.Empty):
                if (event := self._events.get_nowait()) is not None:
                    self.seen.append(event)
                    continue
                self._events.put(None)
            break
        return code

    def stop(self, *, timeout: float = 40.0) -> int:
        """End the process politely, then by force; return its exit code. Idempotent."""
        if self.running:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(CloudError):
                self.wait(timeout=timeout)
        if self.running:
            self._process.kill()
        code = self.wait(timeout=10)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Serve(EventProcess):
    """A running ``datumctl-serve``."""

    def __init__(self, state_dir: Path, *args: str, env: Mapping[str, str] | None = None) -> None:
        super().__init__(
            [command("datumctl-serve"), *args, "-o", "json"], env={"DRTP_STATE_DIR": str(state_dir), **(env or {})}
        )

    def ready(self, *, timeout: float = 30.0) -> dict[str, Any]:
        """Return the ``tunnel_ready`` event."""
        return self.wait_event("tunnel_ready", timeout=timeout)


class LocalCloud(EventProcess):
    """A running ``drtp local`` on free ports, with a state directory of its own."""

    def __init__(self, state_dir: Path, *args: str, gateway: str = "envoy", any_port: bool = True) -> None:
        self.state_dir = state_dir
        ports = ["--http-port", "0", "--api-port", "0", "--registration-port", "0"] if any_port else []
        super().__init__(
            [
                command("drtp"),
                "local",
                "--state-dir",
                str(state_dir),
                "--gateway",
                gateway,
                "-o",
                "json",
                *ports,
                *args,
            ],
            env={"DRTP_STATE_DIR": str(state_dir)},
        )
        self.info: dict[str, Any] = {}

    def ready(self, *, timeout: float = 60.0) -> dict[str, Any]:
        """Wait until everything answers and return the ``local_ready`` event."""
        self.info = self.wait_event("local_ready", timeout=timeout)
        return self.info

    @contextlib.contextmanager
    def serve(self, *args: str, env: Mapping[str, str] | None = None) -> Iterator[Serve]:
        """Run ``datumctl-serve`` against this cloud for the length of the block."""
        with Serve(self.state_dir, *args, env=env) as process:
            yield process
