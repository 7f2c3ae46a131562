"""The contracts of the plugin hooks as abstract test classes.

Rules:
- Inherit one in a class named ``Test...`` and implement its abstract methods; pytest finds the tests.
- A suite asks only what the hook's Protocol promises, and asks it of the plugin itself.
"""

from __future__ import annotations

from drtp_testkit.contracts.acl import AclContract, NetworkListContract
from drtp_testkit.contracts.gateway import GatewayContract
from drtp_testkit.contracts.picker import PickerContract
from drtp_testkit.contracts.transport import TransportContract

__all__ = ["AclContract", "GatewayContract", "NetworkListContract", "PickerContract", "TransportContract"]
