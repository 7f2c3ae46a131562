"""The client of the registration API.

Rules:
- Every failure is a coded error: the server's own where it gives one, DRTP-2002 where nothing answers.
- A proxy from the environment is never used for loopback; redirects are never followed (they would carry the token).
- An agent shows its newest grant to look at its own connection, so a user's token may expire meanwhile.

What must not live here: when to ask again (the supervisor decides), and any state but the connection pool.
"""

from __future__ import annotations

import ipaddress
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx2

from drtp_agent.state import Identity
from drtp_agent.tokens import TokenSource
from drtp_api.errors import CATALOGUE, DrtpError
from drtp_api.grants import b64url, sign
from drtp_api.registration import (
    ConnectionGrants,
    ConnectionView,
    CreateServiceRequest,
    CreateServiceResponse,
    ErrorBody,
    GrantRequest,
    PublishRequest,
    RegisterRequest,
    RegisterResponse,
    RotateRequest,
    SecretRevocation,
    ServiceList,
    ServiceSecret,
    ServiceView,
)
from drtp_api.wire import from_wire, to_wire

__all__ = ["MAX_SKEW", "VERSION", "ControlPlane", "check_clock", "is_loopback"]

T = TypeVar("T")

VERSION: Final = "0.1.0"
TIMEOUT: Final = 10.0
"""Seconds for an answer; the API answers from memory."""
MAX_SKEW: Final = 45.0
"""Seconds that our clock may be off: renewals that are signed at more than a minute's distance are refused."""
EVENTS_TIMEOUT: Final = 45.0
"""Seconds of silence on the event stream that mean it is dead: three of the server's keepalives."""


def is_loopback(url: str) -> bool:
    """Return whether the URL's host is this machine, judged by its text."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ControlPlane:
    """The registration API at one URL.

    Args:
        url: Its base, without ``/v1alpha1``.
        tokens: For calls of a signed-in user; ``None`` where only a service's secret is known.
        ca_file: PEM roots to trust instead of the system's.
        headers: Sent with every request, such as the project.
        clock: Seconds since the Unix epoch.
    """

    def __init__(
        self,
        url: str,
        *,
        tokens: TokenSource | None = None,
        ca_file: str | None = None,
        headers: dict[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._date: str | None = None
        self.url = url.rstrip("/")
        self._tokens = tokens
        self._client = httpx2.AsyncClient(
            base_url=self.url + "/",
            verify=_trust(self.url, ca_file),
            trust_env=not is_loopback(self.url),
            timeout=TIMEOUT,
            headers={"User-Agent": f"datumctl-serve/{VERSION} datumctl-plugin/1", **(headers or {})},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    # agents

    async def register(self, request: RegisterRequest) -> RegisterResponse:
        """Register an agent.

        Raises:
            DrtpError: the API's refusal, or DRTP-2002, or DRTP-2004: with our clock, grants could not be renewed.
        """
        answer = await self._user("POST", "v1alpha1/connections", request, token_needed=request.secret is None)
        check_clock(self._date, self._clock())
        return from_wire(answer, RegisterResponse)

    async def renew(self, namespace: str, name: str, identity: Identity, *, unix_time: float) -> ConnectionGrants:
        """Renew the grants of a connection with the agent's key.

        Raises:
            DrtpError: DRTP-2010 there is no such connection (any more), or another refusal, or DRTP-2002.
        """
        seconds = int(unix_time)
        proof = sign(identity.key, f"drtp grant renewal\0{namespace}/{name}\0{seconds}".encode())
        request = GrantRequest(issued_at=seconds, proof=b64url(proof))
        return from_wire(await self._call("POST", _connection(namespace, name, "/grants"), request), ConnectionGrants)

    async def view(self, namespace: str, name: str, grant: str) -> ConnectionView:
        """Return the connection as it is now.

        Raises:
            DrtpError: as :meth:`renew`.
        """
        return from_wire(await self._call("GET", _connection(namespace, name), bearer=grant), ConnectionView)

    async def events(self, namespace: str, name: str, grant: str) -> AsyncIterator[ConnectionView]:
        """Yield the connection now and whenever it changes, until the stream ends.

        Raises:
            DrtpError: DRTP-2010 the connection was revoked; DRTP-2002 the stream broke or there is none.
        """
        timeout = httpx2.Timeout(TIMEOUT, read=EVENTS_TIMEOUT)
        headers = {"Authorization": f"Bearer {grant}"}
        url = _connection(namespace, name, "/events")
        try:
            async with self._client.sse(url, headers=headers, timeout=timeout) as source:
                if source.response.status_code != 200:
                    await source.response.aread()
                    raise _refusal(source.response)
                async for event in source:
                    if event.event == "connection":
                        yield from_wire(json.loads(event.data), ConnectionView)
                    elif event.event == "error":
                        raise _error_of(json.loads(event.data))
        except (httpx2.HTTPError, ValueError) as error:
            raise self._no_answer(error) from error

    async def revoke(self, namespace: str, name: str, grant: str) -> None:
        """Delete the connection.

        Raises:
            DrtpError: as :meth:`renew`.
        """
        await self._call("DELETE", _connection(namespace, name), bearer=grant)

    # users

    async def create_service(self, request: CreateServiceRequest) -> CreateServiceResponse:
        """Create a service with a one-time secret.

        Raises:
            DrtpError: the API's refusal, or DRTP-2002.
        """
        return from_wire(await self._user("POST", "v1alpha1/services", request), CreateServiceResponse)

    async def publish(
        self, namespace: str, name: str, *, public: bool, change: PublishRequest | None = None
    ) -> ServiceView:
        """Open a service to the world, with what is to change on the way, or close it.

        Raises:
            DrtpError: the API's refusal, or DRTP-2002.
        """
        url = _service(namespace, name, "/publish" if public else "/unpublish")
        return from_wire(await self._user("POST", url, change), ServiceView)

    async def rotate(self, namespace: str, name: str, request: RotateRequest) -> ServiceSecret:
        """Issue a new secret for a service.

        Raises:
            DrtpError: the API's refusal, or DRTP-2002.
        """
        return from_wire(await self._user("POST", _service(namespace, name, "/secret"), request), ServiceSecret)

    async def revoke_secret(self, namespace: str, name: str) -> SecretRevocation:
        """Revoke the secrets of a service and end the agents that enrolled with one.

        Raises:
            DrtpError: the API's refusal, or DRTP-2002.
        """
        return from_wire(await self._user("DELETE", _service(namespace, name, "/secret")), SecretRevocation)

    async def services(self, namespace: str) -> tuple[ServiceView, ...]:
        """Return the services of a namespace.

        Raises:
            DrtpError: the API's refusal, or DRTP-2002.
        """
        answer = await self._user("GET", f"v1alpha1/services?namespace={quote(namespace, safe='')}")
        return from_wire(answer, ServiceList).services

    # parts

    async def _user(self, method: str, url: str, body: Any = None, *, token_needed: bool = True) -> Any:
        """Call with the user's token; a refused token is asked for anew, once."""
        if not token_needed or self._tokens is None:
            if token_needed:
                raise DrtpError("DRTP-2003", "this needs a signed-in user, and there is no token")
            return await self._call(method, url, body)
        try:
            return await self._call(method, url, body, bearer=await self._tokens.token())
        except DrtpError as error:
            if error.code != "DRTP-2003":
                raise
            self._tokens.forget()
            return await self._call(method, url, body, bearer=await self._tokens.token())

    async def _call(self, method: str, url: str, body: Any = None, *, bearer: str | None = None) -> Any:
        headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        try:
            response = await self._client.request(
                method, url, json=None if body is None else to_wire(body), headers=headers
            )
        except httpx2.HTTPError as error:
            raise self._no_answer(error) from error
        self._date = response.headers.get("date")
        if not response.is_success:
            raise _refusal(response)
        if response.status_code == 204 or not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise self._no_answer(error) from error

    def _no_answer(self, error: Exception) -> DrtpError:
        words = str(error) or type(error).__name__
        if isinstance(error, ValueError):
            return DrtpError("DRTP-2002", f"{self.url} does not answer as a registration API: {words}")
        return DrtpError("DRTP-2002", f"the control plane at {self.url} does not answer: {words}")


