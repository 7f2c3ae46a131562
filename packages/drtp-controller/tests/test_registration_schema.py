"""The registration API held to its own OpenAPI document, by a program that reads nothing else of it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from .conftest import TOKEN, Agent, api, run

SECONDS = 60.0
"""Ten are used on a quiet machine."""

ENDLESS = "/v1alpha1/connections/{name}/events"
"""Its answer is a stream without an end; what its events hold is read strictly where they are tested."""
EXCLUDED = "positive_data_acceptance"
"""JSON Schema cannot say the rules between fields (a standby needs two servers), which the API refuses with a 400."""


@pytest.mark.timeout(180)
def test_no_request_causes_a_server_error_or_an_answer_that_the_schema_does_not_describe(tmp_path):
    async def scenario():
        async with api(tmp_path / "cloud") as client:
            await client.register(Agent())
            process = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).with_name("schemathesis")), "run", client.url + "/schema/openapi.json",
                "--header", f"Authorization: Bearer {TOKEN}", "--seed", "20261123", "--max-examples", "15",
                "--phases", "coverage,fuzzing", "--exclude-checks", EXCLUDED, "--continue-on-failure",
                "--exclude-path", ENDLESS, "--request-timeout", "10", "--no-color",
                cwd=tmp_path, env={**os.environ, "NO_PROXY": "*", "PYTHONUTF8": "1"},
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            assert process.stdout is not None
            out = await process.stdout.read()
            assert await process.wait() == 0, out.decode()[-6000:]
            assert b"generated" in out

    run(scenario(), seconds=2 * SECONDS)
