"""Where an API server is and how to prove who we are: kubeconfig files and in-cluster accounts.

Rules:
- Our own small parser covers token, token file, basic TLS material and client certificates.
- `exec` and `auth-provider` users go to the `kubernetes` package, imported only then.
- Secrets stay in the value objects; nothing here logs them, and their `repr` does not show them.
What must not enter: requests.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import yaml

from drtp_api.kube.errors import BadRequest, Unavailable

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@attrs.frozen
class KubeConfig:
    """Everything `HttpKube` needs to reach one API server as one user."""

    server: str
    """Base URL without a trailing slash."""
    namespace: str = "default"
    """The context's namespace, for commands; the client itself never assumes one."""
    ca_pem: str | None = attrs.field(default=None, repr=False)
    """Certificates to trust; None for the system's."""
    tls_server_name: str = ""
    insecure_skip_tls_verify: bool = False
    token: str = attrs.field(default="", repr=False)
    token_file: Path | None = None
    """Read again at least once a minute: service account tokens are rotated."""
    client_certificate_pem: str = attrs.field(default="", repr=False)
    client_key_pem: str = attrs.field(default="", repr=False)

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS settings, None for a plain http server.

        Raises:
            BadRequest: a certificate or key is not readable.
        """
        if not self.server.startswith("https"):
            return None
        try:
            context = ssl.create_default_context(cadata=self.ca_pem)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.insecure_skip_tls_verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.client_certificate_pem:
                _load_client_certificate(context, self.client_certificate_pem, self.client_key_pem)
        except ssl.SSLError as error:
            raise BadRequest(f"the TLS material for {self.server} cannot be used: {error}") from error
        return context


def _load_client_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    # OpenSSL's Python binding loads a key pair from files only; the file is private and gone at once
    handle, name = tempfile.mkstemp(prefix="drtp-client-")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(certificate.rstrip() + "\n" + key)
        context.load_cert_chain(name)
    finally:
        Path(name).unlink()


def in_cluster_config(environ: Mapping[str, str] = os.environ, account: Path = _SERVICE_ACCOUNT) -> KubeConfig | None:
    """Return the configuration of a pod's service account, None outside a cluster."""
    host = environ.get("KUBERNETES_SERVICE_HOST", "")
    port = environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (account / "token").exists():
        return None
    shown = f"[{host}]" if ":" in host else host
    namespace = account / "namespace"
    return KubeConfig(
        server=f"https://{shown}:{port}",
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
        ca_pem=(account / "ca.crt").read_text(),
        token_file=account / "token",
    )


def kubeconfig_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the kubeconfig file kubectl would read: the first of `$KUBECONFIG`, else `~/.kube/config`."""
    for entry in environ.get("KUBECONFIG", "").split(os.pathsep):
        if entry:
            return Path(entry)
    return Path.home() / ".kube" / "config"


def load_kubeconfig(path: Path, *, context: str = "") -> KubeConfig:
    """Read one context of a kubeconfig file, the current one by default.

    Raises:
        Unavailable: the file cannot be read.
        BadRequest: it is not a kubeconfig, names something it does not define, or needs a log-in helper
            (`exec`, `auth-provider`): `load_kubeconfig_with_helpers` runs those.
    """
    document = _read(path)
    cluster, user, namespace = _select(document, context, path)
    if needs_helper(user):
        raise BadRequest(f"{path}: this user logs in through a helper program")
    return _build(cluster, user, namespace, path.parent)


async def load_kubeconfig_with_helpers(path: Path, *, context: str = "") -> KubeConfig:
    """Read a context like `load_kubeconfig`, running its log-in helper through the `kubernetes` package if it has one.

    Raises:
        BadRequest: the helper is needed and the `kubernetes` package is not installed.
    """
    document = _read(path)
    cluster, user, namespace = _select(document, context, path)
    if not needs_helper(user):
        return _build(cluster, user, namespace, path.parent)
    try:
        from kubernetes.aio import client, config
    except ImportError as error:
        raise BadRequest(
            f"{path}: this user logs in through a helper program; install the package kubernetes"
        ) from error
    loaded = client.Configuration()
    load: Callable[..., Awaitable[None]] = config.load_kube_config
    await load(str(path), context=context or None, client_configuration=loaded)
    header = loaded.api_key.get("BearerToken") or loaded.api_key.get("authorization")
    certificate = await asyncio.to_thread(_text, loaded.cert_file)
    key = await asyncio.to_thread(_text, loaded.key_file)
    return attrs.evolve(
        _build(cluster, {}, namespace, path.parent),
        token=str(header or "").removeprefix("Bearer ").strip(),
        client_certificate_pem=certificate,
        client_key_pem=key,
    )


def _text(path: str | None) -> str:
    return Path(path).read_text() if path else ""


async def find_config(kubeconfig: Path | None = None, *, context: str = "") -> KubeConfig:
    """Return the configuration of `kubeconfig`, else of the pod we run in, else of kubectl's usual file."""
    if kubeconfig is None:
        in_cluster = in_cluster_config()
        if in_cluster is not None:
            return in_cluster
    return await load_kubeconfig_with_helpers(kubeconfig or kubeconfig_path(), context=context)


def needs_helper(user: Mapping[str, Any]) -> bool:
    """Return whether a kubeconfig user gets its credentials from a program or a provider."""
    return "exec" in user or "auth-provider" in user


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise Unavailable(f"the kubeconfig {path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise BadRequest(f"the kubeconfig {path} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise BadRequest(f"{path} is not a kubeconfig")
    return document


def _select(document: dict[str, Any], context: str, path: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    name = context or document.get("current-context") or ""
    if not name:
        raise BadRequest(f"the kubeconfig {path} has no current-context; name one")
    chosen = _named(document, "contexts", "context", name, path)
    cluster = _named(document, "clusters", "cluster", chosen.get("cluster", ""), path)
    user = _named(document, "users", "user", chosen["user"], path) if chosen.get("user") else {}
    return cluster, user, chosen.get("namespace") or "default"


def _named(document: dict[str, Any], section: str, field: str, name: str, path: Path) -> dict[str, Any]:
    for entry in document.get(section) or []:
        if isinstance(entry, dict) and entry.get("name") == name:
            return entry.get(field) or {}
    raise BadRequest(f"the kubeconfig {path} has no {field} named {name!r}")


def _build(cluster: dict[str, Any], user: dict[str, Any], namespace: str, base: Path) -> KubeConfig:
    server = cluster.get("server", "")
    if not server:
        raise BadRequest("the kubeconfig's cluster has no server")
    token_file = user.get("tokenFile")
    return KubeConfig(
        server=server.rstrip("/"),
        namespace=namespace,
        ca_pem=_pem(cluster, "certificate-authority", base) or None,
        tls_server_name=cluster.get("tls-server-name", ""),
        insecure_skip_tls_verify=bool(cluster.get("insecure-skip-tls-verify")),
        token=user.get("token", ""),
        token_file=base / token_file if token_file else None,
        client_certificate_pem=_pem(user, "client-certificate", base),
        client_key_pem=_pem(user, "client-key", base),
    )


def _pem(section: dict[str, Any], field: str, base: Path) -> str:
    """Return PEM text given inline (base64 `-data`) or as a file relative to the kubeconfig."""
    try:
        data = section.get(f"{field}-data")
        if data:
            return base64.b64decode(data, validate=True).decode()
        if name := section.get(field):
            return (base / str(name)).read_text()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise BadRequest(f"the kubeconfig's {field}-data is not base64 of PEM text") from error
    except OSError as error:
        raise Unavailable(f"the kubeconfig's {field} cannot be read: {error}") from error
    return ""
