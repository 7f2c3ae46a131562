"""The gateway ``envoy``: exposures in, a programmed Envoy out.

Rules:
- One ``apply`` at a time; each brings the whole desired state, and returns when Envoy has confirmed or refused it.
- An exposure that Envoy refuses is taken out again, so that the files on disk are ones that Envoy accepts, and it is
  tried anew with the next ``apply``.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from drtp_api.errors import DrtpError
from drtp_api.gateways import Exposure, ExposureStatus, GatewayContext, GatewayInfo
from drtp_api.statedir import ensure_directory
from drtp_gateway_envoy.admin import AdminError
from drtp_gateway_envoy.judge import LDS_STAT, Answers, blame, expected_versions, unconfirmed
from drtp_gateway_envoy.options import HTTP_LISTENER, EnvoyOptions
from drtp_gateway_envoy.process import EnvoyProcess
from drtp_gateway_envoy.publish import Directory, first_round, second_round
from drtp_gateway_envoy.refuser import Refuser
from drtp_gateway_envoy.render import LDS, Rendered, Settings, bootstrap, render

__all__ = ["EnvoyFactory", "EnvoyGateway"]

PORT_ATTEMPTS: Final = 5
"""A free port may be taken between finding and binding it."""
WARMING_MARGIN: Final = 0.5
"""Seconds above one health check to wait for a new cluster, so that a visitor who comes at once is served."""


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


async def _pauses() -> AsyncIterator[None]:
    """Yield at once, and then after pauses that grow from a millisecond to fifty."""
    pause = 0.001
    while True:
        yield
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.05)


class EnvoyGateway:
    """Programs a local Envoy of its own through files."""

    name = "envoy"

    def __init__(self, options: EnvoyOptions) -> None:
        self.options = options
        self._lock = asyncio.Lock()
        self._refuser = Refuser()
        self._process: EnvoyProcess | None = None
        self._settings: Settings | None = None
        self._directory: Directory | None = None
        self._current: Rendered | None = None
        # Rejections already counted, and the restart they belong to: Envoy counts from zero again after one.
        self._counted: tuple[int, dict[str, str]] = (0, {})

    @property
    def pid(self) -> int | None:
        """Envoy's process id, which changes when it is restarted."""
        return self._process.pid if self._process is not None else None

    @property
    def restarts(self) -> int:
        """How often Envoy died and was started again."""
        return self._process.restarts if self._process is not None else 0

    async def start(self, context: GatewayContext) -> GatewayInfo:
        """Start Envoy with no services.

        Raises:
            DrtpError: DRTP-1006 the state directory; DRTP-5001 no Envoy; DRTP-5002 it did not start; DRTP-5003 the
                HTTP port is taken.
        """
        root = ensure_directory(context.state_dir.absolute() / "envoy")
        for attempt in range(PORT_ATTEMPTS):
            port = context.http_port or _free_port(context.listen_host)
            refusal = await self._start(root, context.listen_host, port)
            if refusal is None:
                return await self._info(context.listen_host, port)
            await self.stop()
            if context.http_port or attempt == PORT_ATTEMPTS - 1:
                raise DrtpError("DRTP-5003", f"HTTP port {port}: {refusal}")
        raise AssertionError

    async def _start(self, root: Path, host: str, port: int) -> str | None:
        self._process = EnvoyProcess(root, self.options)
        self._settings = Settings(
            directory=root, host=host, http_port=port, run_id=secrets.token_hex(4), options=self.options,
            refuser=await self._refuser.start(),
        )  # fmt: skip
        self._directory = Directory(root)
        self._directory.prepare()
        self._current = render((), self._settings)
        self._counted = (0, {})
        self._directory.write(first_round(None, self._current))
        self._directory.replace("bootstrap.json", bootstrap(self._settings, self._process.admin_socket))
        try:
            await self._process.start(root / "bootstrap.json")
        except BaseException:
            self._refuser.stop()
            raise
        try:
            return (await self._process.admin.refused_listeners()).get(HTTP_LISTENER)
        except AdminError as error:
            await self.stop()
            raise DrtpError("DRTP-5002", str(error)) from error

    async def _info(self, host: str, port: int) -> GatewayInfo:
        assert self._process is not None
        version = None
        with contextlib.suppress(AdminError, LookupError):
            version = (await self._process.admin.server_version()).split("/")[1]
        return GatewayInfo(
            host={"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host),  # noqa: S104
            http_port=port,
            pid=self._process.pid,
            version=version,
            details={"admin": self._process.admin_socket, "binary": self._process.binary},
        )

    async def stop(self) -> None:
        """End Envoy; the files stay for whoever wants to know what it ran. Idempotent."""
        self._refuser.stop()
        process, self._process = self._process, None
        if process is not None:
            await process.stop()

    async def apply(self, exposures: Sequence[Exposure]) -> Mapping[str, ExposureStatus]:
        """Program exactly these exposures and return the status of each.

        Raises:
            DrtpError: DRTP-1006; the files cannot be written.
        """
        async with self._lock:
            settings, process = self._settings, self._process
            if settings is None or process is None:
                raise DrtpError("DRTP-5002", "the gateway is not running")
            statuses: dict[str, ExposureStatus] = {}
            wanted = list(exposures)
            while True:
                rendered = render(wanted, settings)
                faulty = await self._bring(rendered, process)
                statuses |= {**rendered.faults, **faulty}
                # What was refused goes out again. What is merely late stays: Envoy may be starting anew.
                refused = {name for name, status in faulty.items() if status.reason != "Unconfirmed"}
                if not refused:
                    break
                wanted = [exposure for exposure in wanted if exposure.key not in refused]
            programmed = ExposureStatus(programmed=True)
            return {e.key: statuses.get(e.key, programmed) for e in exposures}

    async def _bring(self, rendered: Rendered, process: EnvoyProcess) -> dict[str, ExposureStatus]:
        """Write the files, wait for Envoy's word, and return the status of what it does not serve."""
        directory = self._directory
        assert directory is not None
        previous = self._current
        changed = {file.path for file in directory.write(first_round(previous, rendered))}
        expected = expected_versions(directory.versions)
        answers = await self._answers(expected, process)
        if LDS in changed and answers.refused:
            # Envoy tries a port again only when the file changes; forgetting its version makes the next apply do that.
            directory.versions.pop(LDS)
        faulty = blame(rendered, previous, expected, answers)
        directory.write(second_round(rendered))
        self._current = rendered
        return faulty

    async def _answers(self, expected: Mapping[str, str], process: EnvoyProcess) -> Answers:
        """Ask Envoy until it runs with the expected versions, has refused one, or the patience ends."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.options.confirm_timeout
        answers, asked = Answers(versions={}), 0
        async for _ in _pauses():
            with contextlib.suppress(AdminError):
                answers = Answers(versions=await process.admin.versions())
                missing = unconfirmed(expected, answers.versions)
                asked += 1
                # Counting rejections makes Envoy go through all its statistics: not in the first milliseconds.
                if missing and asked > 3:
                    rejections = await process.admin.rejections()
                    rejected = self._newly(rejections, process.restarts) & missing
                    if missing <= rejected or (rejected and clock() > deadline):
                        self._counted = process.restarts, rejections
                        refused = await process.admin.refused_listeners() if LDS_STAT in rejected else {}
                        answers = attrs.evolve(answers, rejected=rejected, refused=refused)
                        missing -= rejected
                if not missing:
                    return attrs.evolve(answers, warming=await self._warming(process))
            if clock() > deadline:
                break
        return answers

    async def _warming(self, process: EnvoyProcess) -> frozenset[str]:
        """Wait until the new clusters are in use, and return those that are not when the patience ends.

        Raises:
            AdminError: No answer.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.options.connect_timeout + WARMING_MARGIN
        async for _ in _pauses():
            warming = await process.admin.warming_clusters()
            if not warming or clock() > deadline:
                break
        return warming

    def _newly(self, rejections: Mapping[str, str], restarts: int) -> frozenset[str]:
        """Return the statistics of the files that were rejected since the last time they were counted."""
        before = self._counted[1] if self._counted[0] == restarts else {}
        return frozenset(name.rpartition(".")[0] for name, count in rejections.items() if before.get(name) != count)


class EnvoyFactory:
    """Makes the gateway ``envoy``."""

    config_type = EnvoyOptions

    def __call__(self, config: EnvoyOptions) -> EnvoyGateway:
        """Return the gateway; nothing is started yet."""
        return EnvoyGateway(config)
