"""Write the pages of docs/protocol that come from the code: the state tables and the error table.

python tools/gen_protocol_docs.py            # write
python tools/gen_protocol_docs.py --check    # exit 1 and name the pages that are out of date
"""

from __future__ import annotations

import argparse
import enum
import sys
from pathlib import Path
from typing import TypeVar

from drtp_protocol.errors import DialDetail, ErrorCode
from drtp_protocol.states import CONNECTION_TRANSITIONS, STREAM_TRANSITIONS, ConnectionState, StreamState

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "protocol"

S = TypeVar("S", bound=enum.Enum)
M = TypeVar("M", bound=enum.Enum)

NOTE = "<!-- Written by tools/gen_protocol_docs.py from {source}; change that and run it again. -->\n"

USED_FOR = {
    ErrorCode.NO_ERROR: "both",
    ErrorCode.PROTOCOL_ERROR: "both",
    ErrorCode.FLOW_CONTROL: "connection",
    ErrorCode.FRAME_SIZE: "connection",
    ErrorCode.REFUSED: "stream",
    ErrorCode.CANCEL: "stream",
    ErrorCode.INTERNAL: "both",
    ErrorCode.DIAL_FAILED: "stream",
    ErrorCode.DENIED: "stream",
    ErrorCode.AUTH_FAILED: "connection",
    ErrorCode.AUTH_EXPIRED: "connection",
    ErrorCode.REVOKED: "connection",
    ErrorCode.SUPERSEDED: "connection",
    ErrorCode.ENHANCE_YOUR_CALM: "connection",
    ErrorCode.IDLE_TIMEOUT: "both",
    ErrorCode.STALLED: "stream",
    ErrorCode.UNSUPPORTED: "both",
    ErrorCode.VERSION: "connection",
    ErrorCode.DRAINING: "connection",
    ErrorCode.OVER_CAPACITY: "both",
}
"""Where a code is expected: RESET of a stream, GOAWAY of a connection, or both."""


def diagram(table: dict[tuple[S, M], S], first: S) -> str:
    """Draw a table as a Mermaid state diagram; what stays in its state is left to the table below it."""
    arrows: dict[tuple[S, S], list[str]] = {}
    for (state, moved), to in table.items():
        if state is not to:
            arrows.setdefault((state, to), []).append(str(moved.value))
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first.name}"]
    for (state, to), moves in arrows.items():
        label = ", ".join(moves)
        lines.append(f"    {state.name} --> {to.name}: {label}")
    return "\n".join([*lines, "    CLOSED --> [*]", "```"])


def grid(table: dict[tuple[S, M], S], states: type[S]) -> str:
    """Write every legal cell, a row for each state."""
    rows = ["| in state | on | goes to |", "|---|---|---|"]
    for state in states:
        stays = [str(moved.value) for (at, moved), to in table.items() if at is state and to is state]
        for (at, moved), to in table.items():
            if at is state and to is not state:
                rows.append(f"| {state.name} | {moved.value} | {to.name} |")
        if stays:
            rows.append(f"| {state.name} | {', '.join(stays)} | (stays) |")
    return "\n".join(rows)


def states_page() -> str:
    """Return docs/protocol/states.md."""
    return f"""{NOTE.format(source="drtp_protocol/states.py")}
# State machines

Both ends obey the same two tables; "send" and "receive" are seen from the end whose state it is. A cell that is not
listed is an error: of the peer (the connection ends with PROTOCOL_ERROR) if it was received, of the caller
(`LocalProtocolError`, nothing changes) if it was to be sent. This page is part of the [specification](spec.md).

## Connection

{diagram(CONNECTION_TRANSITIONS, ConnectionState.PREFACE)}

{grid(CONNECTION_TRANSITIONS, ConnectionState)}

## Stream and flow

DATA stands for DATAGRAM too; FIN is DATA with the flag and does not exist on flows.

{diagram(STREAM_TRANSITIONS, StreamState.IDLE)}

{grid(STREAM_TRANSITIONS, StreamState)}
"""


def errors_page() -> str:
    """Return docs/protocol/errors.md."""
    codes = "\n".join(f"| {code.value} | {code.name} | {USED_FOR[code]} | {code.advice} |" for code in ErrorCode)
    details = "\n".join(f"| {int(detail)} | {detail.name} |" for detail in DialDetail)
    return f"""{NOTE.format(source="drtp_protocol/errors.py")}
# Error codes

The number is what RESET and GOAWAY carry. "Ends" says what usually ends with it: one stream, or the connection. The
last column is what our programs tell the person who meets it. A number that is not listed reads as INTERNAL. This page
is part of the [specification](spec.md).

| code | name | ends | what to do about it |
|---|---|---|---|
{codes}

## Details of DIAL_FAILED

| detail | what happened when the agent dialled the local service |
|---|---|
{details}
"""


def pages() -> dict[Path, str]:
    """Return every generated page."""
    return {PAGES / "states.md": states_page(), PAGES / "errors.md": errors_page()}


def stale(written: dict[Path, str]) -> list[Path]:
    """Return the pages whose file differs from what the code says."""
    return [path for path, text in written.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main() -> int:
    """Run the tool; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of date")
    options = parser.parse_args()
    written = pages()
    out_of_date = stale(written)
    if options.check:
        for path in out_of_date:
            print(f"{path.relative_to(ROOT)} is out of date: run tools/gen_protocol_docs.py")
        return 1 if out_of_date else 0
    for path in out_of_date:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(written[path], encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
