"""Every task of the project. `nox -l` explains each; `./dev NAME` runs one after setting everything up.

Rules: sessions share the one environment `.venv`, so that what is tested is what is developed; only `isolated`
makes environments of its own, to prove that each package declares what it needs.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["test", "lint", "types", "imports"]

ROOT = Path(__file__).parent
BIN = ROOT / ".venv" / "bin"
STAMP = ROOT / ".venv" / ".drtp-setup"
MEMBERS = sorted(p.parent for folder in ("packages", "plugins") for p in (ROOT / folder).glob("*/pyproject.toml"))
SOURCES = [str((member / "src").relative_to(ROOT)) for member in MEMBERS]


def _digest() -> str:
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt", *(m / "pyproject.toml" for m in MEMBERS)]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


def _wanted() -> list[str]:
    """Return what an environment for developing installs: every member, editable, and the tools."""
    dev = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    return [*(arg for m in MEMBERS for arg in ("-e", f"{m}[testing]" if m.name == "drtp-protocol" else str(m))), *dev]


def _install(session: nox.Session) -> None:
    """Install what is wanted; nothing to do when no pyproject changed."""
    if STAMP.exists() and STAMP.read_text() == _digest():
        return
    _run(
        session, "uv", "pip", "install", "--quiet", "--python", str(BIN / "python"), "-c", "constraints.txt", *_wanted()
    )
    STAMP.write_text(_digest())


def _run(session: nox.Session, tool: str, *args: str, **env: str) -> None:
    # Many processes are started: without cached bytecode each would compile what it imports.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    session.run(str(BIN / tool), *args, external=True, env={**kept, **env}, include_outer_env=False)


@nox.session
def setup(session: nox.Session) -> None:
    """Set up .venv with every package, plugin and tool."""
    _install(session)
    session.log("ready: .venv/bin/datumctl-serve, .venv/bin/drtp, .venv/bin/drtp-edge")


@nox.session
def demo(session: nox.Session) -> None:
    """A whole cloud on this machine, a web site in it, and its public address; --check proves it and ends."""
    _install(session)
    _run(session, "python", "tools/demo.py", *session.posargs)


@nox.session
def test(session: nox.Session) -> None:
    """The whole test suite, with short versions of the long sessions."""
    _install(session)
    _run(session, "python", "-m", "pytest", "-q", *session.posargs)


@nox.session
def unit(session: nox.Session) -> None:
    """The tests that start no processes."""
    _install(session)
    _run(session, "python", "-m", "pytest", "-q", "-m", "not e2e and not real", "packages", "plugins", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff's rules and format, and generated files in sync."""
    _install(session)
    _run(session, "ruff", "check", ".")
    _run(session, "ruff", "format", "--check", ".")
    for tool in sorted((ROOT / "tools").glob("gen_*.py")):
        _run(session, "python", str(tool), "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, over every package and plugin."""
    _install(session)
    _run(session, "mypy", *SOURCES)


@nox.session
def imports(session: nox.Session) -> None:
    """The arrows between the rooms."""
    _install(session)
    _run(session, "lint-imports")


@nox.session
def coverage(session: nox.Session) -> None:
    """Branch coverage of the protocol core; the target is 100 %."""
    _install(session)
    _run(session, "coverage", "run", "--source", "drtp_protocol", "-m", "pytest", "-q", "packages/drtp-protocol")
    _run(session, "coverage", "report", "--show-missing", "--omit", "*/strategies.py", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Inject realistic bugs into the protocol core; the tests must kill each."""
    _install(session)
    _run(session, "python", "tools/mutants.py", *session.posargs)


@nox.session
def properties(session: nox.Session) -> None:
    """The property tests, longer: profile ci, or deep with `-- deep`."""
    _install(session)
    profile = session.posargs[0] if session.posargs else "ci"
    _run(
        session, "python", "-m", "pytest", "-q", "packages", "plugins", "tests", "-k", "propert or machine",
        "--timeout", "7200", DRTP_HYPOTHESIS_PROFILE=profile,
    )  # fmt: skip


@nox.session
def bench(session: nox.Session) -> None:
    """The product beside direct, haproxy and any --peer NAME=PATH, in one run; prints ratios."""
    _install(session)
    _run(session, "python", "bench/run.py", *session.posargs)


@nox.session
def scale(session: nox.Session) -> None:
    """The control plane at its promised size, each figure beside its target; --quick, --only, --check."""
    _install(session)
    _run(session, "python", "tools/scale.py", *session.posargs)


@nox.session
def figures(session: nox.Session) -> None:
    """Lines, files and coverage per package; start-up times of the commands."""
    _install(session)
    _run(session, "python", "tools/figures.py", *session.posargs)


@nox.session
def lock(session: nox.Session) -> None:
    """Write constraints.txt anew from what resolves today."""
    _run(session, "uv", "pip", "install", "--quiet", "--upgrade", "--python", str(BIN / "python"), *_wanted())
    freeze = session.run(
        str(BIN / "uv"),
        "pip",
        "freeze",
        "--exclude-editable",
        "--python",
        str(BIN / "python"),
        external=True,
        silent=True,
    )
    lines = [
        line for line in str(freeze).splitlines() if "==" in line and not line.startswith(("pip==", "setuptools=="))
    ]
    (ROOT / "constraints.txt").write_text("\n".join(lines) + "\n")


@nox.session(venv_backend="uv|virtualenv")
@nox.parametrize("member", [m.name for m in MEMBERS])
def isolated(session: nox.Session, member: str) -> None:
    """One member in an environment of its own: it declares every dependency it imports."""
    path = next(m for m in MEMBERS if m.name == member)
    session.install("--constraint", "constraints.txt", *_closure(path))
    package = next((path / "src").iterdir()).name
    session.run("python", "-c", f"import {package}")


def _closure(path: Path) -> list[str]:
    """Return the editable arguments of a member and of the siblings it declares, to the end."""
    by_name = {m.name: m for m in MEMBERS}
    todo, seen = [path], {}
    while todo:
        member = todo.pop()
        if member.name in seen:
            continue
        seen[member.name] = member
        declared = tomllib.loads((member / "pyproject.toml").read_text())["project"]["dependencies"]
        todo += [by_name[d.split("~")[0].strip()] for d in declared if d.split("~")[0].strip() in by_name]
    return [arg for m in seen.values() for arg in ("-e", str(m))]
