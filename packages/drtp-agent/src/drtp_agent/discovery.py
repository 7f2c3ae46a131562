"""Which control plane to talk to, and as whom: options, the environment of datumctl, or a running local cloud.

Rules:
- What is said explicitly wins; then datumctl's environment; then a local cloud of this user.
- ``DATUM_ORG`` and ``DATUM_PROJECT`` may be empty: an empty value counts as absent.

What must not live here: any call to the control plane.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import attrs

from drtp_agent.control import ControlPlane
from drtp_agent.tokens import FileToken, HelperToken, StaticToken, TokenSource
from drtp_api.errors import DrtpError
from drtp_api.statedir import read_local, state_directory

__all__ = ["Location", "locate"]


@attrs.frozen(kw_only=True)
class Location:
    """A control plane: its URL, who one is there, and where that was learned from."""

    url: str
    origin: str
    tokens: TokenSource | None = None
    ca_file: str | None = None
    project: str | None = None
    organization: str | None = None
    namespace: str = "default"

    def connect(self) -> ControlPlane:
        """Return a client."""
        headers = {"Datum-Project": self.project, "Datum-Organization": self.organization}
        return ControlPlane(
            self.url,
            tokens=self.tokens,
            ca_file=self.ca_file,
            headers={name: value for name, value in headers.items() if value},
        )


def locate(
    *,
    api_url: str | None = None,
    token_file: str | None = None,
    project: str | None = None,
    organization: str | None = None,
    state_dir: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Location:
    """Find the control plane.

    Args:
        api_url: What ``--api-url`` says.
        token_file: What ``--token-file`` says.
        project: What ``--project`` says; ``DATUM_PROJECT`` by default.
        organization: What ``--org`` says; ``DATUM_ORG`` by default.
        state_dir: Where a local cloud would have left its address.
        environ: The environment; the process's own by default.

    Raises:
        DrtpError: DRTP-2001 there is none; DRTP-1011 the local cloud's file is damaged.
    """
    env = os.environ if environ is None else environ
    project = project or env.get("DATUM_PROJECT") or None
    organization = organization or env.get("DATUM_ORG") or None
    tokens = _tokens(token_file, env)
    explicit = api_url or env.get("DATUM_SERVE_API_URL") or None
    host = env.get("DATUM_API_HOST") or None
    if explicit is not None or host is not None:
        url = _with_scheme(explicit or host or "")
        ca_file = env.get("DATUM_SERVE_CA_FILE") or None
        if tokens is None and ca_file is None:
            # The URL may be that of a local cloud, whose token is then known.
            local = read_local(state_directory(state_dir))
            if local is not None and local.registration_url.rstrip("/") == url.rstrip("/"):
                tokens, ca_file = StaticToken(local.user_token), local.ca_file
        return Location(
            url=url, origin="--api-url" if explicit else "DATUM_API_HOST", tokens=tokens, ca_file=ca_file,
            project=project, organization=organization,
        )  # fmt: skip
    local = read_local(state_directory(state_dir))
    if local is None:
        raise DrtpError("DRTP-2001")
    return Location(
        url=local.registration_url,
        origin=f"the local cloud of process {local.pid}",
        tokens=tokens if token_file else StaticToken(local.user_token),
        ca_file=local.ca_file,
        project=project,
        organization=organization,
    )


def _with_scheme(host: str) -> str:
    return host if "://" in host else f"https://{host}"


def _tokens(token_file: str | None, env: Mapping[str, str]) -> TokenSource | None:
    if path := token_file or env.get("DATUM_SERVE_TOKEN_FILE"):
        return FileToken(Path(path))
    if helper := env.get("DATUM_CREDENTIALS_HELPER"):
        return HelperToken(helper, env.get("DATUM_SESSION") or None)
    return None
