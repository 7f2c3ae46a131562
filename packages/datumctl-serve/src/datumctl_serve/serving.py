"""``datumctl-serve TARGET``: options in, one agent out, signals and a child command in between.

Rules:
- The first SIGINT or SIGTERM drains, the second stops at once; before ready an interruption ends with 130.
- A child command starts before the agent looks at the target, and its end is the end of the serving.
- Everything that can be refused without the network is refused before the network is touched.

What must not live here: how an agent works.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import sys
from pathlib import Path
from typing import Any, Final

import attrs

from datumctl_serve.options import make_location, make_output
from datumctl_serve.output import Output
from drtp_agent.agent import Agent
from drtp_agent.config import AgentConfig, Outcome
from drtp_agent.discovery import Location
from drtp_agent.events import AgentEvent, TunnelReady, TunnelStopped
from drtp_agent.names import check_name, name_for, normalise
from drtp_agent.presence import check_target
from drtp_agent.sdk import DRAIN, agent_directory, definition_of
from drtp_agent.state import AgentState
from drtp_agent.target import Target, parse_detail, parse_target
from drtp_api.dataplane.engine import settle
from drtp_api.errors import DrtpError
from drtp_api.registration import ServiceDefinition, ServiceName
from drtp_api.resources import Protocol

__all__ = ["Plan", "plan", "read_secret", "serve"]

SECRET_SIZE: Final = 256
CHILD_GRACE: Final = 10.0
"""Seconds that a child command gets to end by itself after SIGTERM."""
POLL: Final = 0.05


@attrs.frozen(kw_only=True)
class Plan:
    """What the options ask for, checked as far as that goes without the network."""

    name: str
    target: Target | None
    definition: ServiceDefinition | None
    secret: str | None = attrs.field(repr=False)


def serve(values: dict[str, Any], *, command: list[str], secret_shown: bool) -> int:
    """Serve until stopped and return the exit code.

    Raises:
        DrtpError: what is refused before an agent runs.
    """
    out = make_output(values)
    if secret_shown:
        out.warn("--secret shows the secret to every user of this machine; use --secret-file or DATUM_SERVE_SECRET")
    made = plan(values)
    root = agent_directory()
    with AgentState.open(root, made.name) as state:
        location = make_location(values)
        if location.tokens is not None and made.secret is None and _plain(location):
            out.warn(f"the token is sent unencrypted to {location.url}")
        out.target = str(made.target) if made.target is not None else f"the service {made.name}"
        out.note(f"control plane: {location.url} ({location.origin})")
        config = AgentConfig(
            service=ServiceName(name=made.name, namespace=location.namespace),
            target=made.target,
            definition=made.definition,
            secret=made.secret,
            proxy_protocol=values["proxy_protocol"],
            transport=values["transport"],
            restricted=bool(values["allow"]) or made.definition is None,
            check_target=not values["no_target_check"],
            start_timeout=values["timeout"],
            spin_us=None,
        )
        return asyncio.run(_Serving(config, location, state, out, command).run())


def plan(values: dict[str, Any]) -> Plan:
    """Return what the options of the serve command ask for.

    Raises:
        DrtpError: DRTP-1001 to DRTP-1012, and DRTP-4008.
    """
    protocol = Protocol(values["protocol"].upper()) if values["protocol"] else None
    target: Target | None = None
    detail = None
    if values["detail"]:
        if values["target"]:
            raise DrtpError("DRTP-1004", "both TARGET and --detail name the local service")
        detail = parse_detail(values["detail"])
        target = detail.target
    elif values["target"]:
        target = parse_target(values["target"], protocol)
    secret = read_secret(values["secret_file"], values["secret"])
    if values["service"]:
        name = check_name(values["service"])
        if values["name"] not in {None, name}:
            raise DrtpError("DRTP-1004", "--service names the service; --name says something else")
        _refuse_definition(values)
        return Plan(name=name, target=target, definition=None, secret=secret)
    if secret is not None:
        raise DrtpError("DRTP-1004", "a secret is for an existing service", hint="Name it with --service.")
    assert target is not None
    definition = definition_of(
        target,
        public=values["public"],
        port=values["port"],
        hostname=values["hostname"],
        allow=values["allow"],
        servers=values["servers"],
        application_name=detail.name if detail is not None else None,
    )
    if values["name"]:
        name = check_name(values["name"])
    elif detail is not None:
        name = check_name(normalise(detail.name))
    else:
        name = name_for(target, agent_directory(), secrets.randbelow)
    return Plan(name=name, target=target, definition=definition, secret=None)


def read_secret(file: str | None, value: str | None) -> str | None:
    """Return the secret of a file (``-``: standard input) or the one given.

    Raises:
        DrtpError: DRTP-1009; the file cannot be read, or holds no secret.
    """
    if file is None:
        return value or None
    try:
        text = sys.stdin.readline() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DrtpError("DRTP-1009", f"cannot read the secret from {file}: {error}") from error
    secret = text.strip()
    if not secret or len(secret) > SECRET_SIZE or "\n" in secret:
        raise DrtpError("DRTP-1009", f"{file} does not hold a secret: one line of at most {SECRET_SIZE} characters")
    return secret


def _refuse_definition(values: dict[str, Any]) -> None:
    given = [f"--{n}" for n in ("public", "port", "hostname", "allow") if values[n]]
    if given:
        raise DrtpError("DRTP-1004", f"{', '.join(given)} belong to the service's definition",
                        hint="Use `datumctl-serve publish`, or serve without --service.")  # fmt: skip


def _plain(location: Location) -> bool:
    from drtp_agent.control import is_loopback

    return location.url.startswith("http:") and not is_loopback(location.url)


class _Serving:
    """One run of the serve command."""

    def __init__(
        self, config: AgentConfig, location: Location, state: AgentState, out: Output, command: list[str]
    ) -> None:
        self.config = config
        self.location = location
        self.state = state
        self.out = out
        self.command = command
        self.agent: Agent | None = None
        self.ready = False
        self.signals: list[int] = []
        self.stop_now = asyncio.Event()
        self.child: asyncio.subprocess.Process | None = None
        self.child_code: int | None = None

    async def run(self) -> int:
        """Serve and return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled, number)
        watcher: asyncio.Task[None] | None = None
        try:
            if self.command:
                await self._start_child()
                watcher = loop.create_task(self._watch_child())
                await self._wait_for_child()
            if self.signals or self.child_code is not None:
                return self._code(Outcome(reason="stopped"))
            async with self.location.connect() as control:
                self.agent = Agent(self.config, control, self.state, self._on_event)
                return self._code(await self.agent.run())
        finally:
            await self._end_child()
            if watcher is not None:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)

    def _on_event(self, event: AgentEvent) -> None:
        if isinstance(event, TunnelReady) and not self.ready:
            self.ready = True
            settle()
        if isinstance(event, TunnelStopped) and event.reason == "stopped" and self.child_code is not None:
            event = TunnelStopped(reason="command")
        self.out.event(event)

    def _signalled(self, number: int) -> None:
        self.signals.append(number)
        self.stop_now.set()
        if self.agent is None:
            return
        if len(self.signals) == 1 and self.ready:
            self.out.note(f"stopping: visitors have {DRAIN:.0f} s to finish")
        self.agent.stop(drain=DRAIN if len(self.signals) == 1 else 0.0)

    def _code(self, outcome: Outcome) -> int:
        if outcome.error is not None:
            return int(outcome.error.exit_code)
        if len(self.signals) > 1:
            return 128 + self.signals[1]
        if self.signals:
            return 0 if self.ready else 130
        if self.child_code is not None:
            return self.child_code if self.child_code >= 0 else 128 - self.child_code
        return 0

    # The child command

    async def _start_child(self) -> None:
        # With -o json our stdout is for events alone.
        stdout = None if self.out.form == "table" else sys.stderr
        try:
            self.child = await asyncio.create_subprocess_exec(*self.command, stdout=stdout)
        except OSError as error:
            raise DrtpError("DRTP-1007", f"cannot run {self.command[0]}: {error.strerror or error}",
                            hint="Name a program that exists after --.") from error  # fmt: skip

    async def _watch_child(self) -> None:
        assert self.child is not None
        self.child_code = await self.child.wait()
        self.stop_now.set()
        if self.agent is not None:
            self.agent.stop(drain=DRAIN)

    async def _wait_for_child(self) -> None:
        """Wait until the command listens on the target, it ended, or it had its time."""
        if self.config.target is None or not self.config.check_target:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.start_timeout):
                while not self.stop_now.is_set():
                    with contextlib.suppress(DrtpError):
                        await check_target(self.config.target)
                        return
                    await asyncio.sleep(POLL)

    async def _end_child(self) -> None:
        if self.child is None or self.child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.child.terminate()
        try:
            async with asyncio.timeout(CHILD_GRACE):
                await self.child.wait()
        except TimeoutError:
            self.child.kill()
            await self.child.wait()
