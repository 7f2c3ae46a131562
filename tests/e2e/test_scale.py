"""The command that measures the control plane at its promised size, run small: it measures what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

TOOL = Path(__file__).resolve().parents[2] / "tools" / "scale.py"


def test_the_figures_of_the_control_plane_are_measured_beside_their_targets() -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--quick"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    rows = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    for promise in ("full resync", "list over HTTP", "watch start", "RSS", "p95", "writes a second"):
        assert any(promise in name for name in rows), promise
    # these do not depend on how busy the machine is
    silent = [line for name, line in rows.items() if "quiet" in name or "reconciles" in name or "writes" in name]
    assert len(silent) == 4
    assert not [line for line in silent if line.endswith("MISSED")]
