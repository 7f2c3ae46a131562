"""Servers, clients and certificates for the tests of the embedded API server."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from drtp_api.kube import (
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    HttpKube,
    Kube,
    KubeConfig,
    KubeError,
    NotFound,
    load_kubeconfig,
)
from drtp_controller.apiserver import Api, EmbeddedApiServer, LocalKube, Role, Store, User
from drtp_controller.apiserver.preloads import preloaded_documents

TOKENS = {
    "admin-token": User("admin", Role.ADMIN),
    "controller-token": User("controller", Role.CONTROLLER),
    "edge-token": User("edge-1", Role.EDGE),
    "user-token": User("alice", Role.USER),
    "reader-token": User("bob", Role.READ_ONLY),
}
SECONDS = 30


@attrs.frozen
class Certificate:
    certificate: Path
    key: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> Certificate:
    directory = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "drtp test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = Certificate(directory / "cert.pem", directory / "key.pem")
    files.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def make_server(directory: Path, certificate: Certificate | None = None, **options: Any) -> EmbeddedApiServer:
    return EmbeddedApiServer(
        directory,
        tls_cert=certificate.certificate if certificate else None,
        tls_key=certificate.key if certificate else None,
        tokens=TOKENS,
        **options,
    )


def http_client(
    server: EmbeddedApiServer, token: str = "admin-token", certificate: Certificate | None = None
) -> HttpKube:
    pem = certificate.certificate.read_text() if certificate else None
    return HttpKube(KubeConfig(server.url, token=token, ca_pem=pem), field_manager="test")


@attrs.frozen
class Embedded:
    """How to make servers and clients."""

    make_server: Callable[..., EmbeddedApiServer]
    http_client: Callable[..., HttpKube]
    tokens: dict[str, User]


@pytest.fixture
def embedded() -> Embedded:
    return Embedded(make_server, http_client, TOKENS)


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store.sqlite")
    yield made
    made.close()


@pytest.fixture
def api(store):
    made = Api(store)
    made.preload(preloaded_documents())
    return made


@attrs.frozen
class Scene:
    """A client, and a namespace of its own."""

    kube: Kube
    namespace: str
    name: str
    """local, http or cluster"""

    async def eventually(self, check: Callable[[], Awaitable[bool]]) -> None:
        """Wait for what a real cluster does in its own time; on ours it has happened already."""
        async with asyncio.timeout(SECONDS):
            while not await check():
                assert self.name == "cluster", "the embedded server does this within the request"
                await asyncio.sleep(0.2)


@asynccontextmanager
async def _open(kind: str, directory: Path, certificate: Certificate) -> AsyncIterator[Kube]:
    if kind == "cluster":
        async with HttpKube(load_kubeconfig(Path(os.environ["DRTP_TEST_KUBECONFIG"])), field_manager="test") as kube:
            yield kube
        return
    if kind == "local":
        directory.mkdir()
        with closing(Store(directory / "store.sqlite")) as store:
            api = Api(store)
            api.preload(preloaded_documents())
            yield LocalKube(api, user=TOKENS["admin-token"], field_manager="test")
        return
    async with (
        make_server(directory, certificate) as server,
        http_client(server, certificate=certificate) as kube,
    ):
        yield kube


IMPLEMENTATIONS = ["local", "http", *(["cluster"] if os.environ.get("DRTP_TEST_KUBECONFIG") else [])]


@pytest.fixture(params=IMPLEMENTATIONS)
def conform(request, tmp_path, certificate):
    """Run a test body against one implementation, in a namespace of its own."""

    def run(body: Callable[[Scene], Awaitable[None]]) -> None:
        async def main() -> None:
            async with _open(request.param, tmp_path / "state", certificate) as kube, asyncio.timeout(SECONDS):
                namespace = f"t-{uuid.uuid4().hex[:10]}"
                await kube.create(NAMESPACES, {"metadata": {"name": namespace}})
                if request.param == "cluster":
                    await _install_definitions(kube)
                try:
                    await body(Scene(kube, namespace, request.param))
                finally:
                    await kube.delete(NAMESPACES, namespace)

        asyncio.run(main())

    return run


async def _install_definitions(kube: Kube) -> None:
    for document in preloaded_documents():
        try:
            await kube.get(CUSTOM_RESOURCE_DEFINITIONS, document["metadata"]["name"])
        except NotFound:
            try:
                await kube.create(CUSTOM_RESOURCE_DEFINITIONS, document)
            except KubeError as error:
                pytest.fail(f"the cluster refuses our definition: {error}")
