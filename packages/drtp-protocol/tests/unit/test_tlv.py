"""TLV lists."""

import pytest

from drtp_protocol import ErrorCode, InvalidMetadata, RemoteProtocolError
from drtp_protocol.tlv import decode, encode, pack_list, split_known, unpack_list


def test_a_list_reads_back_in_order():
    items = [(0, b""), (1, b"one"), (0xFF, bytes(65_535))]
    assert list(decode(encode(items)).items()) == items


@pytest.mark.parametrize("items", [[(2, b""), (1, b"")], [(1, b""), (1, b"")], [(256, b"")], [(-1, b"")]])
def test_types_that_do_not_ascend_are_not_written(items):
    with pytest.raises(InvalidMetadata, match="ascend"):
        encode(items)


def test_a_value_that_is_too_long_is_not_written():
    with pytest.raises(InvalidMetadata, match="65536 bytes"):
        encode([(1, bytes(65_536))])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x01", "inside an entry's head"),
        (b"\x01\x00", "inside an entry's head"),
        (b"\x01\x00\x02x", "2 bytes declared, 1 left"),
        (b"\x01\x00\x00\x01\x00\x00", "must ascend"),
        (b"\x02\x00\x00\x01\x00\x00", "must ascend"),
    ],
)
def test_a_malformed_list_is_refused(data, message):
    with pytest.raises(RemoteProtocolError, match=message):
        decode(data)


def test_unknown_entries_are_kept_unless_they_must_be_understood():
    assert split_known({1: b"a", 0x7F: b"b"}, {1}) == ((0x7F, b"b"),)
    with pytest.raises(RemoteProtocolError, match="0x80") as caught:
        split_known({1: b"a", 0x80: b"b"}, {1})
    assert caught.value.code is ErrorCode.UNSUPPORTED


def test_lists_of_byte_strings_read_back():
    items = (b"", b"h2", bytes(255))
    assert unpack_list(pack_list(items)) == items


def test_list_items_are_bounded_and_whole():
    with pytest.raises(InvalidMetadata, match="256"):
        pack_list([bytes(256)])
    with pytest.raises(RemoteProtocolError, match="item at byte 2"):
        unpack_list(b"\x01a\x02b")
