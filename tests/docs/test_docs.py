"""The documents keep their promises: links lead somewhere, and what is described exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from drtp_api.hooks import Hooks

ROOT = Path(__file__).resolve().parents[2]


def tracked(pattern: str) -> list[Path]:
    """Return the files of the project that match, without environments and caches."""
    hidden = {".venv", ".nox", ".git", "node_modules", "dist", "build"}
    return [p for p in ROOT.rglob(pattern) if not hidden & set(p.relative_to(ROOT).parts)]


def test_every_relative_link_in_the_documents_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)} -> {target}"
        for page in tracked("*.md")
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


def test_every_decision_is_listed() -> None:
    listed = (ROOT / "docs/decisions/README.md").read_text()
    assert all(page.name in listed for page in (ROOT / "docs/decisions").glob("0*.md"))


@pytest.mark.parametrize("hook", [name for name in vars(Hooks) if name.startswith("drtp_")])
def test_every_hook_is_documented(hook: str) -> None:
    assert f"`{hook}`" in (ROOT / "docs/plugins/hooks.md").read_text()


def test_every_session_that_contributing_names_exists() -> None:
    sessions = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"\./dev (\w+)", (ROOT / "CONTRIBUTING.md").read_text() + (ROOT / "README.md").read_text()))
    assert named <= sessions | {"list"}


def test_no_file_names_a_path_of_a_machine_or_a_lock_file_with_hosts() -> None:
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "uv.lock" not in names
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[a-z0-9._-]+==[^\s;]+", line) for line in lines), "constraints.txt: name==version only"
