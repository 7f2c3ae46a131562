"""What the fuzz harnesses share: the corpus, and how to run with and without atheris.

python fuzz_connection.py                      # fuzz until stopped (needs atheris: pip install atheris)
python fuzz_connection.py -max_total_time=60   # libFuzzer's options
python fuzz_connection.py --replay FILE...     # run given inputs once, without atheris
python fuzz_connection.py --replay             # the same with the whole corpus
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

VECTORS = Path(__file__).resolve().parent.parent / "tests" / "vectors"

Target = Callable[[bytes], None]


def vector_lines(arrow: str) -> list[list[bytes]]:
    """Return, for each vector, the bytes that one end sends: ">" the agent's, "<" the edge's."""
    sessions = []
    for path in sorted(VECTORS.rglob("*.hex")):
        lines = path.read_text(encoding="utf-8").splitlines()
        sessions.append([bytes.fromhex(line[2:]) for line in lines if line.startswith(arrow)])
    return sessions


def all_frames() -> list[bytes]:
    """Return every line of every vector."""
    return [line for arrow in "><" for session in vector_lines(arrow) for line in session]


def run(target: Target, corpus: Iterable[bytes]) -> int:
    """Fuzz `target`, or replay inputs through it; return the exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--replay"]:
        inputs = [Path(name).read_bytes() for name in arguments[1:]] or list(corpus)
        for data in inputs:
            target(data)
        sys.stdout.write(f"{len(inputs)} inputs, nothing found\n")
        return 0
    try:
        import atheris
    except ImportError:
        sys.stderr.write("atheris is not installed: pip install atheris, or use --replay\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="drtp-corpus-") as place:
        for number, data in enumerate(corpus):
            (Path(place) / f"{number:05}").write_bytes(data)
        atheris.instrument_all()
        atheris.Setup([sys.argv[0], *arguments, place], target)
        atheris.Fuzz()
    return 0
