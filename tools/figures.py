"""Figures of the project: files and lines per package, import and start-up times of the commands.

Lines are counted without blanks and comments. Times are the best of several runs, beside the time that an empty
Python takes in the same run: compare the two, the machine decides the rest.
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def code_lines(path: Path) -> int:
    """Return the number of lines that hold code (docstrings count: they are part of the product)."""
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type not in skip:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines)


def sizes() -> None:
    """Print files and lines of each package and plugin."""
    print(f"{'package':28} {'files':>6} {'lines':>7} {'longest':>8} {'tests':>7}")
    totals = [0, 0, 0]
    for member in sorted(
        p.parent for folder in ("packages", "plugins") for p in (ROOT / folder).glob("*/pyproject.toml")
    ):
        source = [code_lines(p) for p in (member / "src").rglob("*.py")]
        tests = sum(code_lines(p) for p in (member / "tests").rglob("*.py"))
        print(f"{member.name:28} {len(source):6} {sum(source):7} {max(source):8} {tests:7}")
        totals = [totals[0] + len(source), totals[1] + sum(source), totals[2] + tests]
    shared = sum(code_lines(p) for p in (ROOT / "tests").rglob("*.py"))
    print(f"{'all':28} {totals[0]:6} {totals[1]:7} {'':8} {totals[2] + shared:7}")


def best(argv: list[str], runs: int = 7) -> float:
    """Return the shortest time of several runs, in seconds."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return min(times)


def start_up() -> None:
    """Print how long the commands take to say what they are."""
    print(f"\n{'command':36} {'ms':>6}")
    rows = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "datumctl-serve --plugin-manifest": [str(BIN / "datumctl-serve"), "--plugin-manifest"],
        "datumctl-serve --help": [str(BIN / "datumctl-serve"), "--help"],
        "drtp --help": [str(BIN / "drtp"), "--help"],
        "drtp-edge --help": [str(BIN / "drtp-edge"), "--help"],
    }
    for name, argv in rows.items():
        print(f"{name:36} {best(argv) * 1000:6.0f}")


if __name__ == "__main__":
    sizes()
    start_up()
