"""A recorded session: what each end of a busy connection sent, in the portions between which it had to wait."""

import pytest

from drtp_protocol import events as ev
from drtp_protocol.errors import ErrorCode
from drtp_protocol.frames import Extension, Ping, Report, serialize
from drtp_protocol.handshake import Binding, Welcome, psk_auth, verify_psk
from drtp_protocol.limits import Limits, Tuning
from drtp_protocol.metadata import Address, OpenMetadata, Protocol
from drtp_protocol.status import Role
from drtp_protocol.strategies import pattern
from drtp_protocol.testing import KEY, KEY_ID, SERVICE, Pair, other

LIMITS = Limits(base_window=400, max_frame=150, max_streams=8, max_pending_opens=4, max_datagram=60)
TUNING = Tuning(frame_floor=1, window_floor=1)
RICH = OpenMetadata(
    service=SERVICE, source=Address.from_host("192.0.2.1", 7), sni="shop.example", alpn=(b"h2",), edge_conn_id=b"i" * 16
)


class Session:
    """The portions of each end: two of the handshake, its first OPENs, and the rest."""

    def __init__(self, portions, pair_options):
        self.portions = portions
        self.pair_options = pair_options

    def __repr__(self):
        return "session"

    def fresh(self, receiver):
        """Return a connection of that role with its streams and the other's open, ready for the last portion."""
        connection = self.make(receiver)
        for portion in self.portions[other(receiver)][:2]:
            connection.receive_data(portion, now=0.0)
            self.greet(connection)
        assert connection.established
        connection.data_to_send(now=0.0)
        list(connection.events())
        for metadata in (*OPENED, RICH):
            connection.open_stream(metadata, now=0.0)
        connection.receive_data(self.portions[other(receiver)][2], now=0.0)
        for event in connection.events():
            connection.accept_stream(event.stream_id)
        connection.data_to_send(now=0.0)
        return connection

    def make(self, role):
        return Pair(**self.pair_options).ends[role]

    def greet(self, connection):
        """Answer the handshake's events; return all of them."""
        seen = []
        for event in connection.events():
            seen.append(event)
            if isinstance(event, ev.AuthRequired):
                auth, expected = psk_auth(KEY_ID, KEY, event.transcript)
                connection.authenticate(auth, expected_edge_proof=expected, now=0.0)
            if isinstance(event, ev.AuthReceived):
                proof = verify_psk(KEY, event.auth, event.transcript)
                connection.accept(
                    Welcome(session_id=bytes(range(16)), bindings=(Binding(SERVICE),), edge_proof=proof), now=0.0
                )
        return seen


PLAIN = OpenMetadata(service=SERVICE)
OPENED = (RICH, PLAIN, OpenMetadata(service=SERVICE, protocol=Protocol.UDP, initial=b"first"))


@pytest.fixture(scope="session")
def session():
    """Record both ends: each opens three streams and a flow, accepts, sends, ends, resets, pings, goes away."""
    options = {"limits": LIMITS, "tuning": TUNING}
    pair = Pair(**options)
    portions = {role: [] for role in Role}
    for _ in range(2):
        for role in Role:
            pair.transmit(role)
            if pair.wire[role]:
                portions[role].append(bytes(pair.wire[role]))
            for event in pair.deliver(role):
                pair.answer(other(role), event)
    pair.settle()
    sent = {role: bytearray() for role in Role}

    def flush():
        for role, connection in pair.ends.items():
            data = connection.data_to_send(now=0.0)
            sent[role] += data
            pair.wire[role] += data
        for role in Role:
            for event in pair.deliver(role):
                if isinstance(event, ev.DataReceived):
                    pair.ends[other(role)].acknowledge(event.stream_id, len(event.data), now=0.0)

    opened = {role: [pair.ends[role].open_stream(metadata, now=0.0) for metadata in OPENED] for role in Role}
    flush()
    for role, connection in pair.ends.items():
        portions[role].append(bytes(sent[role]))
        sent[role].clear()
        for stream_id in opened[other(role)]:
            connection.accept_stream(stream_id)
    flush()
    for role, connection in pair.ends.items():
        first, second, flow = opened[other(role)]
        mine = opened[role][0]
        connection.send_data(first, pattern(300))
        connection.send_data(second, pattern(40, 9), fin=True)
        connection.send_data(mine, pattern(251, 77), fin=True)
        connection.send_datagram(flow, b"datagram", now=0.0)
        connection.send_datagram(flow, b"", now=0.0)
        connection.open_stream(RICH, now=0.0)
    flush()
    extension = serialize(Extension(0x41, 3, b"later"))
    for role, connection in pair.ends.items():
        if role is Role.AGENT:
            connection.report(Report(origin_rtt_us=1500, healthy=True), now=0.0)
        sent[role] += extension
        connection.reset_stream(opened[role][1], ErrorCode.CANCEL, 0, "no longer wanted")
        connection.reset_stream(opened[role][2], ErrorCode.NO_ERROR)
        connection.send_data(opened[other(role)][0], pattern(5, 300), fin=True)
    flush()
    for role, connection in pair.ends.items():
        sent[role] += serialize(Ping(b"12345678"))
        connection.go_away(drain=5.0, alternates=("edge-2.test:443",), reason="enough", now=0.0)
        sent[role] += connection.data_to_send(now=0.0)
    for role in Role:
        portions[role].append(bytes(sent[role]))
    return Session(portions=portions, pair_options=options)
