"""Inject known bugs into the protocol core and see whether its tests notice.

A fuzz suite without a known kill rate is decoration. Each mutant of `tools/mutants.toml` is a bug that somebody could
write (several are bugs that other multiplexers shipped): a piece of source text and what replaces it. The package is
copied to a temporary directory that comes first on PYTHONPATH, the text is replaced (it must occur exactly once, or the
tool fails: a list that drifted from the code proves nothing), and the tests run against the copy.

    python tools/mutants.py                 # all of them; exit 1 if one survives
    python tools/mutants.py --only window   # those whose name contains "window"
    python tools/mutants.py --jobs 1        # default: 2
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "packages" / "drtp-protocol"
SOURCE = PACKAGE / "src" / "drtp_protocol"
LIST = Path(__file__).with_suffix(".toml")
SECONDS_PER_RUN = 120.0
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Mutant:
    """One injected bug: in `file`, `old` becomes `new`; `first` is the test file most likely to notice."""

    name: str
    file: str
    old: str
    new: str
    first: str


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant; `killer` is the test that noticed, or None."""

    mutant: Mutant
    killer: str | None
    seconds: float


def load(path: Path = LIST) -> list[Mutant]:
    """Read the list.

    Raises:
        ValueError: two mutants share a name.
    """
    mutants = [Mutant(**entry) for entry in tomllib.loads(path.read_text())["mutant"]]
    names = [mutant.name for mutant in mutants]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two mutants are called {name!r}")
    return mutants


def mutated_text(mutant: Mutant) -> str:
    """Return the file's text with the bug in it.

    Raises:
        ValueError: the old text does not occur exactly once, or the result is no Python.
    """
    text = (SOURCE / mutant.file).read_text()
    found = text.count(mutant.old)
    if found != 1:
        raise ValueError(f"{mutant.name}: the old text occurs {found} times in {mutant.file}, expected once")
    changed = text.replace(mutant.old, mutant.new)
    compile(changed, mutant.file, "exec")
    return changed


def run_tests(package_parent: Path, targets: list[str]) -> str | None:
    """Run tests against the package under `package_parent`; return what failed, or None."""
    environment = dict(os.environ, PYTHONPATH=str(package_parent), PYTHONDONTWRITEBYTECODE="1")
    environment.setdefault("DRTP_HYPOTHESIS_PROFILE", "mutants")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-rfE", "--no-header", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, *targets],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_PER_RUN,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no end within {SECONDS_PER_RUN:.0f} s"
    if done.returncode == 0:
        return None
    found = FAILED.search(done.stdout)
    if found is None:
        raise RuntimeError(f"pytest ended with {done.returncode} and no failed test:\n{done.stdout}{done.stderr}")
    return found[1].removeprefix("packages/drtp-protocol/tests/")


def judge(mutant: Mutant) -> Verdict:
    """Run the tests against one mutant: the likeliest file first, then all."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="drtp-mutant-") as place:
        copy = Path(place) / "drtp_protocol"
        shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / mutant.file).write_text(mutated_text(mutant))
        tests = PACKAGE / "tests"
        killer = run_tests(Path(place), [str(tests / mutant.first)]) or run_tests(Path(place), [str(tests)])
    return Verdict(mutant, killer, time.monotonic() - started)


def check_baseline() -> None:
    """Refuse to judge mutants by a suite that is red without them, or that does not see the copy."""
    with tempfile.TemporaryDirectory(prefix="drtp-mutant-") as place:
        copy = Path(place) / "drtp_protocol"
        shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        code = "import drtp_protocol; print(drtp_protocol.__file__)"
        seen = subprocess.run(
            [sys.executable, "-c", code],
            env=dict(os.environ, PYTHONPATH=place),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        if not seen.startswith(place):
            raise SystemExit(f"the tests would import {seen}, not the mutated copy")
        failed = run_tests(Path(place), [str(PACKAGE / "tests")])
    if failed:
        raise SystemExit(f"the suite is red without any mutant: {failed}")


def main() -> int:
    """Run the tool; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="names containing this text")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--skip-baseline", action="store_true", help="do not first run the suite unchanged")
    options = parser.parse_args()
    mutants = [mutant for mutant in load() if options.only in mutant.name]
    for mutant in mutants:
        mutated_text(mutant)
    if not options.skip_baseline:
        check_baseline()
    survivors = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for verdict in pool.map(judge, mutants):
            survivors += verdict.killer is None
            fate = f"killed by {verdict.killer}" if verdict.killer else "SURVIVED"
            print(f"{verdict.seconds:6.1f} s  {verdict.mutant.name}: {fate}", flush=True)
    print(f"{len(mutants) - survivors} of {len(mutants)} mutants killed")
    return 1 if survivors or not mutants else 0


if __name__ == "__main__":
    sys.exit(main())
