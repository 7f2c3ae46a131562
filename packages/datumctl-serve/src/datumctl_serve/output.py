"""What people and programs see: progress on stderr, results on stdout, in the form that was asked for.

Rules:
- ``-o json`` prints one JSON object a line and nothing else on stdout; ``-o yaml`` one document each.
- Colour only on a terminal, and never as the only carrier of a meaning; without UTF-8 the glyphs are ASCII.
- A secret is printed by the one command that makes it, on stdout, and nowhere else.

What must not live here: deciding what happened.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO, assert_never

import attrs

from drtp_agent.events import (
    AgentEvent,
    ConnectedServer,
    ErrorOccurred,
    TunnelDegraded,
    TunnelProgress,
    TunnelReady,
    TunnelRecovered,
    TunnelStopped,
    to_dict,
)
from drtp_api.errors import DrtpError

__all__ = ["FORMATS", "LOG_FORMATS", "Output"]

FORMATS: Final = ("table", "json", "yaml")
LOG_FORMATS: Final = ("term", "logfmt", "json")

_COLOURS: Final = {"done": "32", "waiting": "33", "error": "31", "strong": "1", "dim": "2"}


@attrs.define
class Output:
    """Where and how to print."""

    form: str = "table"
    log_format: str = "term"
    stdout: TextIO = attrs.field(factory=lambda: sys.stdout)
    stderr: TextIO = attrs.field(factory=lambda: sys.stderr)
    started: float = attrs.field(factory=time.monotonic)
    target: str = ""

    # Results

    def result(self, data: Mapping[str, Any], text: str) -> None:
        """Print a result: as data where a program reads, as text for people."""
        match self.form:
            case "json":
                self._line(self.stdout, json.dumps(data, ensure_ascii=False))
            case "yaml":
                import yaml

                self._line(self.stdout, yaml.safe_dump(dict(data), explicit_start=True, sort_keys=False).rstrip("\n"))
            case _:
                if text:
                    self._line(self.stdout, text)

    def rows(self, header: Sequence[str], rows: Sequence[Sequence[str]], data: Sequence[Mapping[str, Any]]) -> None:
        """Print a table, or an object a line."""
        if self.form != "table":
            for entry in data:
                self.result(entry, "")
            return
        widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
        for row in (header, *rows):
            self._line(self.stdout, "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())

    def error(self, error: DrtpError) -> None:
        """Print an error that ends the command before an agent runs."""
        self.event(ErrorOccurred.of(error))

    def warn(self, text: str) -> None:
        """Print a warning for people."""
        self._note("waiting", "warning", text)

    def note(self, text: str) -> None:
        """Print a note for people."""
        self._note("dim", "note", text)

    # Events

    def event(self, event: AgentEvent) -> None:
        """Print what an agent tells."""
        if self.form != "table":
            self.result(to_dict(event), "")
        match event:
            case TunnelProgress(step=step, status=status, message=message):
                self._note(status, f"step={step}", message, timed=status == "done")
            case TunnelReady():
                self._ready(event)
            case TunnelDegraded(servers=servers, missing=missing):
                left = f"{len(servers)} of {len(servers) + len(missing)} tunnel servers"
                self._note("waiting", "degraded", f"connected to {left}; missing {', '.join(missing)}")
            case TunnelRecovered(servers=servers):
                self._note("done", "recovered", f"connected to all {len(servers)} tunnel servers again")
            case ErrorOccurred(code=code, message=message, hint=hint):
                self._error(code, message, hint)
            case TunnelStopped(reason=reason):
                text = {"superseded": "stopped: a newer process of this name serves now"}.get(reason, "stopped")
                self._note("done" if reason in {"stopped", "superseded", "command"} else "error", "stopped", text)
            case _:
                assert_never(event)

    def _ready(self, event: TunnelReady) -> None:
        where = event.url or "  ".join(f"{a.host}:{a.port}" for a in event.addresses)
        if self.form == "table" and where:
            self._line(self.stdout, where)
        if self.log_format != "term":
            self._note("done", "ready", f"{where} verified={event.verified}")
            return
        elapsed = time.monotonic() - self.started
        lines = [
            self._paint("strong", f"Ready after {elapsed:.1f} s: {where or event.name} {self._arrow()} {self.target}")
        ]
        lines.append(f"  through {', '.join(map(_server_words, event.servers))}")
        if event.private:
            lines.append(f"  private: open it to the world with  datumctl-serve publish {event.name}")
        elif event.verified != "service":
            lines.append(f"  checked as far as the {event.verified}; a visit from here cannot go further")
        if not event.private:
            lines += [f"  try  {command}" for command in _clients(event)]
        lines.append("  Ctrl-C stops and lets visitors finish for 30 s; again stops at once")
        self._line(self.stderr, "\n".join(lines))

    def _error(self, code: str, message: str, hint: str) -> None:
        if self.log_format != "term":
            self._note("error", f"code={code}", message, hint=hint)
            return
        mark = self._paint("error", "✗" if self._utf8() else "x")
        self._line(self.stderr, f"{mark} {code} {message}\n  try: {hint}")

    def _note(self, status: str, kind: str, text: str, *, timed: bool = False, hint: str = "") -> None:
        match self.log_format:
            case "json":
                entry = {"time": _now(), "level": _level(status), "kind": kind, "message": text}
                self._line(self.stderr, json.dumps({**entry, **({"hint": hint} if hint else {})}, ensure_ascii=False))
            case "logfmt":
                tail = f" hint={json.dumps(hint)}" if hint else ""
                what = kind if "=" in kind else f"event={kind}"
                message = json.dumps(text, ensure_ascii=False)
                self._line(self.stderr, f"time={_now()} level={_level(status)} {what} message={message}{tail}")
            case _:
                glyphs = {"done": "✓", "error": "✗"} if self._utf8() else {"done": "+", "error": "x"}
                mark = self._paint(status, glyphs.get(status, "○" if self._utf8() else "o"))
                took = self._paint("dim", f"  ({time.monotonic() - self.started:.1f} s)") if timed else ""
                self._line(self.stderr, f"{mark} {text}{took}")

    # Parts

    def _paint(self, role: str, text: str) -> str:
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            return text
        if not (self.stderr.isatty() or os.environ.get("FORCE_COLOR")):
            return text
        return f"\x1b[{_COLOURS.get(role, '0')}m{text}\x1b[0m"

    def _utf8(self) -> bool:
        return (self.stderr.encoding or "").lower().replace("-", "") == "utf8"

    def _arrow(self) -> str:
        return "→" if self._utf8() else "->"

    @staticmethod
    def _line(stream: TextIO, text: str) -> None:
        """Print a line; a reader that went away is no fault of the tunnel's."""
        try:
            stream.write(text + "\n")
            stream.flush()
        except (BrokenPipeError, ValueError):
            return


def _server_words(server: ConnectedServer) -> str:
    rtt = "" if server.rtt_milliseconds is None else f" {server.rtt_milliseconds} ms"
    return f"{server.name} ({server.city}, {server.transport}{rtt})"


def _clients(event: TunnelReady) -> list[str]:
    """Return commands that visit the service."""
    if event.url is not None and event.url.startswith("http"):
        return [f"curl {event.url}"]
    known = {5432: "psql -h {host} -p {port}", 22: "ssh -p {port} {host}", 6379: "redis-cli -h {host} -p {port}"}
    return [known.get(a.port, "nc {host} {port}").format(host=a.host, port=a.port) for a in event.addresses[:1]]


def _level(status: str) -> str:
    return {"error": "error", "waiting": "warning"}.get(status, "info")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
