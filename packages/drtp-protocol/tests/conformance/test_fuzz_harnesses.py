"""The fuzz harnesses run: over their corpus, and over damaged pieces of it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drtp_protocol.strategies import mutated

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
NAMES = ["fuzz_connection", "fuzz_metadata", "fuzz_handshake", "fuzz_proxyproto"]


@pytest.fixture(scope="module")
def harnesses():
    sys.path.insert(0, str(FUZZ))
    loaded = {}
    for name in NAMES:
        spec = importlib.util.spec_from_file_location(name, FUZZ / f"{name}.py")
        loaded[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded[name])
    sys.path.remove(str(FUZZ))
    return loaded


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_passes(harnesses, name):
    corpus = harnesses[name].corpus()
    assert len(corpus) >= 10
    for data in corpus:
        harnesses[name].target(data)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_damaged_corpus_passes(harnesses, name, data):
    whole = data.draw(st.sampled_from(harnesses[name].corpus()))
    harnesses[name].target(data.draw(mutated(whole)))


def test_without_atheris_it_says_what_to_do():
    code = "import sys; sys.modules['atheris'] = None; sys.argv = ['x']; import harness; sys.exit(harness.run(len, []))"
    done = subprocess.run([sys.executable, "-c", code], cwd=FUZZ, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install atheris" in done.stderr


def test_a_found_input_can_be_replayed(tmp_path):
    found = tmp_path / "crash"
    found.write_bytes(b"PROXY TCP4 1.2.3.4")
    command = [sys.executable, str(FUZZ / "fuzz_proxyproto.py"), "--replay", str(found)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1 inputs, nothing found\n")
