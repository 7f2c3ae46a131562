"""The codec and the independent reader read the same bytes the same way, or both refuse them."""

import ast
from pathlib import Path

import attrs
import pytest
from hypothesis import given

from drtp_protocol import frames, strategies
from drtp_protocol.errors import ErrorCode, RemoteProtocolError
from drtp_protocol.limits import Limits
from drtp_protocol.metadata import Address, TraceParent

NAMES = {"Data": "data", "Datagram": "data", "Ping": "data", "Extension": "data"}
FLAGS = {"Data": "fin", "Ping": "ack", "Extension": "flag"}


def as_plain(value):
    """Put a field's value into the reader's form."""
    match value:
        case bytes():
            return value.hex()
        case Limits():
            return list(attrs.astuple(value))
        case Address():
            return [value.family, value.packed.hex(), value.port]
        case TraceParent():
            return value.encode().hex()
        case tuple():
            return [list(map(as_plain, item)) if isinstance(item, tuple) else as_plain(item) for item in value]
        case _ if attrs.has(type(value)):
            return [as_plain(item) for item in attrs.astuple(value)]
        case _:
            return value


def as_dictionary(frame):
    """Put the codec's frame into the reader's form."""
    name = type(frame).__name__
    fields = attrs.asdict(frame, recurse=False)
    fields |= attrs.asdict(fields.pop("metadata"), recurse=False) if "metadata" in fields else {}
    plain = {"frame": name.upper(), "stream": fields.pop("stream_id", 0), "flag": int(fields.pop(FLAGS.get(name), 0))}
    fields.pop("kind", None)
    if name in NAMES:
        fields["payload"] = fields.pop("data")
    if name == "Reset":
        fields.setdefault("reason", "")
        return plain | fields
    return plain | {key: as_plain(value) for key, value in fields.items() if value is not None}


def agree(frame, read):
    """Compare, after leaving out the optional fields that one writes as empty and the other as absent."""
    ours, theirs = as_dictionary(frame), dict(read)
    for key in set(ours) - set(theirs):
        assert ours[key] in ("", [], 0), (key, ours[key])
        del ours[key]
    assert ours == theirs


def test_the_reader_shares_nothing_with_the_codec(independent):
    tree = ast.parse(Path(independent.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"itertools", "struct"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]


def test_the_vectors_are_what_their_builder_writes(build_vectors):
    pytest.importorskip("cryptography")
    stored = {
        path.relative_to(build_vectors.VECTORS).as_posix(): path.read_text(encoding="utf-8")
        for path in build_vectors.VECTORS.rglob("*.hex")
    }
    assert stored == build_vectors.build()


def test_both_read_a_vector_as_it_is_described(valid_vector, independent):
    for arrow, raw, described in valid_vector.lines:
        if described is None:
            assert raw == independent.PREFACE
            continue
        if "refused" in described:
            with pytest.raises(RemoteProtocolError) as caught:
                frames.parse(raw, max_frame=1024)
            assert caught.value.code is ErrorCode[described["refused"]]
            continue
        assert independent.read_frame(raw, "agent" if arrow == ">" else "edge", 1024) == (described, len(raw))
        frame = frames.parse(raw, max_frame=1024)
        agree(frame, described)
        assert frames.serialize(frame) == raw


def test_every_frame_type_is_in_a_vector(every_valid_vector):
    described = [line[2] for vector in every_valid_vector for line in vector.lines if line[2]]
    assert {read["frame"] for read in described} == {kind.name for kind in frames.FrameType} | {"EXTENSION"}


def sender_of(raw):
    return "edge" if raw[:1] in (b"\x02", b"\x04") else "agent"


@given(drawn=strategies.frames())
def test_the_reader_understands_what_the_codec_writes(independent, drawn):
    raw = frames.serialize(drawn)
    read, used = independent.read_frame(raw, sender_of(raw), 262_144)
    assert used == len(raw)
    agree(drawn, read)


@given(raw=strategies.raw_frames() | strategies.frames().map(frames.serialize).flatmap(strategies.mutated))
def test_both_refuse_the_same_bytes(independent, raw):
    try:
        frame = frames.parse(raw, max_frame=2_048)
    except RemoteProtocolError:
        frame = None
    try:
        read, used = independent.read_frame(raw, sender_of(raw), 2_048)
    except independent.MalformedError:
        read, used = None, len(raw)
    if read is None or used != len(raw):
        assert frame is None
    else:
        assert frame is not None
        agree(frame, read)
        assert frames.serialize(frame) == raw


def test_both_refuse_a_malformed_frame_with_the_same_code(malformed_vector, independent):
    arrow, raw, _ = malformed_vector.lines[-1]
    if raw.startswith(b"GET"):
        return  # no frame: the preface is the connection's matter
    try:
        independent.read_frame(raw, "agent" if arrow == ">" else "edge", 1024)
    except independent.MalformedError as error:
        expected = error.code
    else:
        return  # well-formed, and wrong only in its place
    assert expected == malformed_vector.notes["error"]
    if malformed_vector.name == "malformed/hello-from-edge.hex":
        return  # the codec does not know who sends; the connection does
    with pytest.raises(RemoteProtocolError) as caught:
        frames.parse(raw, max_frame=1024)
    assert caught.value.code is ErrorCode[expected]
