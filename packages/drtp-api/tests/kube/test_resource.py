from __future__ import annotations

import pytest

from drtp_api.kube import DRTP_SERVERS, DRTP_SERVICES, SECRETS, Key, Resource, key_of


@pytest.mark.parametrize(
    ("resource", "arguments", "path"),
    [
        (SECRETS, ("default",), "/api/v1/namespaces/default/secrets"),
        (SECRETS, (None,), "/api/v1/secrets"),
        (SECRETS, ("a", "b"), "/api/v1/namespaces/a/secrets/b"),
        (
            DRTP_SERVICES,
            ("a", "b", "status"),
            "/apis/drtp.datumapis.com/v1alpha1/namespaces/a/drtpservices/b/status",
        ),
        (DRTP_SERVERS, ("ignored", "b"), "/apis/drtp.datumapis.com/v1alpha1/drtpservers/b"),
    ],
)
def test_a_resource_knows_its_paths(resource: Resource, arguments: tuple[str, ...], path: str):
    assert resource.path(*arguments) == path


def test_keys_of_cluster_scoped_objects_have_no_namespace():
    assert key_of({"metadata": {"name": "x"}}) == Key("", "x")
    assert str(Key("", "x")) == "x"
    assert str(Key("a", "x")) == "a/x"
