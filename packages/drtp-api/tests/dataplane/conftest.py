"""Engines, carriers and recording handlers for the data plane's tests."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from drtp_api.dataplane.engine import Engine, create_engine
from drtp_api.dataplane.testing import TestCertificate, make_certificate

Scenario = Callable[[Engine], Awaitable[None]]


@pytest.fixture(params=["epoll", "epoll-spin", "portable"])
def run(request) -> Callable[[Scenario], None]:
    """Run a coroutine function with each kind of engine in its own loop."""

    def run_scenario(scenario: Scenario) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            faults: list[dict] = []
            loop.set_exception_handler(lambda _, context: faults.append(context))
            kind = request.param.partition("-")[0]
            engine = create_engine(kind=kind, spin_us=50 if "spin" in request.param else 0)
            engine.faults = faults
            try:
                async with asyncio.timeout(30):
                    await scenario(engine)
                    while engine._handlers and not engine._closed:
                        # Carriers that were closed politely linger for their peer; nothing else may be left.
                        await asyncio.sleep(0.005)
            finally:
                engine.close()
            expected = getattr(engine, "expected_faults", 0)
            assert len(faults) == expected, faults

        asyncio.run(main())

    return run_scenario


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> TestCertificate:
    directory: Path = tmp_path_factory.mktemp("tls")
    return make_certificate(directory)
