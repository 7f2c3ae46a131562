"""Certificates, an engine, and a listener with its carriers."""

import asyncio

import pytest

from drtp_api.dataplane.engine import create_engine
from drtp_api.dataplane.testing import make_certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def run():
    """Run a coroutine function that takes an engine."""

    def run_scenario(scenario):
        async def main():
            engine = create_engine()
            try:
                async with asyncio.timeout(30):
                    await scenario(engine)
            finally:
                engine.close()

        asyncio.run(main())

    return run_scenario
