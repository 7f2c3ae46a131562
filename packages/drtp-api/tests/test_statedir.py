"""State on the machine: private, whole, and found again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from drtp_api.errors import DrtpError
from drtp_api.statedir import (
    LOCAL_FILE,
    LocalCloud,
    ensure_directory,
    read_local,
    state_directory,
    write_local,
    write_private,
)


def cloud(pid):
    return LocalCloud(
        api_url="https://127.0.0.1:1", registration_url="https://127.0.0.1:2", kubeconfig="/k", user_token="t", pid=pid
    )


def test_the_directory_is_the_one_asked_for_then_the_environments_then_the_platforms(monkeypatch, tmp_path):
    monkeypatch.setenv("DRTP_STATE_DIR", str(tmp_path))
    assert state_directory(Path("/x")) == Path("/x")
    assert state_directory() == tmp_path
    monkeypatch.delenv("DRTP_STATE_DIR")
    assert state_directory().name == "drtp"


def test_a_directory_is_made_for_this_user_alone(tmp_path):
    made = ensure_directory(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700
    assert ensure_directory(made) == made
    assert list(made.iterdir()) == []


def test_a_directory_that_cannot_be_is_a_coded_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DrtpError, match="DRTP-1006"):
        ensure_directory(tmp_path / "file" / "below")
    with pytest.raises(DrtpError, match="DRTP-1006"):
        write_private(tmp_path / "missing" / "x", b"")


def test_a_private_file_is_replaced_whole(tmp_path):
    path = tmp_path / "secret"
    path.write_text("old, and readable by all")
    path.chmod(0o644)
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]


def test_a_running_cloud_is_found_and_unknown_fields_are_passed_over(tmp_path):
    assert read_local(tmp_path) is None
    write_local(tmp_path, cloud(os.getpid()))
    assert read_local(tmp_path) == cloud(os.getpid())
    data = json.loads((tmp_path / LOCAL_FILE).read_text())
    assert data["apiURL"] == "https://127.0.0.1:1"
    (tmp_path / LOCAL_FILE).write_text(json.dumps(data | {"gateway": {"httpPort": 1}}))
    assert read_local(tmp_path) == cloud(os.getpid())


def test_what_a_dead_process_left_counts_as_none(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    write_local(tmp_path, cloud(ended.pid))
    assert read_local(tmp_path) is None


def test_a_damaged_file_is_a_coded_error(tmp_path):
    for text in ("{", "[]", "{}"):
        (tmp_path / LOCAL_FILE).write_text(text)
        with pytest.raises(DrtpError, match=r"DRTP-(1011|2009)"):
            read_local(tmp_path)
