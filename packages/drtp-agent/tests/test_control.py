"""Tokens, discovery and the registration client, each with a real counterpart."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat

import pytest

from drtp_agent.control import ControlPlane, check_clock, is_loopback
from drtp_agent.discovery import locate
from drtp_agent.sdk import definition_of, expose
from drtp_agent.target import parse_target
from drtp_agent.tokens import FileToken, HelperToken, StaticToken, expiry_of
from drtp_api.errors import DrtpError
from drtp_api.statedir import LocalCloud, write_local

from .conftest import TOKEN, abandon


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def jwt(**claims):
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{body}.sig"


def test_the_helper_is_asked_as_datumctl_expects_and_its_answer_kept_until_shortly_before_it_expires(tmp_path):
    token = jwt(exp=10_000)
    helper = script(tmp_path / "datumctl", f'echo "$@" >> {tmp_path}/calls; printf %s {token}')
    now = [0.0]

    async def scenario():
        source = HelperToken(helper, "work", clock=lambda: now[0])
        assert await source.token() == token
        now[0] = 9_699
        await source.token()
        assert (tmp_path / "calls").read_text().splitlines() == ["auth get-token --session work"]
        now[0] = 9_701
        await source.token()
        source.forget()
        await source.token()
        assert len((tmp_path / "calls").read_text().splitlines()) == 3

    asyncio.run(scenario())


@pytest.mark.parametrize("body", ["echo 'session expired' >&2; exit 1", "exit 0"])
def test_a_helper_without_a_token_means_not_signed_in(tmp_path, body):
    helper = script(tmp_path / "datumctl", body)
    with pytest.raises(DrtpError) as caught:
        asyncio.run(HelperToken(helper).token())
    assert caught.value.code == "DRTP-2003"


def test_a_helper_that_is_gone_means_not_signed_in(tmp_path):
    with pytest.raises(DrtpError, match="DRTP-2003"):
        asyncio.run(HelperToken(str(tmp_path / "absent")).token())


def test_a_token_file_is_read_each_time(tmp_path):
    source = FileToken(tmp_path / "token")
    with pytest.raises(DrtpError, match="DRTP-2003"):
        asyncio.run(source.token())
    (tmp_path / "token").write_text("one\n")
    assert asyncio.run(source.token()) == "one"
    (tmp_path / "token").write_text("two")
    assert asyncio.run(source.token()) == "two"


@pytest.mark.parametrize(("token", "expiry"), [(jwt(exp=5), 5.0), (jwt(), None), ("opaque", None), ("a.!.c", None)])
def test_the_expiry_of_a_token_is_read_where_it_says_one(token, expiry):
    assert expiry_of(token) == expiry


@pytest.mark.parametrize(
    ("url", "loopback"),
    [("http://127.0.0.1:1", True), ("http://[::1]:1", True), ("http://localhost", True), ("https://a.localhost", True),
     ("https://api.example", False), ("http://10.0.0.1", False), ("http://127.0.0.1.example", False)],
)  # fmt: skip
def test_loopback_is_told_from_the_rest(url, loopback):
    assert is_loopback(url) is loopback


def test_no_control_plane_anywhere_is_a_coded_error(tmp_path):
    with pytest.raises(DrtpError) as caught:
        locate(state_dir=tmp_path, environ={})
    assert (caught.value.code, caught.value.exit_code) == ("DRTP-2001", 69)


def test_a_running_local_cloud_is_found_and_a_dead_one_is_not(tmp_path):
    cloud = LocalCloud(
        api_url="a", registration_url="http://127.0.0.1:5", kubeconfig="k", user_token="t", pid=os.getpid()
    )
    write_local(tmp_path, cloud)
    found = locate(state_dir=tmp_path, environ={"DATUM_ORG": ""})
    assert (found.url, found.tokens, found.organization) == ("http://127.0.0.1:5", StaticToken("t"), None)
    explicit = locate(api_url="http://127.0.0.1:5", state_dir=tmp_path, environ={})
    assert explicit.tokens == StaticToken("t")
    other = locate(api_url="http://127.0.0.1:6", state_dir=tmp_path, environ={})
    assert other.tokens is None, "its token goes nowhere else"


def test_the_environment_of_datumctl_is_used_and_an_option_wins_over_it(tmp_path):
    env = {
        "DATUM_API_HOST": "api.datum.net", "DATUM_CREDENTIALS_HELPER": "/bin/datumctl", "DATUM_SESSION": "s",
        "DATUM_ORG": "", "DATUM_PROJECT": "p",
    }  # fmt: skip
    found = locate(state_dir=tmp_path, environ=env)
    assert (found.url, found.project, found.organization) == ("https://api.datum.net", "p", None)
    assert isinstance(found.tokens, HelperToken)
    found = locate(api_url="http://127.0.0.1:1", token_file="/f", project="q", state_dir=tmp_path, environ=env)
    assert (found.url, found.project, found.tokens) == ("http://127.0.0.1:1", "q", FileToken(path=found.tokens.path))


def serve_once(answer):
    """Return a context in which every request gets the answer, and the heads that came."""
    heads = []

    async def start():
        writers = set()

        async def handle(reader, writer):
            writers.add(writer)
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(answer)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", writers

    return start, heads


def ask(answer, **options):
    start, heads = serve_once(answer)

    async def scenario():
        server, url, writers = await start()
        try:
            async with ControlPlane(url, **options) as control:
                return await control.services("default")
        finally:
            server.close()
            await abandon(writers)

    return scenario, heads


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (409, '{"code":"DRTP-2007","message":"m","hint":"h"}', "DRTP-2007"),
        (409, '{"code":"DRTP-9999","message":"m","hint":"h"}', "DRTP-2030"),
        (500, "not json", "DRTP-2030"),
        (403, "{}", "DRTP-2008"),
        (200, "not json", "DRTP-2002"),
        (302, "", "DRTP-2030"),
    ],
)
def test_what_the_api_says_becomes_a_coded_error(status, body, code):
    answer = f"HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    scenario, heads = ask(answer.encode(), tokens=StaticToken(TOKEN))
    with pytest.raises(DrtpError) as caught:
        asyncio.run(scenario())
    assert caught.value.code == code
    assert f"Authorization: Bearer {TOKEN}\r\n".lower() in heads[0].lower()
    assert len(heads) == 1, "a redirect is not followed"


def test_a_refused_token_is_asked_for_anew_once():
    answer = b'HTTP/1.1 401 X\r\nContent-Length: 49\r\n\r\n{"code":"DRTP-2003","message":"m","hint":"sign in"}'
    answer = answer.replace(b"49", str(len(answer.partition(b"\r\n\r\n")[2])).encode())
    asked = []

    class Source:
        async def token(self):
            asked.append("token")
            return "t"

        def forget(self):
            asked.append("forget")

    scenario, heads = ask(answer, tokens=Source())
    with pytest.raises(DrtpError, match="DRTP-2003"):
        asyncio.run(scenario())
    assert (asked, len(heads)) == (["token", "forget", "token"], 2)


def test_a_proxy_of_the_environment_is_not_used_for_loopback(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    scenario, _ = ask(b"HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\n{}", tokens=StaticToken(TOKEN))
    assert asyncio.run(scenario()) == ()


def test_without_a_token_a_users_call_is_refused_before_it_is_made():
    async def scenario():
        async with ControlPlane("http://127.0.0.1:1") as control:
            await control.services("default")

    with pytest.raises(DrtpError, match="DRTP-2003"):
        asyncio.run(scenario())


@pytest.mark.parametrize(
    ("target", "options", "code"),
    [
        ("8080", {"port": 5}, "DRTP-1004"),
        ("tcp://h:1", {"hostname": "a.example"}, "DRTP-1004"),
        ("tcp://h:1", {"port": -1}, "DRTP-1010"),
        ("tcp://h:1", {"port": 65536}, "DRTP-1010"),
        ("8080", {"allow": ["10.0.0.1/8"]}, "DRTP-1008"),
        ("8080", {"allow": ["nonsense"]}, "DRTP-1008"),
    ],
)
def test_a_definition_that_contradicts_itself_is_refused(target, options, code):
    with pytest.raises(DrtpError) as caught:
        definition_of(parse_target(target), **options)
    assert caught.value.code == code


def test_the_sdk_exposes_a_service_and_tells_what_happens(world, tmp_path):
    async def scenario(cloud, local, agents):
        token = tmp_path / "token"
        token.write_text(TOKEN)
        async with expose(
            f"tcp://localhost:{local.port}", public=True, name="web", api_url=cloud.url, token_file=str(token),
            state_dir=tmp_path / "sdk", drain=0.0,
        ) as tunnel:  # fmt: skip
            assert (tunnel.name, tunnel.verified, tunnel.private) == ("web", "service", False)
            assert tunnel.addresses[0].port == cloud.public[1]
            assert [s.name for s in tunnel.servers] == ["nyc", "ams"]

            events = tunnel.events()
            next_event = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            cloud.edges["ams"].live[0].tunnel.abort()
            assert type(await next_event).__name__ == "TunnelDegraded"
        assert [type(event).__name__ async for event in events][-1] == "TunnelStopped"

    world(scenario)


def test_the_sdk_raises_what_keeps_the_service_from_being_ready(tmp_path):
    async def scenario():
        async with expose("0.0.0.0:80", state_dir=tmp_path):
            pass

    with pytest.raises(DrtpError, match="DRTP-1002"):
        asyncio.run(scenario())

    async def absent():
        async with expose("tcp://localhost:9", state_dir=tmp_path, api_url="http://127.0.0.1:9"):
            pass

    with pytest.raises(DrtpError, match="DRTP-4001"):
        asyncio.run(absent())


@pytest.mark.parametrize("seconds", [-40.0, 0.0, 40.0])
def test_a_clock_that_is_a_little_off_is_good_enough(seconds):
    check_clock("Mon, 23 Nov 2026 16:00:00 GMT", 1795449600.0 + seconds)


@pytest.mark.parametrize(("seconds", "word"), [(-3600.0, "behind"), (90.0, "ahead of")])
def test_a_clock_that_is_wrong_is_an_error_with_how_much(seconds, word):
    with pytest.raises(DrtpError, match=f"DRTP-2004 .*{abs(seconds):.0f} s {word}"):
        check_clock("Mon, 23 Nov 2026 16:00:00 GMT", 1795449600.0 + seconds)


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_an_answer_without_a_readable_date_proves_nothing(date):
    check_clock(date, 0.0)
