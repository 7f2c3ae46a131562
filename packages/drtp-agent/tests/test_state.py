"""State on disk, with real processes where a lock is at stake."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drtp_agent.names import check_name, name_for, normalise
from drtp_agent.state import AgentState, CachedRegistration, running_pid
from drtp_agent.target import parse_target
from drtp_api.errors import DrtpError
from drtp_api.registration import ConnectionView, RegisterResponse, TunnelEndpoint, TunnelServer
from drtp_api.resources import Role

HOLD = """
import sys, pathlib
from drtp_agent.state import AgentState
with AgentState.open(pathlib.Path(sys.argv[1]), "web"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_of_the_same_name_is_refused_and_told_who_holds_it(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        assert running_pid(tmp_path / "web") == holder.pid
        with pytest.raises(DrtpError) as caught:
            AgentState.open(tmp_path, "web")
        assert caught.value.code == "DRTP-1005"
        assert caught.value.exit_code == 78
        assert str(holder.pid) in caught.value.message
        with AgentState.open(tmp_path, "other"):
            pass
        holder.kill()  # a killed process lets go: no stale lock
        holder.wait()
        with AgentState.open(tmp_path, "web"):
            assert running_pid(tmp_path / "web") == os.getpid()
        assert running_pid(tmp_path / "web") is None
    finally:
        holder.kill()
        holder.communicate()


def test_the_instance_and_its_key_stay_and_the_epoch_grows_even_when_the_clock_steps_back(tmp_path):
    with AgentState.open(tmp_path, "web") as state:
        first = state.new_identity(unix_time=1000.0)
        second = state.new_identity(unix_time=1000.0)
        third = state.new_identity(unix_time=5.0)
        fourth = state.new_identity(unix_time=2000.0)
    assert first.instance_id == fourth.instance_id
    assert first.public_key == fourth.public_key
    assert [i.epoch for i in (first, second, third, fourth)] == [1_000_000, 1_000_001, 1_000_002, 2_000_000]
    assert len(first.public_key_text) == 43


def test_secrets_on_disk_are_for_this_user_alone(tmp_path):
    with AgentState.open(tmp_path / "serve", "web") as state:
        state.new_identity(unix_time=1.0)
        directory = state.directory
    for file in directory.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_the_last_registration_comes_back_as_it_was(tmp_path):
    server = TunnelServer(
        name="nyc-1", role=Role.PRIMARY, city="New York", server_name="nyc-1.drtp", grant="g",
        endpoints=(TunnelEndpoint(address="127.0.0.1", port=7844, transport="tcp"),),
    )  # fmt: skip
    view = ConnectionView(name="web-1", namespace="default", service="web", private=False, programmed=True)
    kept = CachedRegistration(
        response=RegisterResponse(connection=view, servers=(server,), expires_in_seconds=3600),
        saved_at=12.5,
        registration_url="http://127.0.0.1:1",
    )
    with AgentState.open(tmp_path, "web") as state:
        assert state.load_registration() is None
        state.save_registration(kept)
        assert state.load_registration() == kept
        (state.directory / "grants.json").write_text("{")
        assert state.load_registration() is None
        state.forget_registration()
        assert not (state.directory / "grants.json").exists()


def test_a_damaged_identity_is_a_coded_error_not_a_new_identity(tmp_path):
    with AgentState.open(tmp_path, "web") as state:
        (state.directory / "instance.json").write_text('{"instanceID": "zz", "epoch": 1}')
        with pytest.raises(DrtpError, match="DRTP-1011"):
            state.new_identity(unix_time=1.0)


def test_an_unwritable_state_directory_is_a_coded_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DrtpError) as caught:
        AgentState.open(tmp_path / "file", "web")
    assert (caught.value.code, caught.value.exit_code) == ("DRTP-1006", 78)


def test_a_target_keeps_its_name_and_another_machine_gives_another(tmp_path):
    draws = iter(range(1000))
    target = parse_target("localhost:8080")
    first = name_for(target, tmp_path / "a", lambda n: next(draws) % n)
    assert first.startswith("web-8080-")
    assert name_for(target, tmp_path / "a", lambda n: next(draws) % n) == first
    assert name_for(parse_target("tcp://localhost:8080"), tmp_path / "a", lambda n: 0) != first
    assert name_for(target, tmp_path / "b", lambda n: next(draws) % n) != first


@given(st.from_regex(r"[a-zA-Z0-9_.-]{1,253}", fullmatch=True), st.integers(1, 65535))
def test_every_target_gets_a_valid_name(host, port):
    import tempfile
    from pathlib import Path

    try:
        target = parse_target(f"tcp://{host}:{port}")
    except DrtpError:
        return
    with tempfile.TemporaryDirectory() as directory:
        check_name(name_for(target, Path(directory), lambda n: n - 1))


@given(st.text(min_size=1))
def test_any_text_becomes_a_valid_name(text):
    check_name(normalise(text))


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "1a", "a" * 41, "a_b", "a.b", "ä"])
def test_a_name_that_would_break_a_host_name_is_refused(name):
    with pytest.raises(DrtpError, match="DRTP-1003"):
        check_name(name)
