"""Write the golden vectors: `python build_vectors.py` (needs `cryptography` for the grant's signatures).

Rules: like the reader beside it, it imports nothing of `drtp_protocol`: frames are put together from numbers here and
described by the independent reader. All keys and nonces are fixed, so the files never change by themselves.
"""

import base64
import hashlib
import hmac
import importlib.util
import json
import struct
from pathlib import Path

HERE = Path(__file__).resolve().parent
VECTORS = HERE.parent / "vectors"
_spec = importlib.util.spec_from_file_location("independent", HERE / "independent.py")
independent = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(independent)

PREFACE = b"DRTP/1\r\n"
KEY_ID, KEY = b"bench", bytes(range(32))
NONCE_A, NONCE_E, NONCE_AGAIN = b"\xa1" * 32, b"\xe1" * 32, b"\xe2" * 32
INSTANCE, SESSION = bytes(range(0x10, 0x20)), bytes(range(0x50, 0x60))
AGENT_SEED, GRANT_SEED = b"\x0a" * 32, b"\x0b" * 32
CERTIFICATE_HASH = hashlib.sha256(b"stands for the DER of the edge's leaf certificate").digest()
SERVER_TIME = 1_790_000_000_000_000
HIDDEN = 0x7FFF_FFFF


def frame(kind, stream=0, payload=b"", flag=0, length=None):
    size = len(payload) if length is None else length
    return struct.pack(">II", kind << 24 | size, flag << 31 | stream) + payload


def tlvs(*entries):
    return b"".join(struct.pack(">BH", kind, len(value)) + value for kind, value in entries)


def items(*values):
    return b"".join(bytes((len(value),)) + value for value in values)


def limits(window=4096, size=1024, streams=64, pending=8, datagram=1000, idle=0, reserved=0):
    return struct.pack(">IIHHHHH", window, size, streams, pending, datagram, idle, reserved)


def hello(*, versions=b"\x01", caps=0, extra=(), replace=()):
    fields = {
        1: versions,
        2: NONCE_A,
        3: INSTANCE,
        4: struct.pack(">Q", 1_789_999_999_000),
        5: limits(),
        6: struct.pack(">I", caps),
        7: items(b"default/shop", b"default/dns"),
        8: b"vector/1",
    }
    fields.update(dict(replace))
    return frame(0x01, payload=tlvs(*((k, v) for k, v in fields.items() if v is not None), *extra))


def challenge(*, methods=b"\x01\x02\x03", nonce=NONCE_E, version=1, types=b"\x00\x01", caps=0, extra=()):
    return frame(
        0x02,
        payload=tlvs(
            (1, bytes((version,))),
            (2, nonce),
            (3, b"edge-1.example"),
            (4, methods),
            (5, types),
            (6, limits(window=2048, size=2048)),
            (7, struct.pack(">I", caps)),
            (8, struct.pack(">Q", SERVER_TIME)),
            *extra,
        ),
    )


IN_FORCE = limits(window=2048)


def transcript(hello_frame, challenge_frame, kind=0, binding=b"", session=None):
    def lp(value):
        return struct.pack(">I", len(value)) + value

    data = b"DRTP/1 transcript\0" + lp(PREFACE + hello_frame) + lp(challenge_frame) + bytes((kind,)) + lp(binding)
    return hashlib.sha256(data + (lp(session) if session else b"")).digest()


def auth(method, *, kind=0, credential=b"", proof=b"", key=None):
    entries = [(1, bytes((method,))), (2, bytes((kind,))), (3, credential), (4, proof)]
    return frame(0x03, payload=tlvs(*entries, *([(5, key)] if key else [])))


def welcome(*extra, lease=3600, session=SESSION, in_force=IN_FORCE):
    names = items(b"default/shop", b"192.0.2.7:40001", b"default/dns", b"")
    return frame(0x04, payload=tlvs((1, session), (2, struct.pack(">I", lease)), (3, in_force), (4, names), *extra))


def mac(*parts):
    return hmac.digest(KEY, b"".join(parts), "sha256")


