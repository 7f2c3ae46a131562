"""Completion as datumctl's cobra asks for it: one candidate a line with a description, then a directive.

Rules: answers from this machine only and within a few milliseconds; a fault means no candidates, never a message.
What must not live here: parsing of options for real.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

COMMANDS: Final = {
    "create": "create a service and its one-time secret",
    "publish": "open a service to the world",
    "unpublish": "close a service to the world",
    "rotate": "give a service a new secret",
    "revoke": "revoke the secrets of a service",
    "list": "list the services",
    "status": "show what this machine serves",
    "stop": "stop an agent of this machine",
    "config": "show the configuration and where it comes from",
    "completion": "print a completion script for a shell",
    "version": "print the version",
}
"""Every subcommand, with its summary."""

OPTIONS: Final = {
    "--public": "reachable at once",
    "--name": "stable identity: same name, same address",
    "--port": "requested public port",
    "--hostname": "requested public host name",
    "--allow": "network that may visit",
    "--protocol": "tcp or http",
    "--service": "serve an existing service",
    "--secret-file": "file with the service's secret, - for standard input",
    "--detail": "NAME/TYPE/HOST[/IP]/PORT",
    "--proxy-protocol": "tell the local service its visitors: v1 or v2",
    "--transport": "how to reach the tunnel servers",
    "--servers": "how many tunnel servers",
    "--output": "table, json or yaml",
    "--timeout": "seconds until ready",
    "--help": "show the help",
}

_NAMING: Final = frozenset({"stop", "status", "publish", "unpublish", "rotate", "revoke"})

NO_FILES: Final = 4
"""cobra's ShellCompDirectiveNoFileComp."""
DEFAULT: Final = 0


def complete(words: list[str]) -> str:
    """Return the answer to ``__complete WORDS...``; the last word is the one being completed."""
    current = words[-1] if words else ""
    before = words[:-1]
    found, directive = _candidates(current, before)
    lines = [f"{word}\t{text}" if text else word for word, text in found.items() if word.startswith(current)]
    return "".join(f"{line}\n" for line in [*lines, f":{directive}"])


def _candidates(current: str, before: list[str]) -> tuple[dict[str, str], int]:
    previous = before[-1] if before else ""
    if previous in {"--secret-file", "--token-file"}:
        return {}, DEFAULT
    if previous == "--protocol":
        return {"tcp": "", "http": ""}, NO_FILES
    if previous == "--proxy-protocol":
        return {"v1": "", "v2": ""}, NO_FILES
    if previous in {"-o", "--output"}:
        return {"table": "", "json": "", "yaml": ""}, NO_FILES
    if previous in {"--name", "--service"} or (before[:1] and before[0] in _NAMING):
        return dict.fromkeys(_names(), "a name of this machine"), NO_FILES
    if before[:1] == ["completion"]:
        return {"bash": "", "zsh": "", "fish": ""}, NO_FILES
    if current.startswith("-"):
        return OPTIONS, NO_FILES
    return (COMMANDS if not before else {}), NO_FILES


def _names() -> list[str]:
    """Return the names that agents of this machine have used."""
    state = os.environ.get("DRTP_STATE_DIR")
    if state:
        root = Path(state) / "serve"
    else:
        root = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "drtp" / "serve"
    try:
        return sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    except OSError:
        return []
