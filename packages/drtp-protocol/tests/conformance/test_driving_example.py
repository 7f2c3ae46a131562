"""The example of docs/protocol/driving.md works as printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from drtp_protocol import Limits, OpenMetadata, Role
from drtp_protocol.testing import SERVICE, Pair

PAGE = Path(__file__).resolve().parents[4] / "docs" / "protocol" / "driving.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the documents are not part of an installed package")


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_complete_example_prints_what_the_page_says(tmp_path):
    script = tmp_path / "example.py"
    script.write_text(blocks()[0], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("HELLO FROM A VISITOR\n", "")


def test_the_pull_loop_moves_a_stream():
    pair = Pair(limits=Limits(base_window=4_096, max_frame=1_024))
    pair.establish()
    stream_id = pair.edge.open_stream(OpenMetadata(service=SERVICE), now=0.0)
    waiting = [bytes(1_000), bytes(500), None]
    sent = []

    def read_into(_stream_id, buffer, offset, allowance):
        chunk = waiting.pop(0)
        if chunk is None:
            return None
        assert len(chunk) <= allowance
        buffer[offset : offset + len(chunk)] = chunk
        return len(chunk)

    names = {
        "connection": pair.edge,
        "stream_id": stream_id,
        "now": 0.0,
        "buffer": bytearray(8 + 65_536),
        "read_into": read_into,
        "send": lambda data: sent.append(bytes(data)),
    }
    exec(blocks()[1], names)
    assert waiting == []
    pair.wire[Role.EDGE] += b"".join(sent)
    pair.settle()
    assert pair.agent.stream_info(stream_id).received == 1_500
