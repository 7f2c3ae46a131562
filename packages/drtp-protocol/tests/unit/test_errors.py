"""Codes and exceptions."""

import pytest

from drtp_protocol import (
    ErrorCode,
    InvalidMetadata,
    LocalProtocolError,
    NoSuchStream,
    ProtocolError,
    RemoteProtocolError,
    SendBufferFull,
    StreamLimitReached,
    WrongState,
)


def test_the_numbers_of_the_wire_are_dense_and_fixed():
    assert [int(code) for code in ErrorCode] == list(range(20))
    assert ErrorCode.OVER_CAPACITY == 19


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_advises_in_one_line(code):
    assert code.advice.endswith(".")
    assert "\n" not in code.advice
    assert len(code.advice) <= 100


def test_no_two_codes_advise_the_same():
    assert len({code.advice for code in ErrorCode}) == len(ErrorCode)


def test_an_unknown_number_reads_as_internal():
    assert ErrorCode.from_wire(7) is ErrorCode.DIAL_FAILED
    assert ErrorCode.from_wire(20) is ErrorCode.INTERNAL
    assert ErrorCode.from_wire(2**32 - 1) is ErrorCode.INTERNAL


@pytest.mark.parametrize("kind", [SendBufferFull, NoSuchStream, StreamLimitReached, WrongState, InvalidMetadata])
def test_misuse_is_a_local_error(kind):
    error = kind("text", ErrorCode.REFUSED)
    assert isinstance(error, LocalProtocolError)
    assert (str(error), error.code) == ("text", ErrorCode.REFUSED)


def test_the_peers_faults_are_not_local():
    assert not issubclass(RemoteProtocolError, LocalProtocolError)
    assert ProtocolError("x").code is ErrorCode.PROTOCOL_ERROR
