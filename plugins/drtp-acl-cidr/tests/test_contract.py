"""The backend keeps the contract of ACL backends and of those that read DRTP's lists."""

from drtp_acl_cidr.backend import CidrBackend, CidrOptions
from drtp_api.acl import AclBackend
from drtp_testkit.contracts import NetworkListContract


class TestCidrBackend(NetworkListContract):
    def make_backend(self) -> AclBackend:
        return CidrBackend(CidrOptions())
