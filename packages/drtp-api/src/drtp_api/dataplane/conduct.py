"""What a tunnel and its handler owe each other: the handler's calls, and how a tunnel's end is told.

Rules:

- Calls to a handler are synchronous, happen inside the engine's turn, and may call the tunnel back.
- Nothing here moves bytes.

What must not live here: behaviour of the tunnel.
"""

from typing import TYPE_CHECKING, Protocol

import attrs

from drtp_api.dataplane.splice import StreamSummary
from drtp_protocol import ConnectionTerminated, ErrorCode, Event

if TYPE_CHECKING:
    from drtp_api.dataplane.tunnel import Tunnel

__all__ = ["Held", "TunnelHandler", "TunnelLost", "ending"]


@attrs.define
class Held:
    """What came for a stream that has no socket yet, and whether it was accepted nevertheless."""

    data: bytearray = attrs.field(factory=bytearray)
    fin: bool = False
    accepted: bool = False


class TunnelLost(ConnectionError):  # noqa: N818 - what happened, as in the summary
    """The tunnel ended other than by agreement.

    Attributes:
        code: The wire's code nearest to it.
    """

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}" if reason else code.name)
        self.code = code


def ending(event: ConnectionTerminated) -> Exception | None:
    """Return why a connection ended, None if both ends meant it."""
    if event.error is not None:
        return event.error
    return None if event.code is ErrorCode.NO_ERROR else TunnelLost(event.code, event.reason)


class TunnelHandler(Protocol):
    """Whoever decides what happens on a tunnel. All calls are synchronous, inside the engine's turn.

    A handler may call any method of the tunnel from here. What it raises is reported to the loop's exception handler
    and costs the stream concerned, or the tunnel where no stream is.
    """

    def on_tunnel_event(self, tunnel: "Tunnel", event: Event) -> None:
        """Learn of an event of the core that the tunnel does not deal with by itself.

        These are all but DataReceived, StreamClosed and StreamWritable. StreamReset comes here for streams that are
        not attached, and for attached ones that were not accepted yet: :meth:`Tunnel.detach` saves the socket then,
        otherwise it is reset afterwards. StreamOpened is answered by :meth:`Tunnel.attach` or :meth:`Tunnel.reset`, now
        or later; bytes that arrive before are held.
        """

    def on_connect_failed(self, tunnel: "Tunnel", stream_id: int, error: OSError) -> None:
        """Learn that a connecting socket did not connect; answer with :meth:`Tunnel.reset`.

        If the stream is still attached afterwards it is reset with DIAL_FAILED.
        """

    def on_stream_closed(self, tunnel: "Tunnel", stream_id: int, summary: StreamSummary) -> None:
        """Learn that an attached stream is over and its socket closed."""

    def on_tunnel_closed(self, tunnel: "Tunnel", error: Exception | None) -> None:
        """Learn that the tunnel is over, once; None after an orderly end.

        Streams that were not accepted may be detached from here (:meth:`Tunnel.unaccepted`). All others are reset after
        this returns, each with its :meth:`on_stream_closed`; only those that ended well on both sides and whose socket
        has yet to take the rest live on, and report later.
        """
