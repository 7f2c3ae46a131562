"""The measurements: one load on one chain, and what it says.

Rules:

- A measurement is a name, a unit, whether more is better, and a function of (load program, chain, seconds).
- Nothing here compares: ratios are made from medians of interleaved rounds by ``run.py``.

What must not live here: which chains exist.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from chains import Chain

Values = dict[str, float]


@dataclass(frozen=True)
class Column:
    """One number in the result table."""

    name: str
    unit: str
    more_is_better: bool
    decimals: int = 0


@dataclass(frozen=True)
class Measurement:
    """A load and the columns it fills."""

    columns: tuple[Column, ...]
    run: Callable[[Path, Chain, float], Values]


def run_load(load: Path, *arguments: str | float) -> dict:
    """Run one load to its end and return its line of JSON."""
    done = subprocess.run([load, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"load {arguments}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def bulk(streams: int, direction: str) -> Measurement:
    """Megabytes a second over some streams, ``up`` (visitor to service) or ``down``, and what a GiB costs the chain."""
    speed = Column(f"bulk {streams} {direction}", "MB/s", True)
    cost = Column("cpu", "s/GiB", False, 2)

    def run(load: Path, chain: Chain, seconds: float) -> Values:
        before = cpu_seconds(chain.pids.values())
        result = run_load(load, "bulk", chain.port, streams, seconds, direction)
        spent = cpu_seconds(chain.pids.values()) - before
        return {speed.name: result["mbps"], f"{speed.name} cpu": spent * 2**30 / result["bytes"]}

    return Measurement((speed, replace(cost, name=f"{speed.name} cpu")), run)


def ping() -> Measurement:
    """Microseconds of 64-byte round trips with nothing beside them."""
    columns = Column("ping p50", "us", False), Column("ping p99", "us", False)

    def run(load: Path, chain: Chain, seconds: float) -> Values:
        result = run_load(load, "ping", chain.port, 64, max(500, int(seconds * 3000)))
        return {columns[0].name: result["p50"], columns[1].name: result["p99"]}

    return Measurement(columns, run)


def ping_beside(streams: int) -> Measurement:
    """The same while bulk streams run."""
    columns = Column(f"ping+{streams} p50", "us", False), Column(f"ping+{streams} p99", "us", False)

    def run(load: Path, chain: Chain, seconds: float) -> Values:
        beside = subprocess.Popen(
            [load, "bulk", str(chain.port), str(streams), str(seconds + 1), "up"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            time.sleep(0.4)
            result = run_load(load, "ping", chain.port, 64, max(300, int(seconds * 1000)))
        finally:
            beside.terminate()
            beside.wait()
        return {columns[0].name: result["p50"], columns[1].name: result["p99"]}

    return Measurement(columns, run)


def rate(concurrency: int) -> Measurement:
    """New connections a second, each with a request and an answer, and what one costs the chain."""
    columns = Column(f"conn/s {concurrency}", "1/s", True), Column(f"conn {concurrency} cpu", "us", False)

    def run(load: Path, chain: Chain, seconds: float) -> Values:
        before = cpu_seconds(chain.pids.values())
        result = run_load(load, "rate", chain.port, concurrency, seconds)
        spent = cpu_seconds(chain.pids.values()) - before
        if result["failed"]:
            raise RuntimeError(f"{chain.name}: {result['failed']} connections failed")
        return {columns[0].name: result["rate"], columns[1].name: spent * 1e6 / max(1, result["connections"])}

    return Measurement(columns, run)


def memory(count: int) -> Measurement:
    """KiB of proportional memory that an idle connection adds to the edge and to the agent."""
    columns = Column("KiB/idle edge", "KiB", False, 2), Column("KiB/idle agent", "KiB", False, 2)
    roles = dict(zip(("edge", "agent"), columns, strict=True))

    def run(load: Path, chain: Chain, seconds: float) -> Values:
        del seconds
        before = {role: pss_kib(pid) for role, pid in chain.pids.items()}
        held = subprocess.Popen(
            [load, "idle", str(chain.port), str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert held.stdout is not None
            if not held.stdout.readline():
                raise RuntimeError(f"{chain.name}: {count} idle connections could not be held")
            time.sleep(0.3)
            after = {role: pss_kib(pid) for role, pid in chain.pids.items()}
        finally:
            held.communicate()
        return {roles[role].name: (after[role] - before[role]) / count for role in before}

    return Measurement(columns, run)


def pss_kib(pid: int) -> float:
    """Return the proportional set size of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1])
    raise RuntimeError(f"process {pid} has no Pss")


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time that processes have used, by the scheduler's own clock.

    The tick-based counters of ``/proc/PID/stat`` are too coarse for short runs.
    """
    total = 0.0
    for pid in pids:
        total += sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())
    return total / 1e9


class LoadMeter:
    """Says how many processors others kept busy meanwhile; their share is noise in every number."""

    def __init__(self, pids: Iterable[int]) -> None:
        self.pids = list(pids)
        self.started = time.monotonic()
        self.busy, self.own = self._busy(), self._own()

    def foreign(self) -> float:
        """Return processors kept busy by anything but the benchmark since this meter was made."""
        elapsed = time.monotonic() - self.started
        return max(0.0, ((self._busy() - self.busy) - (self._own() - self.own)) / elapsed)

    @staticmethod
    def _busy() -> float:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        idle = fields[3] + fields[4]
        return (sum(fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")

    def _own(self) -> float:
        return sum(os.times()[:4]) + cpu_seconds(self.pids)
