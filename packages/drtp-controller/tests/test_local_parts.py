"""The parts of the local cloud that need no process: settings, certificates, state, what edges said."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import socket
import ssl
import stat

import pytest
from cryptography import x509

from drtp_api.errors import DrtpError
from drtp_api.kube import DRTP_CONNECTIONS, DRTP_SERVERS, DRTP_SERVICES, LEASES
from drtp_api.resources import Protocol
from drtp_api.wire import object_to_wire
from drtp_controller.apiserver import Role, User
from drtp_controller.cli.main import run
from drtp_controller.local.edges import CITIES, EdgeOptions, take_back
from drtp_controller.local.pki import ensure_authority
from drtp_controller.local.settings import SETTINGS, resolve
from drtp_controller.local.state import lock_directory, open_state
from drtp_controller.planners.ports import PortState
from drtp_controller.reconcile.leader import DURATION_SECONDS, LeaderState, Step
from drtp_controller.reconcile.probe import bind_probe, free_port
from drtp_controller.testing import control_plane, make_connection, make_service

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path):
    file = tmp_path / "drtp.toml"
    file.write_text('[local]\nservers = 5\ngateway = "direct"\nhttp_port = 9000\n')
    environ = {"DRTP_SERVERS": "4", "DRTP_GATEWAY": "envoy"}
    resolved = resolve({"servers": "3"}, state_dir=tmp_path, config=file, environ=environ)
    assert (resolved.settings.servers, resolved.settings.gateway, resolved.settings.http_port) == (3, "envoy", 9000)
    assert resolved.settings.port_range == (20000, 29999)
    origins = {name: origin for name, (_, origin) in resolved.origins.items()}
    assert origins["servers"] == "flag --servers"
    assert origins["gateway"] == "environment DRTP_GATEWAY"
    assert origins["http_port"] == f"file {file}"
    assert origins["picker"] == "default"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("servers", "0"), ("servers", "9"), ("servers", "two"), ("http_port", "70000"), ("http_port", "-1"),
        ("port_range", "5"), ("port_range", "9-3"), ("port_range", "0-9"), ("edge_ports", "1,x"),
        ("gateway_options", "binary"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_read_is_named_with_its_origin(name, value):
    with pytest.raises(DrtpError, match=name) as caught:
        resolve({name: value}, environ={})
    assert caught.value.code == "DRTP-1007"


def test_a_file_with_an_unknown_setting_is_refused(tmp_path):
    file = tmp_path / "drtp.toml"
    file.write_text("[local]\nserver = 5\n")
    with pytest.raises(DrtpError, match="no setting server"):
        resolve({}, config=file, environ={})


def test_every_default_can_be_read_and_has_help():
    assert all(setting.help for setting in SETTINGS)
    given = resolve({"gateway_options": "binary=/x,log_level=info"}, environ={}).settings
    assert given.gateway_options == {"binary": "/x", "log_level": "info"}


def test_certificates_are_kept_and_trusted_by_a_real_handshake(tmp_path):
    now = dt.datetime.now(dt.UTC)
    authority = ensure_authority(tmp_path, now=now)
    files = authority.ensure_leaf("edge", ("edge.test", "127.0.0.1"), now=now)
    first = files.certificate.read_bytes()
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    again = ensure_authority(tmp_path, now=now)
    assert again.pem == authority.pem
    assert again.ensure_leaf("edge", ("edge.test",), now=now).certificate.read_bytes() == first
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    client = ssl.create_default_context(cadata=authority.pem)
    left, right = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(left, right, server_hostname="edge.test")
    other = server.wrap_bio(right, left, server_side=True)
    for _ in range(4):
        for end in (one, other):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert one.version() == "TLSv1.3"


@pytest.mark.parametrize(
    ("days", "names", "renewed"),
    [(0, ("edge.test",), False), (340, ("edge.test",), True), (0, ("other.test",), True), (-1, ("edge.test",), True)],
)
def test_a_certificate_is_renewed_when_it_must_be(tmp_path, days, names, renewed):
    authority = ensure_authority(tmp_path, now=NOW)
    first = authority.ensure_leaf("edge", ("edge.test",), now=NOW).certificate.read_bytes()
    later = authority.ensure_leaf("edge", names, now=NOW + dt.timedelta(days=days)).certificate.read_bytes()
    assert (later != first) is renewed


def test_a_new_authority_renews_every_certificate(tmp_path):
    old = ensure_authority(tmp_path, now=NOW)
    old.ensure_leaf("edge", ("edge.test",), now=NOW)
    much_later = NOW + dt.timedelta(days=3300)
    new = ensure_authority(tmp_path, now=much_later)
    assert new.pem != old.pem
    leaf = new.ensure_leaf("edge", ("edge.test",), now=much_later).certificate.read_bytes()
    x509.load_pem_x509_certificate(leaf).verify_directly_issued_by(new.certificate)


def test_damaged_key_files_are_replaced(tmp_path):
    authority = ensure_authority(tmp_path, now=NOW)
    files = authority.ensure_leaf("edge", ("edge.test",), now=NOW)
    files.key.write_text("nonsense")
    assert authority.ensure_leaf("edge", ("edge.test",), now=NOW).key.read_bytes() != b"nonsense"


def test_a_second_cloud_in_the_same_directory_is_refused_and_told_who_runs(tmp_path):
    fd = lock_directory(tmp_path / "cloud")
    try:
        with pytest.raises(DrtpError, match=str(os.getpid())) as caught:
            lock_directory(tmp_path / "cloud")
        assert caught.value.code == "DRTP-1013"
    finally:
        os.close(fd)
    os.close(lock_directory(tmp_path / "cloud"))


def test_tokens_and_chosen_ports_survive_a_restart(tmp_path):
    state = open_state(tmp_path)
    token, port = state.token("user"), state.port("api", 0)
    state.save()
    again = open_state(tmp_path)
    assert again.token("user") == token
    assert again.port("api", 0) == port
    assert stat.S_IMODE(again.path.stat().st_mode) == 0o600


def test_a_chosen_port_that_is_taken_meanwhile_is_replaced_and_a_wanted_one_is_refused(tmp_path):
    state = open_state(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        state.ports["api"] = taken
        assert state.port("api", 0) != taken
        with pytest.raises(DrtpError) as caught:
            state.port("api", taken)
        assert caught.value.code == "DRTP-1014"
        assert bind_probe("127.0.0.1")(Protocol.TCP, taken) is PortState.TAKEN
        assert bind_probe("127.0.0.1")(Protocol.UDP, free_port("127.0.0.1")) is PortState.FREE


def test_a_damaged_state_file_says_what_to_delete(tmp_path):
    (tmp_path / "cloud.json").write_text("{")
    with pytest.raises(DrtpError) as caught:
        open_state(tmp_path)
    assert "cloud.json" in caught.value.hint


def test_the_edges_command_line_says_everything_an_edge_needs(tmp_path):
    options = EdgeOptions(
        name="edge-nyc", city=CITIES[0], kubeconfig=tmp_path / "k", certificate=tmp_path / "c", key=tmp_path / "y",
        ca_bundle=tmp_path / "a", server_name="edge-nyc.test", host="127.0.0.1", tunnel_port=7000,
        log_file=tmp_path / "log", direct_http_port=8880,
    )  # fmt: skip
    words = options.command()
    told = dict(zip(words[3::2], words[4::2], strict=False))
    assert told["--name"] == "edge-nyc"
    assert told["--coordinates"] == "40.7128,-74.0060"
    assert told["--tunnel-listen"] == "127.0.0.1:7000"
    assert told["--direct-http-port"] == "8880"


def test_what_an_edge_said_is_taken_back_when_its_process_is_gone(tmp_path):
    async def scenario():
        async with control_plane(tmp_path) as plane:
            for name, city in (("edge-a", "NYC"), ("edge-b", "AMS")):
                await plane.edge(name, city)
            service = object_to_wire(make_service())
            await plane.kube.create(DRTP_SERVICES, service, "default")
            connection = object_to_wire(make_connection())
            await plane.kube.create(DRTP_CONNECTIONS, connection, "default")
            for name in ("edge-a", "edge-b"):
                await plane.tunnel("web-aaaaaaaaaa", name)
            admin = plane.server.kube(User("admin", Role.ADMIN))
            await take_back(admin, "edge-a")
            await plane.settle()
            stored = await plane.kube.get(DRTP_CONNECTIONS, "web-aaaaaaaaaa", "default")
            said = {b["name"]: b["clientStatus"] for b in stored["status"]["servers"]}
            assert said == {"edge-a": "Disconnected", "edge-b": "Connected"}
            leases = [o["metadata"]["name"] for o in (await plane.kube.list(LEASES, "drtp-system")).items]
            assert leases == ["edge-b"]
            assert not plane._ready("edge-a")
            await take_back(admin, None, keep=frozenset({"edge-b"}))
            assert [o["metadata"]["name"] for o in (await plane.kube.list(DRTP_SERVERS)).items] == ["edge-b"]

    asyncio.run(asyncio.wait_for(scenario(), 60))


def lease(holder, renew):
    return {"spec": {"holderIdentity": holder, "renewTime": renew, "leaseDurationSeconds": DURATION_SECONDS}}


def test_a_candidate_waits_until_it_has_seen_no_renewal_for_the_whole_duration():
    state = LeaderState("me")
    assert state.observe(None, 0.0) is Step.CREATE
    assert state.observe(lease("other", "1"), 100.0) is Step.WAIT
    assert state.observe(lease("other", "2"), 114.0) is Step.WAIT
    assert state.observe(lease("other", "2"), 128.9) is Step.WAIT
    assert state.observe(lease("other", "2"), 129.0) is Step.TAKE
    assert state.observe(lease("", "3"), 130.0) is Step.TAKE


def test_a_leader_that_cannot_renew_steps_down_before_another_may_take_over():
    state = LeaderState("me")
    state.written(0.0)
    assert not state.lost(9.9)
    assert state.lost(10.0)
    assert not state.leading
    assert state.observe(lease("me", "1"), 11.0) is Step.RENEW


def test_a_leader_that_sees_anothers_name_was_deposed():
    state = LeaderState("me")
    state.written(0.0)
    assert state.observe(lease("other", "1"), 1.0) is Step.WAIT
    assert state.deposed()
    assert not state.deposed()


def test_the_command_prints_crds_plugins_settings_and_versions(capsys):
    assert run(["crds", "-o", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["items"]) == 4
    assert run(["plugins", "list", "-o", "json"]) == 0
    assert {"kind": "transport", "name": "tcp"}.items() <= json.loads(capsys.readouterr().out)[0].items()
    assert run(["config", "show", "--origin", "--servers", "3"]) == 0
    assert "servers            3  (flag --servers)" in capsys.readouterr().out
    assert run(["version"]) == 0
    assert capsys.readouterr().out.strip() == "0.1.0"


def test_a_refusal_is_a_code_and_a_next_step_without_a_traceback(capsys):
    assert run(["local", "--servers", "99"]) == 78
    shown = capsys.readouterr().err
    assert shown.startswith("error: DRTP-1007 servers from flag --servers")
    assert "Traceback" not in shown
    assert run(["nonsense"]) == 2
