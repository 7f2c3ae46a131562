"""Figures of the project: files and lines per package, import and start-up times of the commands.

Lines are counted without blanks and comments. Times are the best of several runs, beside the time that an empty
Python takes in the same run: compare the two, the machine decides the rest.
"""

from __future__ import annotations

import argparse
import http.server
import io
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tokenize
from pathlib import Path

from drtp_testkit.cloud import LocalCloud

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


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Answers, and says nothing of it."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited
        """Say nothing."""


def ready(runs: int) -> None:
    """Print how long `drtp local` and `datumctl-serve` take until everything answers."""
    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    target = f"localhost:{site.server_address[1]}"
    local, serve = [], []
    with tempfile.TemporaryDirectory(prefix="drtp-figures-") as state:
        for _ in range(3):
            began = time.perf_counter()
            with LocalCloud(Path(state)) as cloud:
                cloud.ready()
                local.append(time.perf_counter() - began)
                for _ in range(-(-runs // 3)):
                    began = time.perf_counter()
                    with cloud.serve(target, "--public", "--name", "figures") as process:
                        process.ready()
                        serve.append(time.perf_counter() - began)
    site.shutdown()
    site.server_close()
    print(f"\n{'until everything answers':36} {'median':>7} {'p95':>7} {'runs':>5}")
    for name, times in (("drtp local with Envoy", local), ("datumctl-serve to tunnel_ready", serve)):
        p95 = sorted(times)[min(len(times) - 1, int(len(times) * 0.95))]
        print(f"{name:36} {statistics.median(times):6.2f}s {p95:6.2f}s {len(times):5}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="how often datumctl-serve is started (0: not at all)")
    args = parser.parse_args()
    sizes()
    start_up()
    if args.runs:
        ready(args.runs)
