"""The words that fields of our kinds may have as their value: one enumeration for each such field.

Rules: the value is the word on the wire; a word is never renamed. What must not enter: anything but words.
"""

from __future__ import annotations

import enum

__all__ = ["AclMode", "Action", "ClientStatus", "EnforceAt", "Nature", "ProgrammingStatus", "Protocol", "Role"]


class Protocol(enum.Enum):
    """What a service speaks to its visitors."""

    TCP = "TCP"
    UDP = "UDP"
    HTTP = "HTTP"


class Role(enum.Enum):
    """The place of a server in a connection, in order of preference."""

    PRIMARY = "Primary"
    SECONDARY = "Secondary"
    TERTIARY = "Tertiary"


class ProgrammingStatus(enum.Enum):
    """How far the gateway is programmed for one server of a connection."""

    INIT = "Init"
    PROGRAMMED = "Programmed"
    FAILED = "Failed"


class ClientStatus(enum.Enum):
    """Whether the agent's tunnel to one server of a connection is up."""

    WAITING = "Waiting"
    CONNECTED = "Connected"
    DISCONNECTED = "Disconnected"


class Nature(enum.Enum):
    """Who may find and reach an exposed service."""

    PUBLIC = "Public"
    PUBLIC_OPTIMIZED = "PublicOptimized"
    RESTRICTED = "Restricted"
    PRIVATE = "Private"


class Action(enum.Enum):
    """What a rule of an access control list does with a visitor."""

    ALLOW = "Allow"
    DENY = "Deny"


class AclMode(enum.Enum):
    """Whether an access control list denies, only counts, or sleeps."""

    OBSERVE = "Observe"
    ENFORCE = "Enforce"
    DISABLED = "Disabled"


class EnforceAt(enum.Enum):
    """A place where an access control list holds."""

    GATEWAY = "Gateway"
    SERVER = "Server"
