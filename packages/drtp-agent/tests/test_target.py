"""What users type as TARGET, and what it means."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drtp_agent.target import Target, forbidden_reason, parse_detail, parse_target, target_of_application
from drtp_api.errors import DrtpError
from drtp_api.resources import Application, Protocol

HTTP, TCP, UDP = Protocol.HTTP, Protocol.TCP, Protocol.UDP


@pytest.mark.parametrize(
    ("text", "protocol", "expected"),
    [
        ("8080", None, "http://localhost:8080"),
        (":8080", None, "http://localhost:8080"),
        ("localhost:8080", None, "http://localhost:8080"),
        ("LOCALHOST:8080", None, "http://localhost:8080"),
        ("localhost:5432", TCP, "tcp://localhost:5432"),
        ("8080", TCP, "tcp://localhost:8080"),
        ("192.0.2.7:80", None, "http://192.0.2.7:80"),
        ("[::1]:8080", None, "http://[::1]:8080"),
        ("http://localhost:3000", None, "http://localhost:3000"),
        ("http://localhost:3000/", None, "http://localhost:3000"),
        ("http://localhost", None, "http://localhost:80"),
        ("http://[::1]", None, "http://[::1]:80"),
        ("http://:8080", None, "http://localhost:8080"),
        ("HTTP://localhost:1", None, "http://localhost:1"),
        ("tcp://db.corp.example:5432", None, "tcp://db.corp.example:5432"),
        ("tcp://[2001:db8::1]:22", None, "tcp://[2001:db8::1]:22"),
        ("http://bücher.example:80", None, "http://xn--bcher-kva.example:80"),
        ("unix:/run/app.sock", None, "unix:/run/app.sock"),
        ("unix:///run/app.sock", None, "unix:/run/app.sock"),
    ],
)
def test_a_target_is_understood(text, protocol, expected):
    assert str(parse_target(text, protocol)) == expected


@pytest.mark.parametrize("text", ["8080", "tcp://db:5432", "[::1]:80", "unix:/a.sock"])
def test_the_printed_form_of_a_target_reads_back_as_the_same(text):
    target = parse_target(text)
    assert parse_target(str(target)) == target


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "DRTP-1001"),
        ("localhost", "DRTP-1001"),
        ("localhost:", "DRTP-1001"),
        ("localhost:http", "DRTP-1001"),
        ("localhost:0", "DRTP-1001"),
        ("0", "DRTP-1001"),
        ("65536", "DRTP-1001"),
        ("-1", "DRTP-1001"),
        ("localhost:٨٠", "DRTP-1001"),
        ("::1:8080", "DRTP-1001"),
        ("[::1", "DRTP-1001"),
        ("[::1]8080", "DRTP-1001"),
        ("[localhost]:80", "DRTP-1001"),
        ("1.2.3:80", "DRTP-1001"),
        ("256.1.1.1:80", "DRTP-1001"),
        ("two words:80", "DRTP-1001"),
        ("tcp://localhost", "DRTP-1001"),
        ("ftp://localhost:21", "DRTP-1001"),
        ("http://user:pass@localhost:80", "DRTP-1001"),
        ("http://localhost:80/admin", "DRTP-1001"),
        ("http://localhost:80/?q", "DRTP-1001"),
        ("http://8080", "DRTP-1001"),
        ("unix:app.sock", "DRTP-1001"),
        ("unix:/" + "x" * 120, "DRTP-1001"),
        ("0.0.0.0:80", "DRTP-1002"),
        ("[::]:80", "DRTP-1002"),
        ("*:80", "DRTP-1002"),
        ("0:80", "DRTP-1002"),
        ("http://0.0.0.0:8080", "DRTP-1002"),
        ("https://localhost:8443", "DRTP-1012"),
        ("udp://localhost:53", "DRTP-1012"),
        ("169.254.169.254:80", "DRTP-4008"),
        ("[fe80::1]:80", "DRTP-4008"),
        ("[fd00:ec2::254]:80", "DRTP-4008"),
        ("[::ffff:169.254.1.1]:80", "DRTP-4008"),
        ("224.0.0.1:80", "DRTP-4008"),
    ],
)
def test_a_target_that_cannot_be_served_is_refused_with_its_code(text, code):
    with pytest.raises(DrtpError) as caught:
        parse_target(text)
    assert caught.value.code == code


@pytest.mark.parametrize(("text", "protocol"), [("http://localhost:80", TCP), ("tcp://localhost:80", HTTP)])
def test_a_scheme_and_a_protocol_that_contradict_each_other_are_refused(text, protocol):
    with pytest.raises(DrtpError, match="DRTP-1004"):
        parse_target(text, protocol)


@given(st.text(max_size=40))
def test_any_text_is_a_target_or_a_coded_refusal(text):
    with contextlib.suppress(DrtpError):
        target = parse_target(text)
        assert parse_target(str(target), target.protocol if target.path else None) == target


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("8080", "web-8080"),
        ("tcp://localhost:5432", "tcp-5432"),
        ("tcp://db.corp.example:5432", "db-5432"),
        ("tcp://192.0.2.1:22", "host-22"),
        ("tcp://9lives:22", "svc-9lives-22"),
        ("unix:/run/my app.sock", "my-app"),
    ],
)
def test_the_label_of_a_target_is_what_a_person_would_call_it(text, label):
    assert parse_target(text).label == label


def test_the_detail_of_the_seed_is_read_with_and_without_an_address():
    detail = parse_detail("PostgreSQL/TCP/sqlserver.corp.com/5432")
    assert (detail.name, str(detail.target), detail.ip) == ("PostgreSQL", "tcp://sqlserver.corp.com:5432", None)
    detail = parse_detail("PostgreSQL/tcp/sqlserver.corp.com/10.0.0.5/5432")
    assert str(detail.target) == "tcp://10.0.0.5:5432"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a/b", "DRTP-1001"),
        ("a/TCP//5432", "DRTP-1001"),
        ("a/SCTP/h/1", "DRTP-1001"),
        ("a/TCP/h/nope/1", "DRTP-1001"),
        ("a/UDP/h/53", "DRTP-1012"),
    ],
)
def test_a_faulty_detail_is_refused(text, code):
    with pytest.raises(DrtpError) as caught:
        parse_detail(text)
    assert caught.value.code == code


def test_a_definition_that_names_an_address_is_a_target():
    application = Application(protocol=TCP, hostname="db", ip="10.0.0.5", port=5432)
    assert target_of_application(application) == Target(protocol=TCP, host="10.0.0.5", port=5432)
    assert target_of_application(Application(protocol=TCP)) is None


def test_a_definition_cannot_point_the_agent_at_the_machines_metadata():
    with pytest.raises(DrtpError, match="DRTP-4008"):
        target_of_application(Application(protocol=TCP, ip="169.254.169.254", port=80))


def test_ordinary_addresses_are_not_forbidden():
    assert [forbidden_reason(a) for a in ("127.0.0.1", "10.1.2.3", "::1", "2001:db8::1", "name")] == [None] * 5
