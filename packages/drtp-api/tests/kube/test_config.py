from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path

import pytest
import yaml

from drtp_api.kube import BadRequest, Unavailable, in_cluster_config, kubeconfig_path, load_kubeconfig
from drtp_api.kube.config import find_config, load_kubeconfig_with_helpers


def write(path: Path, *, cluster=None, user=None, context=None, **more):
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443/"} | (cluster or {})}],
        "users": [{"name": "u", "user": user if user is not None else {"token": "t0k"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"} | (context or {})}],
        "current-context": "x",
    } | more
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_token_and_inline_trust_are_read(tmp_path):
    pem = base64.b64encode(b"CA PEM").decode()
    file = write(tmp_path / "c", cluster={"certificate-authority-data": pem}, context={"namespace": "team"})
    config = load_kubeconfig(file)
    assert (config.server, config.token, config.ca_pem, config.namespace) == (
        "https://10.0.0.1:6443",
        "t0k",
        "CA PEM",
        "team",
    )


def test_files_are_found_beside_the_kubeconfig(tmp_path):
    (tmp_path / "ca.pem").write_text("CA")
    (tmp_path / "crt").write_text("CERT")
    (tmp_path / "key").write_text("KEY")
    file = write(
        tmp_path / "c",
        cluster={"certificate-authority": "ca.pem"},
        user={"client-certificate": "crt", "client-key": "key", "tokenFile": "tok"},
    )
    config = load_kubeconfig(file)
    assert (config.ca_pem, config.client_certificate_pem, config.client_key_pem) == ("CA", "CERT", "KEY")
    assert config.token_file == tmp_path / "tok"


def test_secrets_do_not_show_in_the_repr(tmp_path):
    config = load_kubeconfig(write(tmp_path / "c", user={"token": "verysecret"}))
    assert "verysecret" not in repr(config)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"current-context": ""}, "current-context"),
        ({"current-context": "other"}, "no context named 'other'"),
        ({"clusters": []}, "no cluster named 'c'"),
        ({"users": []}, "no user named 'u'"),
    ],
)
def test_a_dangling_name_is_named(tmp_path, change, words):
    with pytest.raises(BadRequest, match=words):
        load_kubeconfig(write(tmp_path / "c", **change))


def test_a_file_that_is_not_there_or_not_yaml_is_an_error(tmp_path):
    with pytest.raises(Unavailable, match="cannot be read"):
        load_kubeconfig(tmp_path / "none")
    (tmp_path / "bad").write_text("{")
    with pytest.raises(BadRequest, match="not YAML"):
        load_kubeconfig(tmp_path / "bad")


def test_trust_that_is_not_base64_is_an_error(tmp_path):
    with pytest.raises(BadRequest, match="certificate-authority-data"):
        load_kubeconfig(write(tmp_path / "c", cluster={"certificate-authority-data": "%%%"}))


def test_a_user_with_a_helper_program_is_not_taken_for_anonymous(tmp_path):
    file = write(tmp_path / "c", user={"exec": {"command": "aws"}})
    with pytest.raises(BadRequest, match="helper"):
        load_kubeconfig(file)


def test_a_helper_program_is_run_for_its_token(tmp_path):
    pytest.importorskip("kubernetes")
    helper = tmp_path / "helper"
    helper.write_text(
        "#!/bin/sh\n"
        'echo \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'
        '"status":{"token":"from-helper"}}\'\n'
    )
    helper.chmod(0o755)
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(helper),
            "interactiveMode": "Never",
        }
    }
    file = write(tmp_path / "c", cluster={"server": "http://10.0.0.1"}, user=user)
    assert asyncio.run(load_kubeconfig_with_helpers(file)).token == "from-helper"


def test_a_named_file_is_preferred_to_everything_else(tmp_path):
    assert asyncio.run(find_config(write(tmp_path / "c"))).token == "t0k"


def test_a_pod_finds_its_service_account(tmp_path):
    (tmp_path / "token").write_text("sa")
    (tmp_path / "ca.crt").write_text("CA")
    (tmp_path / "namespace").write_text("drtp-system\n")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    config = in_cluster_config(environ, tmp_path)
    assert config is not None
    assert (config.server, config.namespace) == ("https://[fd00::1]:443", "drtp-system")
    assert config.token_file == tmp_path / "token"
    assert in_cluster_config({}, tmp_path) is None


def test_the_first_file_of_the_environment_is_taken():
    assert kubeconfig_path({"KUBECONFIG": ":/a:/b"}) == Path("/a")
    assert kubeconfig_path({}) == Path.home() / ".kube" / "config"


def test_unusable_tls_material_is_named(tmp_path):
    pem = base64.b64encode(b"no certificate").decode()
    config = load_kubeconfig(write(tmp_path / "c", cluster={"certificate-authority-data": pem}))
    with pytest.raises(BadRequest, match="TLS material"):
        config.ssl_context()


def test_tls_older_than_1_2_is_not_spoken(tmp_path):
    context = load_kubeconfig(write(tmp_path / "c")).ssl_context()
    assert context is not None
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
