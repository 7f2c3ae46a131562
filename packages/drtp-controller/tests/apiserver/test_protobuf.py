from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drtp_api.kube import BadRequest, KubeError, UnsupportedMediaType
from drtp_controller.apiserver.protobuf import decode_body


def varint(number):
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def text(field, value):
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(data)) + data


def number(field, value):
    return varint(field << 3) + varint(value)


def entry(key, value):
    return text(1, key) + text(2, value)


def envelope(kind, message, api_version="v1"):
    return b"k8s\x00" + text(1, text(1, api_version) + text(2, kind)) + text(2, message)


def test_a_service_is_read_with_its_ports():
    port = text(1, "web") + text(2, "TCP") + number(3, 80) + text(4, number(1, 0) + number(2, 8080))
    named = text(1, "alt") + number(3, 81) + text(4, number(1, 1) + text(3, "http"))
    message = text(1, text(1, "s") + text(11, entry("app", "x"))) + text(2, text(1, port) + text(1, named))
    assert decode_body(envelope("Service", message)) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "labels": {"app": "x"}},
        "spec": {
            "ports": [
                {"name": "web", "protocol": "TCP", "port": 80, "targetPort": 8080},
                {"name": "alt", "port": 81, "targetPort": "http"},
            ]
        },
    }


def test_a_secret_keeps_its_bytes():
    message = text(1, text(1, "s")) + text(2, entry("k", b"\x00\xff")) + text(3, "Opaque")
    assert decode_body(envelope("Secret", message))["data"] == {"k": "AP8="}


def test_delete_options_are_read():
    message = text(2, text(1, "uid-1")) + text(4, "Foreground") + number(1, (1 << 64) - 1) + text(5, "All")
    assert decode_body(envelope("DeleteOptions", message)) == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": -1,
        "preconditions": {"uid": "uid-1"},
        "propagationPolicy": "Foreground",
        "dryRun": ["All"],
    }


def test_times_are_written_as_the_api_writes_them():
    message = text(6, number(1, 1_700_000_000))
    assert decode_body(envelope("Event", message))["firstTimestamp"] == "2023-11-14T22:13:20Z"


def test_fields_that_are_not_known_are_skipped():
    extra = number(99, 5) + varint(98 << 3 | 5) + b"abcd" + varint(97 << 3 | 1) + b"abcdefgh"
    assert decode_body(envelope("ConfigMap", text(1, text(1, "c") + extra) + extra))["metadata"] == {"name": "c"}


def test_another_kind_is_refused_by_name():
    with pytest.raises(UnsupportedMediaType, match="Deployment"):
        decode_body(envelope("Deployment", b""))


@pytest.mark.parametrize("body", [b"", b"{}", b"k8s\x00", b"k8s\x00\x0a\x05ab", b"k8s\x00" + b"\xff" * 12])
def test_a_body_that_is_no_message_is_refused(body):
    with pytest.raises(BadRequest):
        decode_body(body)


SAMPLE = envelope("Service", text(1, text(1, "s")) + text(2, text(1, number(3, 80) + text(4, number(2, 1)))))


@given(st.integers(0, len(SAMPLE)), st.binary(max_size=3))
def test_a_damaged_body_never_fails_in_another_way(at, noise):
    try:
        decode_body(SAMPLE[:at] + noise + SAMPLE[at + len(noise) :])
    except KubeError:
        return


@given(st.binary(max_size=60))
def test_noise_never_fails_in_another_way(noise):
    try:
        decode_body(b"k8s\x00" + noise)
    except KubeError:
        return
