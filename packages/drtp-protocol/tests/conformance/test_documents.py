"""The generated pages say what the code says, and the list of mutants still fits it."""

import subprocess
import sys
from pathlib import Path

import pytest

from drtp_protocol.errors import ErrorCode

ROOT = Path(__file__).resolve().parents[4]
TOOL = ROOT / "tools" / "gen_protocol_docs.py"

needs_checkout = pytest.mark.skipif(not TOOL.exists(), reason="the tools are not part of an installed package")


@needs_checkout
def test_generated_pages_are_up_to_date():
    done = subprocess.run([sys.executable, str(TOOL), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_checkout
def test_the_check_notices_a_stale_page(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import gen_protocol_docs

    page = tmp_path / "errors.md"
    page.write_text("old", encoding="utf-8")
    assert gen_protocol_docs.stale({page: "new"}) == [page]
    assert gen_protocol_docs.stale({tmp_path / "missing.md": "new"}) == [tmp_path / "missing.md"]
    assert gen_protocol_docs.stale({page: "old"}) == []


@needs_checkout
def test_every_code_is_documented_with_its_advice():
    text = (ROOT / "docs" / "protocol" / "errors.md").read_text(encoding="utf-8")
    for code in ErrorCode:
        assert f"| {code.value} | {code.name} |" in text
        assert code.advice in text


@needs_checkout
def test_every_mutant_still_applies_exactly_once(monkeypatch):
    """A list that drifted from the code proves nothing: whoever moves the code moves the mutant with it."""
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import mutants

    listed = mutants.load()
    assert len(listed) >= 25
    for mutant in listed:
        assert mutants.mutated_text(mutant)
        assert (ROOT / "packages" / "drtp-protocol" / "tests" / mutant.first).exists()


@needs_checkout
def test_a_mutant_that_no_longer_applies_is_an_error(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import mutants

    gone = mutants.Mutant("gone", "tlv.py", "no such text", "x", "properties/test_round_trip.py")
    with pytest.raises(ValueError, match="occurs 0 times"):
        mutants.mutated_text(gone)
