"""Names for services whose user gave none: made from the target, kept per target, so that a re-run keeps its address.

Rules:
- The same target gets the same name on the same machine; another machine gets another suffix, so that two people
  who serve port 8080 do not meet.
- A name holds at most 40 characters (see ``drtp_api.registration``), so that host names made of it stay legal.

What must not live here: locks and keys of a name (``state.py``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from drtp_agent.state import locked
from drtp_agent.target import Target
from drtp_api.errors import DrtpError
from drtp_api.statedir import ensure_directory, write_private

__all__ = ["NAME_MAX", "check_name", "name_for", "normalise"]

NAME_MAX: Final = 40
SUFFIX_LENGTH: Final = 4
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_ALPHABET = "bcdfghjkmnpqrstvwxz23456789"
"""Without vowels and look-alikes: a suffix spells no word and survives being read aloud."""
_FILE = "names.json"


def check_name(name: str) -> str:
    """Return the name.

    Raises:
        DrtpError: DRTP-1003.
    """
    if len(name) > NAME_MAX or not _NAME.fullmatch(name):
        raise DrtpError("DRTP-1003", f"{name!r} is not a valid name")
    return name


def normalise(text: str) -> str:
    """Return a valid name made of any text (``PostgreSQL prod`` becomes ``postgresql-prod``)."""
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:NAME_MAX].rstrip("-")
    return cleaned if cleaned[:1].isalpha() else f"svc-{cleaned}"[:NAME_MAX].rstrip("-")


def name_for(target: Target, directory: Path, random_below: Callable[[int], int]) -> str:
    """Return the name of a target, a new one at its first use.

    Args:
        target: What is served.
        directory: The agent's state directory (``<state>/serve``).
        random_below: ``secrets.randbelow``, or a known source in tests.

    Raises:
        DrtpError: DRTP-1006 the directory cannot be written; DRTP-1011 the file of names is damaged.
    """
    ensure_directory(directory)
    with locked(directory / "names.lock"):
        path = directory / _FILE
        names = _read(path)
        key = str(target)
        if key not in names:
            suffix = "".join(_ALPHABET[random_below(len(_ALPHABET))] for _ in range(SUFFIX_LENGTH))
            names[key] = f"{target.label[: NAME_MAX - SUFFIX_LENGTH - 1].rstrip('-')}-{suffix}"
            write_private(path, json.dumps(names, indent=1, sort_keys=True).encode())
        return names[key]


def _read(path: Path) -> dict[str, str]:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DrtpError("DRTP-1011", f"cannot read {path}: {error}") from error
    if not isinstance(data, dict) or not all(isinstance(v, str) and _NAME.fullmatch(v) for v in data.values()):
        raise DrtpError("DRTP-1011", f"{path} does not hold names by target")
    return data
