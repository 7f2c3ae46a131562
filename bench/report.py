"""What is made of the values: ratios, and the page that carries them.

Rules: the page says by which command and on what machine it was made, so nobody needs to type a figure; a noisy run
says so on its page.
What must not live here: measuring.
"""

from __future__ import annotations

import os
import platform
import shlex
import statistics
import sys
from collections.abc import Iterator, Sequence

from chains import Bare, Chain
from measure import Column, Measurement

NOISY = 0.3
"""Foreign processors in use beyond which a result should not be believed."""

Found = dict[str, dict[str, list[float]]]


def ratios(
    chains: Sequence[Chain], columns: Sequence[Column], values: Found
) -> Iterator[tuple[str, list[float | None]]]:
    """Yield each of our chains divided by each of the others, a cell for each column."""
    ours = [chain for chain in chains if chain.name.startswith("drtp") or isinstance(chain, Bare)]
    theirs = [chain for chain in chains if chain not in ours and chain.name != "direct"]
    bare = [chain for chain in ours if chain.name == "drtp"]
    pairs = [(our, other) for our in ours for other in theirs]
    # What the product costs on top of the data path it uses.
    pairs += [(our, base) for our in ours for base in bare if our.name == "drtp-edge"]
    for our, other in pairs:
        row: list[float | None] = []
        for column in columns:
            mine, reference = values[our.name].get(column.name), values[other.name].get(column.name)
            whole = statistics.median(reference) if reference else 0.0
            row.append(statistics.median(mine) / whole if mine and whole else None)
        yield f"{our.name} / {other.name}", row


def page(
    chains: Sequence[Chain],
    chosen: Sequence[Measurement],
    values: Found,
    foreign: Sequence[float],
    *,
    rounds: int,
    seconds: float,
) -> str:
    """Return the Markdown page of one run: a table for medians and one for ratios, turned to be read."""
    columns = [column for measurement in chosen for column in measurement.columns]
    busy = statistics.median(foreign) if foreign else 0.0
    medians = [
        [f"{statistics.median(found):.{column.decimals}f}" if (found := values[chain.name].get(column.name)) else "-"
         for column in columns]
        for chain in chains
    ]  # fmt: skip
    divided = list(ratios(chains, columns, values))
    lines = [
        "# Benchmarks",
        "",
        "<!-- Generated; do not edit. Made by the command below. -->",
        "",
        f"`python bench/run.py {shlex.join(sys.argv[1:])}`",
        "",
        f"- {os.cpu_count()} processors, {platform.system()} {platform.release()}, {platform.machine()}",
        f"- {platform.python_implementation()} {platform.python_version()}",
        f"- medians of {rounds} rounds of {seconds:g} s for each load, over loopback, all chains interleaved",
        f"- others kept {busy:.2f} processors busy meanwhile"
        + (": **too many to trust these figures**, repeat the run on a quiet machine" if busy > NOISY else ""),
        "",
        "Trust ratios, not absolutes; what the rows and columns mean is in [bench/README.md](../bench/README.md).",
        "",
        "## Medians",
        "",
        *_table([chain.name for chain in chains], columns, medians),
        "",
        "## Ratios",
        "",
        "Bulk and conn/s: more is better. Everything else: less is better.",
        "",
        *_table(
            [label for label, _ in divided],
            columns,
            [["-" if cell is None else f"{cell:.2f}" for cell in row] for _, row in divided],
        ),
        "",
    ]
    return "\n".join(lines)


def _table(heads: Sequence[str], columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for number, column in enumerate(columns):
        cells = " | ".join(row[number] for row in rows)
        lines.append(f"| {column.name} ({column.unit}) | {cells} |")
    return lines
