"""Compare data paths on this machine: ``python bench/run.py --quick``.

Rules:

- All chains run at once and idle; each round measures them one after the other, so that a slow minute of the machine
  hits all alike. Medians over rounds are printed, then ratios, which mean more than the numbers themselves.
- What is missing on this machine is skipped with a sentence.

What must not live here: how a chain is started (``chains.py``) and what is measured (``measure.py``).
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from chains import PEERS, Bare, Chain, Direct, Haproxy, Missing, Service
from measure import LoadMeter, Measurement, bulk, memory, ping, ping_beside, rate
from product import Edge, Product
from report import NOISY, page, ratios

HERE = Path(__file__).parent


def build_load() -> Path:
    """Compile the load generator if it is missing or older than its source.

    Raises:
        Missing: there is no C compiler.
    """
    source, program = HERE / "load.c", HERE / "bin" / "load"
    if program.exists() and program.stat().st_mtime >= source.stat().st_mtime:
        return program
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Missing("the load generator needs a C compiler (Debian: apt-get install gcc libc6-dev)")
    program.parent.mkdir(exist_ok=True)
    subprocess.run([compiler, "-O2", "-Wall", "-o", program, source], check=True)
    return program


def measurements(*, quick: bool, idle: int) -> dict[str, list[Measurement]]:
    """Return what can be asked for with ``--only``, by group."""
    crowd = [1, 16] if quick else [1, 16, 64]
    return {
        "bulk": [bulk(streams, direction) for streams in (1, 16) for direction in ("up", "down")],
        "ping": [ping()],
        "mixed": [ping_beside(1)] if quick else [ping_beside(1), ping_beside(4)],
        "rate": [rate(concurrency) for concurrency in crowd],
        "memory": [memory(idle)],
    }


def main() -> int:
    """Run the comparison; see ``--help``."""
    parser = argparse.ArgumentParser(description="Compare data paths on this machine.")
    parser.add_argument("--quick", action="store_true", help="two short rounds instead of five longer ones")
    parser.add_argument("--rounds", type=int, help="rounds (default 5, quick 2)")
    parser.add_argument("--seconds", type=float, help="seconds of each load (default 2, quick 0.7)")
    parser.add_argument("--only", default="", help="groups to measure: bulk,ping,mixed,rate,memory")
    parser.add_argument(
        "--chains", default="", help="chains to run: direct,haproxy,drtp,drtp-tls,drtp-edge,drtp-product and peers"
    )
    parser.add_argument("--idle", type=int, default=0, help="idle connections for memory (default 3000, quick 1000)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH", help=f"add {', '.join(PEERS)}")
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=FLAGS",
                        help="add our path with flags of bench/node.py, such as 'nospin=--spin 0'")  # fmt: skip
    parser.add_argument("--json", type=Path, help="write all values to this file")
    parser.add_argument("--page", type=Path, help="write medians and ratios to this file as a Markdown page")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (2 if arguments.quick else 5)
    seconds = arguments.seconds or (0.7 if arguments.quick else 2.0)
    idle = arguments.idle or (1000 if arguments.quick else 3000)
    groups = measurements(quick=arguments.quick, idle=idle)
    wanted = arguments.only.split(",") if arguments.only else list(groups)
    chosen = [measurement for name in wanted for measurement in groups[name]]
    try:
        load = build_load()
    except Missing as error:
        print(f"skipped: {error}")
        return 0
    chains: list[Chain] = [Direct(), Haproxy(), Bare(tls=False), Bare(tls=True), Edge(), Product()]
    for peer in arguments.peer:
        name, _, path = peer.partition("=")
        chains.insert(2, PEERS[name](path))
    for variant in arguments.variant:
        name, _, flags = variant.partition("=")
        chains.append(Bare(tls="--tls" in flags, name=name, options=tuple(flags.replace("--tls", "").split())))
    if arguments.chains:
        chains = [chain for chain in chains if chain.name in arguments.chains.split(",")]
    # Stopped from outside, too, the chains must not be left running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    service = Service(load)
    service.start()
    started: list[Chain] = []
    try:
        for chain in chains:
            try:
                chain.start(service.port)
            except Missing as error:
                print(f"skipped: {error}")
                chain.stop()
            else:
                started.append(chain)
        values, foreign = compare(load, service, started, chosen, rounds, seconds)
    finally:
        for chain in [*started, service]:
            chain.stop()
    report(started, chosen, values, foreign)
    if arguments.json:
        arguments.json.write_text(json.dumps(values, indent=1))
    if arguments.page:
        arguments.page.write_text(page(started, chosen, values, foreign, rounds=rounds, seconds=seconds))
    return 0


def compare(
    load: Path, service: Chain, chains: list[Chain], chosen: list[Measurement], rounds: int, seconds: float
) -> tuple[dict[str, dict[str, list[float]]], list[float]]:
    """Measure every chain in every round; returns values by chain and column, and the foreign load seen."""
    values: dict[str, dict[str, list[float]]] = {chain.name: {} for chain in chains}
    foreign: list[float] = []
    for number in range(rounds):
        for measurement in chosen:
            for chain in chains:
                meter = LoadMeter([*service.pids.values(), *chain.pids.values()])
                try:
                    result = measurement.run(load, chain, seconds)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    print(f"{chain.name}: {error}", file=sys.stderr)
                    continue
                foreign.append(meter.foreign())
                for column, value in result.items():
                    values[chain.name].setdefault(column, []).append(value)
                time.sleep(0.05)
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return values, foreign


def report(
    chains: list[Chain], chosen: list[Measurement], values: dict[str, dict[str, list[float]]], foreign: list[float]
) -> None:
    """Print medians, then each of our chains divided by each of the others."""
    columns = [column for measurement in chosen for column in measurement.columns]
    width = max((len(chain.name) for chain in chains), default=8) + 18
    print(f"\n{'median':<{width}}" + "".join(f"{column.name:>15}" for column in columns))
    print(f"{'':<{width}}" + "".join(f"{column.unit:>15}" for column in columns))
    for chain in chains:
        cells = [
            f"{statistics.median(found):>15.{column.decimals}f}"
            if (found := values[chain.name].get(column.name))
            else f"{'-':>15}"
            for column in columns
        ]
        print(f"{chain.name:<{width}}" + "".join(cells))
    print("\nratios (bulk and conn/s: more is better; ping and KiB: less is better)")
    for label, row in ratios(chains, columns, values):
        print(f"{label:<{width}}" + "".join(f"{'-':>15}" if cell is None else f"{cell:>15.2f}" for cell in row))
    if foreign:
        busy = statistics.median(foreign)
        note = " - NOISY, do not trust these numbers" if busy > NOISY else ""
        print(f"\nforeign load: median {busy:.2f}, worst {max(foreign):.2f} processors{note}")


if __name__ == "__main__":
    sys.exit(main())
