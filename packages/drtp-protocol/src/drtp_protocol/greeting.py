"""The handshake and the renewal of the lease: who answers what, and what must hold.

Rules: the core neither signs nor verifies a credential, it hands out the transcript and waits; what it does check is
that both ends keep to what they announced, and that the edge's proof is the expected one (constant time). Before the
connection is established a failure says one code and no reason to the peer.
What must not be here: the order of messages (the table), their encoding (handshake.py).
"""

from __future__ import annotations

import hmac

import attrs

from .calm import COST_EXTENSION
from .errors import ErrorCode, InvalidMetadata, LocalProtocolError, RemoteProtocolError, WrongState
from .events import AuthReceived, AuthRequired, ConnectionEstablished, LeaseRenewed
from .frames import serialize
from .handshake import PREFACE, VERSION, Auth, AuthMethod, Challenge, Hello, Transcript, Welcome
from .limits import Limits
from .outgoing import Outgoing
from .states import ConnectionInput, ConnectionState

__all__ = ["Greeting"]


class Greeting(Outgoing):
    """The calls and frames by which two ends come to trust each other."""

    __slots__ = ()

    # -- the agent -----------------------------------------------------------------------------------------------

    def _say_hello(self) -> None:
        """Send the preface and HELLO: an agent speaks first."""
        assert self._hello is not None
        self._hello_bytes = PREFACE + serialize(self._hello)
        self._move(ConnectionInput.SEND_PREFACE)
        self._move(ConnectionInput.SEND_HELLO)
        self._control += self._hello_bytes

    def _on_challenge(self, frame: Challenge, raw: bytes) -> None:
        assert self._hello is not None
        renewal = self.state is ConnectionState.OPEN
        if self.state is ConnectionState.DRAINING:
            return
        if frame.version not in self._hello.versions:
            raise RemoteProtocolError(
                f"the edge chose version {frame.version}, which was not offered", ErrorCode.VERSION
            )
        if renewal:
            assert self._challenge is not None
            if frame.limits != self._challenge.limits or frame.version != self._challenge.version:
                raise RemoteProtocolError("CHALLENGE to renew changes limits or version")
            if frame.nonce == self._challenge.nonce:
                raise RemoteProtocolError("CHALLENGE to renew repeats its nonce")
        else:
            self._check_floors(frame.limits)
        self._move(ConnectionInput.RECV_CHALLENGE)
        self._challenge = frame
        session_id = self._welcome.session_id if self._welcome is not None else b""
        self._transcript = Transcript(hello=self._hello_bytes, challenge=raw, session_id=session_id)
        self._events.append(AuthRequired(frame, self._transcript, renewal))

    def authenticate(self, auth: Auth, *, expected_edge_proof: bytes | None = None, now: float) -> None:
        """Answer AuthRequired.

        Args:
            auth: The proof. :func:`drtp_protocol.psk_auth` makes it for PSK, with the edge proof to expect.
            expected_edge_proof: PSK only, and required there: what WELCOME must carry. An edge that does not know the
                key cannot, and the connection ends with AUTH_FAILED.
            now: Seconds.

        Raises:
            WrongState: no challenge is unanswered.
            LocalProtocolError: method or binding were not offered, credential or proof do not fit the method, or the
                expected proof is missing or superfluous.
        """
        self._require(ConnectionInput.SEND_AUTH, "authenticate")
        challenge = self._challenge
        assert challenge is not None
        if auth.method not in challenge.methods or auth.binding_type not in challenge.binding_types:
            raise LocalProtocolError(
                f"AUTH by {auth.method.name} with binding {auth.binding_type.name}: the edge offers methods "
                f"{[int(m) for m in challenge.methods]}, bindings {[int(b) for b in challenge.binding_types]}"
            )
        if not auth.well_formed:
            raise LocalProtocolError(f"AUTH by {auth.method.name}: credential, proof or key do not fit the method")
        if (auth.method is AuthMethod.PSK) is (expected_edge_proof is None):
            raise LocalProtocolError("AUTH: an edge proof is expected with PSK, and only there")
        data = serialize(auth)
        self._now = now
        self._move(ConnectionInput.SEND_AUTH)
        self._edge_proof = expected_edge_proof
        self._control += data

    def _on_welcome(self, frame: Welcome) -> None:
        if self.state is ConnectionState.DRAINING:
            return
        assert self._challenge is not None
        renewal = self.state is ConnectionState.REWELCOME
        expected = self._edge_proof
        proof = frame.edge_proof
        if (expected is None) is not (proof is None) or not hmac.compare_digest(expected or b"", proof or b""):
            raise RemoteProtocolError("the edge did not prove that it holds the key", ErrorCode.AUTH_FAILED)
        if frame.limits != self._limits.intersect(self._challenge.limits):
            raise RemoteProtocolError("WELCOME's limits are not the smaller of both ends'")
        if renewal and self._welcome is not None and frame.session_id != self._welcome.session_id:
            raise RemoteProtocolError("WELCOME to renew changes the session id")
        self._edge_proof = None
        self._move(ConnectionInput.RECV_WELCOME)
        self._established_by(frame, renewal=renewal)

    # -- the edge ------------------------------------------------------------------------------------------------

    def _on_hello(self, frame: Hello, raw: bytes) -> None:
        assert self._challenge is not None
        self._check_floors(frame.limits)
        if VERSION not in frame.versions:
            raise RemoteProtocolError(f"the agent speaks versions {list(frame.versions)}", ErrorCode.VERSION)
        self._move(ConnectionInput.RECV_HELLO)
        self._hello = frame
        self._hello_bytes = PREFACE + raw
        self._send_challenge(self._challenge)

    def _send_challenge(self, challenge: Challenge) -> None:
        raw = serialize(challenge)
        self._move(ConnectionInput.SEND_CHALLENGE)
        self._challenge = challenge
        session_id = self._welcome.session_id if self._welcome is not None else b""
        self._transcript = Transcript(hello=self._hello_bytes, challenge=raw, session_id=session_id)
        self._control += raw

    def _on_auth(self, frame: Auth) -> None:
        if self.state is ConnectionState.DRAINING:
            self._charge(COST_EXTENSION, "AUTH while draining")
            return
        challenge, hello, transcript = self._challenge, self._hello, self._transcript
        assert challenge is not None
        assert hello is not None
        assert transcript is not None
        renewal = self.state is ConnectionState.REAUTH
        offered = frame.method in challenge.methods and frame.binding_type in challenge.binding_types
        if not offered or not frame.well_formed:
            raise RemoteProtocolError("AUTH: method or binding not offered, or malformed", ErrorCode.AUTH_FAILED)
        self._move(ConnectionInput.RECV_AUTH)
        self._edge_proof = b"" if frame.method is AuthMethod.PSK else None
        self._events.append(AuthReceived(frame, hello, transcript, renewal))

    def accept(self, welcome: Welcome, *, now: float) -> None:
        """Let the agent in, or renew its lease: answer AuthReceived after the credential was verified.

        Args:
            welcome: `limits` are replaced by those in force; on renewal `session_id` must be the first WELCOME's.
                With PSK `edge_proof` must be what :func:`drtp_protocol.verify_psk` returned.
            now: Seconds.

        Raises:
            WrongState: no AUTH is unanswered.
            LocalProtocolError: the edge proof is missing or superfluous, or the session id changed.
        """
        self._require(ConnectionInput.SEND_WELCOME, "accept")
        assert self._hello is not None
        renewal = self.state is ConnectionState.REWELCOME
        if (self._edge_proof is None) is not (welcome.edge_proof is None):
            raise LocalProtocolError("WELCOME: an edge proof answers PSK, and only that")
        if renewal and self._welcome is not None and welcome.session_id != self._welcome.session_id:
            raise LocalProtocolError("WELCOME: a renewal keeps the session id")
        welcome = attrs.evolve(welcome, limits=self._limits.intersect(self._hello.limits))
        data = serialize(welcome)
        self._now = now
        self._move(ConnectionInput.SEND_WELCOME)
        self._control += data
        self._edge_proof = None
        self._established_by(welcome, renewal=renewal)

    def reject(self, code: ErrorCode = ErrorCode.AUTH_FAILED, *, now: float) -> None:
        """Refuse the agent, or end its connection when it failed to renew: answer AuthReceived.

        The peer learns the code and nothing else; do not choose it by what exactly was wrong.

        Raises:
            WrongState: no AUTH is unanswered.
        """
        self._require(ConnectionInput.SEND_WELCOME, "reject")
        self._now = now
        self._terminate(code, "the agent's proof was rejected")

    def challenge(self, nonce: bytes, *, server_time: int | None = None, now: float) -> None:
        """Demand a new proof before the lease is over (edge); AuthReceived follows.

        Args:
            nonce: 32 fresh random bytes.
            server_time: Microseconds since the epoch; the first challenge's if not given.
            now: Seconds.

        Raises:
            WrongState: not open, or a challenge is unanswered.
            InvalidMetadata: the nonce is not fresh or not 32 bytes.
        """
        if self.state is not ConnectionState.OPEN or self._calm is None:
            raise WrongState(f"cannot challenge: the connection is in state {self.state.value}")
        assert self._challenge is not None
        if nonce == self._challenge.nonce:
            raise InvalidMetadata("CHALLENGE: the nonce was used before")
        time = self._challenge.server_time if server_time is None else server_time
        challenge = attrs.evolve(self._challenge, nonce=nonce, server_time=time)
        self._now = now
        self._send_challenge(challenge)

    # -- both ----------------------------------------------------------------------------------------------------

    def _check_floors(self, limits: Limits) -> None:
        """Refuse a peer that would make this end send dust."""
        tuning = self.tuning
        if limits.max_frame < tuning.frame_floor or limits.base_window < tuning.window_floor:
            raise RemoteProtocolError(
                f"frames of {limits.max_frame} and windows of {limits.base_window} bytes, expected at least "
                f"{tuning.frame_floor} and {tuning.window_floor}"
            )

    def _established_by(self, welcome: Welcome, *, renewal: bool) -> None:
        self._establish(welcome, self._now)
        if renewal:
            self._events.append(LeaseRenewed(welcome))
            return
        self.limits = welcome.limits
        self._max_frame = self._rate.largest = welcome.limits.max_frame
        self._rate.frame = min(self._rate.frame, self._max_frame)
        self._events.append(ConnectionEstablished(welcome))
        self.ping(now=self._now)  # the first round-trip time, which auto-tuning waits for
