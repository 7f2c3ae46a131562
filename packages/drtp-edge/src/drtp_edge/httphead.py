"""The head of a visitor's first HTTP request: read it, find its host, answer what cannot be routed. No I/O.

Rules:
- The bytes are looked at and never changed: the service gets them as they came.
- Only the first request decides; later ones on the same connection go to the same service.

What must not live here: sockets, and what the host names mean.
"""

from __future__ import annotations

from http import HTTPStatus

import attrs
import h11

__all__ = ["HeadError", "HeadReader", "answer", "host_name"]


class HeadError(Exception):
    """The request cannot be routed; ``status`` and ``text`` are the answer for the visitor."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def host_name(value: str) -> str:
    """Return the host of a Host header in lower case, without port and final dot; IPv6 literals keep brackets."""
    value = value.strip().lower()
    if value.startswith("["):
        return value.partition("]")[0] + "]"
    return value.partition(":")[0].rstrip(".")


@attrs.define
class HeadReader:
    """Collects a request's head.

    Args:
        limit: Bytes of the longest head.
    """

    limit: int
    raw: bytearray = attrs.field(factory=bytearray)
    _connection: h11.Connection = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make the parser."""
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self.limit)

    def feed(self, data: bytes) -> str | None:
        """Take bytes and return the host asked for, None while the head is incomplete.

        Raises:
            HeadError: it is not HTTP/1, is too long, or names no host.
        """
        self.raw += data
        try:
            self._connection.receive_data(data)
            event = self._connection.next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE or len(self.raw) > self.limit:
                raise self._too_large() from error
            raise HeadError(HTTPStatus.BAD_REQUEST, "This port speaks HTTP/1.1 in the clear.") from error
        if not isinstance(event, h11.Request):
            return None
        # h11 minds its limit while the head is incomplete; one that came whole may be longer.
        if len(self.raw) - len(self._connection.trailing_data[0]) > self.limit:
            raise self._too_large()
        host = next((value for name, value in event.headers if name == b"host"), b"").decode("latin-1")
        if not host:
            raise HeadError(HTTPStatus.BAD_REQUEST, "The request names no host.")
        return host_name(host)

    def _too_large(self) -> HeadError:
        return HeadError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"The request's head exceeds {self.limit} bytes.")


def answer(status: HTTPStatus, text: str) -> bytes:
    """Return a whole response that ends the connection."""
    body = f"{status.value} {status.phrase}: {text}\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "content-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\n"
        "cache-control: no-store\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body
