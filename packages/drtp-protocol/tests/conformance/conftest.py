"""The independent reader, the vectors' builder and the vectors themselves, for the tests of this directory."""

import importlib.util
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
VECTORS = HERE.parent / "vectors"


@dataclass
class Vector:
    """One file: its notes, and its lines as (arrow, bytes, description or None)."""

    name: str
    notes: dict[str, str] = field(default_factory=dict)
    lines: list[list] = field(default_factory=list)


def load_module(name):
    full = f"drtp_conformance_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, HERE / f"{name}.py")
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


def read_vector(path):
    vector = Vector(str(path.relative_to(VECTORS)))
    for line in path.read_text(encoding="utf-8").splitlines():
        mark, rest = line[0], line[2:]
        if mark == "#":
            key, _, value = rest.partition(": ")
            vector.notes[key] = value
        elif mark == "=":
            vector.lines[-1][2] = json.loads(rest)
        else:
            vector.lines.append([mark, bytes.fromhex(rest), None])
    return vector


def pytest_generate_tests(metafunc):
    for name, place in (("valid_vector", "*.hex"), ("malformed_vector", "malformed/*.hex")):
        if name in metafunc.fixturenames:
            found = [read_vector(path) for path in sorted(VECTORS.glob(place))]
            metafunc.parametrize(name, found, ids=[vector.name for vector in found])


@pytest.fixture(scope="session")
def every_valid_vector():
    return [read_vector(path) for path in sorted(VECTORS.glob("*.hex"))]


@pytest.fixture(scope="session")
def independent():
    return load_module("independent")


@pytest.fixture(scope="session")
def build_vectors():
    return load_module("build_vectors")
