"""The error table: complete, and the only place that knows codes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from drtp_api.errors import CATALOGUE, DrtpError, ErrorInfo, ExitCode, _table, error_info

ROOT = Path(__file__).parents[3]
CODE = re.compile(r"DRTP-\d{4}")


def sources():
    for folder in ("packages", "plugins"):
        for path in sorted((ROOT / folder).glob("*/src/**/*.py")):
            if path.name != "errors.py" or path.parent.name != "drtp_api":
                yield path


def test_every_code_in_the_sources_is_in_the_table():
    unknown = {
        f"{path.relative_to(ROOT)}: {code}"
        for path in sources()
        for code in CODE.findall(path.read_text())
        if code not in CATALOGUE
    }
    assert unknown == set()


@pytest.mark.parametrize("info", CATALOGUE.values(), ids=lambda i: i.code)
def test_every_row_is_a_sentence_and_a_next_step(info):
    assert re.fullmatch(r"DRTP-[1-6]\d{3}", info.code)
    for text in (info.summary, info.hint):
        assert text[0].isupper() or text[0] == "`"
        assert text.endswith(".")
        assert "\n" not in text


def test_codes_stand_in_order_and_once():
    assert list(CATALOGUE) == sorted(CATALOGUE)
    with pytest.raises(ValueError, match="twice"):
        _table(ErrorInfo("DRTP-1", "a", "b"), ErrorInfo("DRTP-1", "c", "d"))


def test_an_error_carries_what_its_row_says_unless_it_knows_better():
    plain = DrtpError("DRTP-2011")
    assert str(plain) == "DRTP-2011 The public port is taken."
    assert (plain.exit_code, plain.retryable) == (ExitCode.CONFIGURATION, False)
    special = DrtpError("DRTP-2002", "no answer from https://x", hint="Look at x.")
    assert special.to_dict() == {
        "code": "DRTP-2002", "message": "no answer from https://x", "hint": "Look at x.", "retryable": True,
    }  # fmt: skip


def test_an_unknown_code_is_a_defect():
    with pytest.raises(KeyError):
        error_info("DRTP-0000")


def test_the_page_about_errors_is_generated_from_the_table():
    generator = ROOT / "tools" / "gen_error_docs.py"
    done = subprocess.run([sys.executable, generator, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