def check_clock(date: str | None, now: float) -> None:
    """Prove that our clock agrees with the ``Date`` of an answer; one that cannot be read proves nothing.

    Raises:
        DrtpError: DRTP-2004; they differ by more than :data:`MAX_SKEW`.
    """
    try:
        theirs = parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError):
        return
    if abs(now - theirs) > MAX_SKEW:
        ahead = "ahead of" if now > theirs else "behind"
        raise DrtpError("DRTP-2004", f"this machine's clock is {abs(now - theirs):.0f} s {ahead} the control plane's")


def _trust(url: str, ca_file: str | None) -> ssl.SSLContext | bool:
    if not url.startswith("https:"):
        # No TLS is spoken; loading the system's roots would cost more than the whole request.
        return False
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cadata=Path(ca_file).read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            raise DrtpError("DRTP-1007", f"cannot read the roots in {ca_file}: {error}") from error
    return context


def _connection(namespace: str, name: str, rest: str = "") -> str:
    return f"v1alpha1/connections/{quote(name, safe='')}{rest}?namespace={quote(namespace, safe='')}"


def _service(namespace: str, name: str, rest: str) -> str:
    return f"v1alpha1/services/{quote(name, safe='')}{rest}?namespace={quote(namespace, safe='')}"


def _refusal(response: httpx2.Response) -> DrtpError:
    try:
        return _error_of(response.json())
    except ValueError:
        code = {401: "DRTP-2003", 403: "DRTP-2008"}.get(response.status_code, "DRTP-2030")
        return DrtpError(code, f"{response.request.url} answered {response.status_code} {response.reason_phrase}")


def _error_of(data: Any) -> DrtpError:
    """Return the server's error; a code of a later version keeps its words under the nearest code of ours."""
    try:
        body = from_wire(data, ErrorBody)
    except DrtpError as error:
        raise ValueError(error.message) from error
    if body.code in CATALOGUE:
        return DrtpError(body.code, body.message, hint=body.hint)
    return DrtpError("DRTP-2030", f"{body.code}: {body.message}", hint=body.hint)