def psk(hello_frame, challenge_frame, session=None):
    """The AUTH and WELCOME that answer these two frames with a pre-shared key."""
    digest = transcript(hello_frame, challenge_frame, session=session)
    proof = mac(b"DRTP/1 agent\0", digest)
    answer = auth(2, credential=KEY_ID, proof=proof)
    return answer, welcome((5, mac(b"DRTP/1 edge\0", digest, proof)))


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def grant():
    """The AUTH of method 1 with a signed grant, and the public keys."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    agent, signer = (Ed25519PrivateKey.from_private_bytes(seed) for seed in (AGENT_SEED, GRANT_SEED))
    public = agent.public_key().public_bytes_raw()
    thumb = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": b64(public).decode()}, separators=(",", ":")).encode()
    head = {"alg": "Ed25519", "typ": "drtp-grant+jwt", "kid": "vector"}
    claims = {
        "iss": "drtp",
        "sub": "default/shop-1011121314",
        "aud": "edge-1.example",
        "svc": "default/shop",
        "proto": "tcp",
        "iid": INSTANCE.hex(),
        "cnf": {"jkt": b64(hashlib.sha256(thumb).digest()).decode()},
        "iat": SERVER_TIME // 10**6,
        "nbf": SERVER_TIME // 10**6,
        "exp": SERVER_TIME // 10**6 + 3600,
        "jti": "0001",
    }
    body = b".".join(b64(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims))
    credential = body + b"." + b64(signer.sign(body))
    digest = transcript(hello(), challenge(), 1, CERTIFICATE_HASH)
    proof = agent.sign(b"DRTP/1 agent proof\0" + digest + hashlib.sha256(credential).digest())
    return auth(1, kind=1, credential=credential, proof=proof, key=public), signer.public_key().public_bytes_raw()


OPEN_FULL = tlvs(
    (0x01, b"default/shop"),
    (0x02, b"\x01"),
    (0x03, b"\x06" + bytes.fromhex("20010db8000000000000000000000042") + b"\xc0\x01"),
    (0x04, b"\x04" + bytes((203, 0, 113, 9)) + b"\x01\xbb"),
    (0x05, b"\0" + bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b701")),
    (0x06, b"congo=t61rcWkgMzE"),
    (0x07, "bücher.example".encode()),
    (0x08, items(b"h2", b"http/1.1")),
    (0x09, bytes(range(0xC0, 0xD0))),
    (0x0B, struct.pack(">Q", SERVER_TIME + 5)),
)
OPEN_TCP = tlvs((0x01, b"default/shop"), (0x02, b"\x01"))
OPEN_UDP = tlvs((0x01, b"default/dns"), (0x02, b"\x02"), (0x0A, b"first datagram"))
OPEN_UDP_PLAIN = tlvs((0x01, b"default/dns"), (0x02, b"\x02"))


def session(**options):
    """Preface to WELCOME with a pre-shared key."""
    h, c = hello(caps=options.get("agent_caps", 0)), challenge(caps=options.get("edge_caps", 0))
    a, w = psk(h, c)
    return [(">", PREFACE), (">", h), ("<", c), (">", a), ("<", w)]


def window(stream, limit):
    return frame(0x13, stream, struct.pack(">Q", limit))


def reset(stream, code, detail=0, reason=b""):
    return frame(0x14, stream, struct.pack(">IH", code, detail) + reason)


def goaway(last=0, code=18, retry=0, drain=0, *entries):
    return frame(0x21, payload=struct.pack(">IIII", last, code, retry, drain) + tlvs(*entries))


def fill(size):
    return bytes(index % 251 for index in range(size))


def data(stream, payload, fin=0):
    return frame(0x12, stream, payload, fin)


def valid():
    """Yield (name, title, notes, lines) of the vectors without a fault."""
    signed, public = grant()
    notes = {"binding": CERTIFICATE_HASH.hex(), "grant-public-key": public.hex()}
    yield (
        "handshake-grant",
        "a handshake with a signed grant, bound to the edge's certificate",
        notes,
        [(">", PREFACE), (">", hello()), ("<", challenge()), (">", signed), ("<", welcome((6, b"ticket")))],
    )
    yield "handshake-psk", "a handshake with a pre-shared key, no channel binding", {}, session()
    yield (
        "handshake-tls",
        "a handshake by TLS client certificate; the edge stretches the keepalive",
        {},
        [
            (">", PREFACE),
            (">", hello(replace=[(9, b"ticket")])),
            ("<", challenge()),
            (">", auth(3)),
            ("<", welcome((8, struct.pack(">II", 15_000, 45_000)), lease=0)),
        ],
    )
    ignored = (0x60, b"of a later version")
    h, c = hello(caps=0x8000_0000, extra=[ignored]), challenge(extra=[ignored], caps=0x10)
    a, w = psk(h, c)
    yield (
        "extensions",
        "unknown optional TLVs, capabilities and frames are ignored",
        {},
        [
            (">", PREFACE),
            (">", h),
            ("<", c),
            (">", a),
            ("<", w),
            (">", frame(0x40, 77, b"whatever", 1)),
            ("<", frame(0x7F)),
            ("<", frame(0x10, 2, OPEN_TCP + tlvs((0x7F, b"later")))),
        ],
    )
    again = challenge(nonce=NONCE_AGAIN)
    a, w = psk(hello(), again, SESSION)
    yield "reauth-psk", "authenticating again on an open connection", {}, [*session(), ("<", again), (">", a), ("<", w)]
    yield (
        "handshake-refused",
        "a wrong proof: one code, whatever was wrong",
        {"ends": "AUTH_FAILED"},
        [
            (">", PREFACE),
            (">", hello()),
            ("<", challenge()),
            (">", auth(2, credential=KEY_ID, proof=bytes(32))),
            ("<", goaway(0, 9)),
        ],
    )
    yield (
        "streams",
        "two streams: early data, credit, half-close in either order, an empty FIN",
        {},
        [
            *session(),
            ("<", frame(0x10, 2, OPEN_FULL)),
            ("<", data(2, b"GET / HTTP/1.0\r\n\r\n")),
            (">", frame(0x11, 2)),
            (">", data(2, fill(1024))),
            (">", data(2, fill(1024))),
            ("<", window(2, 4096)),
            (">", data(2, fill(5), 1)),
            ("<", frame(0x10, 4, OPEN_TCP)),
            (">", frame(0x11, 4)),
            ("<", data(4, b"", 1)),
            ("<", data(2, b"", 1)),
            (">", data(4, b"bye", 1)),
        ],
    )
    yield (
        "resets",
        "a failed dial, a cancelled stream, and late frames for closed ones, which are dropped",
        {},
        [
            *session(),
            ("<", frame(0x10, 2, OPEN_TCP)),
            ("<", frame(0x10, 4, OPEN_TCP)),
            ("<", data(2, b"early")),
            (">", reset(2, 7, 1, b"127.0.0.1:8080 refused the connection")),
            ("<", data(2, b"late")),
            ("<", window(2, 9000)),
            (">", frame(0x11, 4)),
            ("<", reset(4, 5)),
            (">", data(4, b"late")),
            (">", reset(4, 6)),
        ],
    )
    unbound, unknown = tlvs((1, b"default/other"), (2, b"\x01")), tlvs((1, b"default/shop"), (2, b"\x03"))
    yield (
        "refusals",
        "opens that are refused: a service that is not bound, an unknown protocol, an unknown TLV that matters",
        {},
        [
            *session(),
            ("<", frame(0x10, 2, unbound)),
            (">", reset(2, 4, 0, b"the service is not bound to this tunnel")),
            ("<", frame(0x10, 4, unknown)),
            (">", reset(4, 16, 0, b"OPEN: protocol 3 is unknown")),
            ("<", frame(0x10, 6, OPEN_TCP + tlvs((0x80, b"matters")))),
            (">", reset(6, 16, 0, b"TLV 0x80 must be understood and is not")),
        ],
    )
    yield (
        "flow",
        "a UDP flow: the first datagram in OPEN, an empty datagram, the end",
        {},
        [
            *session(),
            ("<", frame(0x10, 2, OPEN_UDP)),
            (">", frame(0x11, 2)),
            (">", frame(0x15, 2, b"answer")),
            ("<", frame(0x15, 2, b"")),
            ("<", reset(2, 0)),
        ],
    )
    yield (
        "goaway",
        "a PING, its answer, and a drain in which the stream finishes",
        {"ends": "NO_ERROR"},
        [
            *session(),
            ("<", frame(0x10, 2, OPEN_TCP)),
            (">", frame(0x11, 2)),
            (">", frame(0x20, 0, bytes(7) + b"\x01")),
            ("<", frame(0x20, 0, bytes(7) + b"\x01", 1)),
            ("<", goaway(0, 18, 500, 30_000, (1, b"rolling update"), (2, items(b"edge-2.example:443")))),
            (">", data(2, b"last words", 1)),
            ("<", data(2, b"", 1)),
            ("<", goaway(0, 0, 0, 0, (1, b"all streams finished after GOAWAY"))),
        ],
    )
    yield (
        "reports",
        "with REPORT at both ends the agent reports on its origins; an empty report is legal",
        {},
        [
            *session(agent_caps=4, edge_caps=4),
            (">", frame(0x22)),
            (">", frame(0x22, 0, tlvs((1, struct.pack(">I", 1500)), (2, struct.pack(">I", 2)), (3, b"\x01")))),
        ],
    )
    yield (
        "agent-open",
        "with AGENT_OPEN at both ends the agent opens odd streams",
        {},
        [
            *session(agent_caps=1, edge_caps=1),
            (">", frame(0x10, 1, OPEN_TCP)),
            ("<", frame(0x11, 1)),
            (">", frame(0x10, 3, OPEN_TCP)),
            ("<", reset(3, 4)),
        ],
    )


def malformed():
    """Yield (name, title, code, lines); the fault is in the last line."""
    begin = [(">", PREFACE)]
    h, c = hello(), challenge()
    a, w = psk(h, c)
    opened = [*session(), ("<", frame(0x10, 2, OPEN_TCP)), (">", frame(0x11, 2))]
    udp = [*session(), ("<", frame(0x10, 2, OPEN_UDP_PLAIN)), (">", frame(0x11, 2))]
    bad, size, unsup = "PROTOCOL_ERROR", "FRAME_SIZE", "UNSUPPORTED"
    for name, title, code, before, arrow, last in (
        ("preface", "anything else than the preface is closed without an answer", bad, [], ">", b"GET / HTTP/1.1\r\n"),
        ("hello-versions", "no common version", "VERSION", begin, ">", hello(versions=b"\x02\x03")),
        ("hello-lacks-nonce", "a required field is missing", bad, begin, ">", hello(replace=[(2, None)])),
        (
            "hello-limits-reserved",
            "the reserved field is set",
            bad,
            begin,
            ">",
            hello(replace=[(5, limits(reserved=1))]),
        ),
        ("hello-limits-zero", "max_frame of 0", bad, begin, ">", hello(replace=[(5, limits(size=0))])),
        ("hello-limits-tiny", "a window below the floor", bad, begin, ">", hello(replace=[(5, limits(window=1023))])),
        ("hello-critical-tlv", "an unknown TLV that must be understood", unsup, begin, ">", hello(extra=[(0x80, b"")])),
        ("hello-too-long", "8,193 bytes declared, refused by the header", size, begin, ">", frame(1, length=8193)),
        ("hello-from-edge", "a role's frame from the other role", bad, [*begin, (">", h)], "<", h),
        ("hello-twice", "each handshake frame once", bad, [*begin, (">", h), ("<", c)], ">", h),
        ("auth-first", "AUTH before HELLO", bad, begin, ">", a),
        ("ping-first", "PING before WELCOME", bad, [*begin, (">", h), ("<", c)], ">", frame(0x20, 0, bytes(8))),
        (
            "challenge-version",
            "a version that was not offered",
            "VERSION",
            [*begin, (">", h)],
            "<",
            challenge(version=2),
        ),
        ("challenge-methods", "methods not ascending", bad, [*begin, (">", h)], "<", challenge(methods=b"\x02\x01")),
        (
            "auth-method-not-offered",
            "a method that the edge does not accept",
            "AUTH_FAILED",
            [*begin, (">", h), ("<", challenge(methods=b"\x01"))],
            ">",
            psk(h, challenge(methods=b"\x01"))[0],
        ),
        (
            "auth-binding-not-offered",
            "a channel binding that the edge does not accept",
            "AUTH_FAILED",
            [*begin, (">", h), ("<", challenge(types=b"\x01"))],
            ">",
            psk(h, challenge(types=b"\x01"))[0],
        ),
        (
            "auth-shape",
            "a proof of the wrong size",
            "AUTH_FAILED",
            [*begin, (">", h), ("<", c)],
            ">",
            auth(2, credential=KEY_ID, proof=bytes(31)),
        ),
        (
            "welcome-proof",
            "a wrong edge_proof",
            "AUTH_FAILED",
            [*begin, (">", h), ("<", c), (">", a)],
            "<",
            welcome((5, bytes(32))),
        ),
        (
            "welcome-without-proof",
            "no edge_proof after psk",
            "AUTH_FAILED",
            [*begin, (">", h), ("<", c), (">", a)],
            "<",
            welcome(),
        ),
        (
            "welcome-limits",
            "limits that are not the smaller of both",
            bad,
            [*begin, (">", h), ("<", c), (">", a)],
            "<",
            frame(4, payload=w[8:].replace(IN_FORCE, limits(window=2047))),
        ),
        ("type-zero", "type 0x00", bad, session(), "<", frame(0x00)),
        ("type-reserved", "a reserved type", bad, session(), "<", frame(0x30)),
        ("type-forbidden", "a forbidden type", bad, session(), "<", frame(0x80)),
        ("type-unassigned", "a type between the assigned ones", bad, session(), "<", frame(0x16, 2)),
        ("extension-too-long", "an extension of 2,049 bytes", size, session(), "<", frame(0x40, length=2049)),
        ("open-flag", "F on OPEN", bad, session(), "<", frame(0x10, 2, OPEN_TCP, 1)),
        (
            "open-too-long",
            "4,097 bytes declared, refused by the header",
            size,
            session(),
            "<",
            frame(0x10, 2, length=4097),
        ),
        ("open-odd-from-edge", "an identifier of the other parity", bad, session(), "<", frame(0x10, 3, OPEN_TCP)),
        ("open-twice", "an identifier used before", bad, opened, "<", frame(0x10, 2, OPEN_TCP)),
        ("open-from-agent", "OPEN without AGENT_OPEN", bad, session(), ">", frame(0x10, 1, OPEN_TCP)),
        ("open-no-service", "no service", bad, session(), "<", frame(0x10, 2, tlvs((2, b"\x01")))),
        (
            "open-empty-sni",
            "an empty value for an optional field",
            bad,
            session(),
            "<",
            frame(0x10, 2, OPEN_TCP + tlvs((7, b""))),
        ),
        (
            "open-family",
            "an unknown address family",
            bad,
            session(),
            "<",
            frame(0x10, 2, OPEN_TCP + tlvs((3, b"\x05" + bytes(6)))),
        ),
        (
            "open-initial-on-tcp",
            "a first datagram on a stream",
            bad,
            session(),
            "<",
            frame(0x10, 2, OPEN_TCP + tlvs((0x0A, b"x"))),
        ),
        ("tlv-order", "types that do not ascend", bad, session(), "<", frame(0x10, 2, tlvs((2, b"\x01"), (1, b"a/b")))),
        ("tlv-twice", "a type that occurs twice", bad, session(), "<", frame(0x10, 2, OPEN_TCP + tlvs((2, b"\x01")))),
        (
            "tlv-cut",
            "a value that ends after the frame",
            bad,
            session(),
            "<",
            frame(0x10, 2, OPEN_TCP + b"\x07\x00\x09ab"),
        ),
        ("tlv-head-cut", "an entry's head is cut short", bad, session(), "<", frame(0x10, 2, OPEN_TCP + b"\x07\x00")),
        ("accept-payload", "ACCEPT with a payload", size, session(), "<", frame(0x11, 2, length=1)),
        ("accept-twice", "a second ACCEPT", bad, opened, ">", frame(0x11, 2)),
        ("accept-own", "ACCEPT from the opener", bad, opened, "<", frame(0x11, 2)),
        ("data-stream-zero", "DATA on stream 0", bad, opened, "<", frame(0x12, 0, b"x")),
        ("data-empty", "DATA of no bytes without FIN", bad, opened, "<", frame(0x12, 2)),
        (
            "data-too-long",
            "a frame beyond max_frame, refused by the header",
            size,
            opened,
            "<",
            frame(0x12, 2, length=1025),
        ),
        ("data-idle", "DATA on a stream never opened", bad, opened, "<", data(4, b"x")),
        (
            "data-before-accept",
            "DATA from the acceptor before its ACCEPT",
            bad,
            [*session(), ("<", frame(0x10, 2, OPEN_TCP))],
            ">",
            data(2, b"x"),
        ),
        ("data-after-fin", "DATA after FIN", bad, [*opened, ("<", data(2, b"x", 1))], "<", data(2, b"y")),
        (
            "data-beyond-window",
            "one byte more than the limit",
            "FLOW_CONTROL",
            [*opened, ("<", data(2, fill(1024))), ("<", data(2, fill(1024)))],
            "<",
            data(2, b"x"),
        ),
        ("data-on-flow", "DATA on a flow", bad, udp, "<", data(2, b"x")),
        ("window-size", "WINDOW of 7 bytes", size, opened, "<", frame(0x13, 2, length=7)),
        ("window-same", "a limit that does not grow", bad, opened, "<", window(2, 2048)),
        ("window-idle", "WINDOW on a stream never opened", bad, opened, "<", window(4, 9999)),
        ("window-on-flow", "WINDOW on a flow", bad, udp, "<", window(2, 9999)),
        ("reset-short", "RESET of 5 bytes", size, opened, "<", frame(0x14, 2, length=5)),
        ("reset-long", "a reason of 121 bytes", size, opened, "<", frame(0x14, 2, length=127)),
        ("reset-utf8", "a reason that is not UTF-8", bad, opened, "<", reset(2, 5, 0, b"\xff")),
        ("reset-idle", "RESET on a stream never opened", bad, opened, "<", reset(4, 5)),
        ("datagram-on-stream", "DATAGRAM on a stream", bad, opened, "<", frame(0x15, 2, b"x")),
        ("datagram-idle", "DATAGRAM on a flow never opened", bad, opened, "<", frame(0x15, 4, b"x")),
        ("ping-size", "PING of 9 bytes", size, session(), "<", frame(0x20, 0, length=9)),
        ("ping-stream", "PING on a stream", bad, opened, "<", frame(0x20, 2, bytes(8))),
        ("goaway-short", "GOAWAY of 15 bytes", size, session(), "<", frame(0x21, 0, length=15)),
        ("goaway-utf8", "a reason that is not UTF-8", bad, session(), "<", goaway(0, 18, 0, 0, (1, b"\xff"))),
        ("report-unasked", "REPORT without the capability", bad, session(), ">", frame(0x22)),
        ("welcome-unasked", "WELCOME on an open connection", bad, session(), "<", w),
    ):
        yield name, title, code, [*before, (arrow, last)]


def describe(lines, *, skip_last):
    """Yield each line and what the independent reader makes of it."""
    size = {">": 1024, "<": 1024}
    for index, (arrow, raw) in enumerate(lines):
        yield f"{arrow} {raw.hex()}"
        if raw == PREFACE or (skip_last and index == len(lines) - 1):
            continue
        try:
            read, used = independent.read_frame(raw, "agent" if arrow == ">" else "edge", size[arrow])
        except independent.MalformedError as error:
            assert raw[0] == 0x10, "only OPEN may ask for something unknown"
            read, used = {"frame": "OPEN", "refused": error.code}, len(raw)
        assert used == len(raw), (arrow, raw.hex())
        yield "= " + json.dumps(read, ensure_ascii=False, sort_keys=True)


def render(title, notes, lines, *, skip_last=False):
    head = [f"# {key}: {value}" for key, value in {"title": title, **notes}.items()]
    return "\n".join([*head, *describe(lines, skip_last=skip_last)]) + "\n"


def build():
    """Return {file name: text} of all vectors."""
    common = {"psk-id": KEY_ID.hex(), "psk": KEY.hex()}
    files = {f"{name}.hex": render(title, common | notes, lines) for name, title, notes, lines in valid()}
    for name, title, code, lines in malformed():
        files[f"malformed/{name}.hex"] = render(title, common | {"error": code}, lines, skip_last=True)
    return files


if __name__ == "__main__":
    (VECTORS / "malformed").mkdir(parents=True, exist_ok=True)
    for name, content in build().items():
        (VECTORS / name).write_text(content, encoding="utf-8")
