"""Requests and responses as the API sees them: parsing, content negotiation, encoding. Pure but for the body's reading.

Rules: JSON out, always (plain, as a Table, or metadata only); JSON, YAML and a little protobuf in.
What must not enter: what a request does.
"""

from __future__ import annotations

import enum
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec
import yaml

from drtp_api.kube import BadRequest, KubeError, Obj
from drtp_controller.apiserver.protobuf import decode_body

MAX_BODY_BYTES = 3 * 1024 * 1024
"""kube-apiserver's limit for a request body."""
JSON = "application/json"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class Shape(enum.Enum):
    """In which form objects are wanted."""

    PLAIN = "plain"
    TABLE = "table"
    METADATA = "metadata"


@attrs.frozen
class Request:
    """One request with its body read."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""

    def header(self, name: str) -> str:
        """Return a header by its lower-case name, an empty string when absent."""
        return self.headers.get(name, "")

    def flag(self, name: str) -> bool:
        """Return whether a boolean query parameter is set. Raises `BadRequest`."""
        text = self.query.get(name, "")
        if text.lower() in {"", "0", "f", "false"}:
            return False
        if text.lower() in {"1", "t", "true"}:
            return True
        raise BadRequest(f"{name}={text!r} is not a boolean")

    def number(self, name: str) -> int:
        """Return a numeric query parameter, 0 when absent. Raises `BadRequest`."""
        text = self.query.get(name, "")
        if text and not text.isdecimal():
            raise BadRequest(f"{name}={text!r} is not a number")
        return int(text or 0)

    @property
    def dry_run(self) -> bool:
        """Whether nothing shall be written. Raises `BadRequest` for anything but `All`."""
        value = self.query.get("dryRun", "")
        if value not in {"", "All"}:
            raise BadRequest(f'Invalid value: dryRun: Unsupported value: "{value}": supported values: "All"')
        return value == "All"

    @property
    def manager(self) -> str:
        """Who writes: the field manager, else the program named by the user agent."""
        given = self.query.get("fieldManager", "")
        return (given or self.header("user-agent").split("/")[0] or "unknown")[:128]

    @property
    def validation(self) -> str:
        """What to do with unknown fields. Raises `BadRequest`."""
        value = self.query.get("fieldValidation", "") or "Warn"
        if value not in {"Ignore", "Warn", "Strict"}:
            raise BadRequest(f"fieldValidation={value!r} is not one of Ignore, Warn, Strict")
        return value

    @property
    def content_type(self) -> str:
        """The media type of the body, without parameters."""
        return self.header("content-type").split(";")[0].strip().lower()

    def accepts_aggregated_discovery(self) -> bool:
        """Return whether the client takes all of discovery in one document."""
        return any(
            parameters.get("as") == "APIGroupDiscoveryList" and parameters.get("v") == "v2"
            for _, parameters in _accepted(self.header("accept"))
        )

    def shape(self) -> Shape:
        """Return the form the client prefers among those we have. Raises `KubeError` 406 for none."""
        accepted = _accepted(self.header("accept"))
        for media, parameters in accepted:
            if media not in {JSON, "*/*", "application/*"}:
                continue
            match parameters.get("as"):
                case None:
                    return Shape.PLAIN
                case "Table" if parameters.get("v") == "v1":
                    return Shape.TABLE
                case "PartialObjectMetadata" | "PartialObjectMetadataList":
                    return Shape.METADATA
                case _:
                    continue
        if not accepted:
            return Shape.PLAIN
        raise KubeError(
            "only the following media types are accepted: application/json", http_code=406, reason="NotAcceptable"
        )

    def decoded(self) -> Any:
        """Return the body as plain data. Raises `BadRequest`."""
        if "protobuf" in self.content_type:
            return decode_body(self.body)
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError as error:
            if "yaml" not in self.content_type:
                raise BadRequest(f"the body is not JSON: {error}") from error
        try:
            # the loader refuses everything but plain data; see _PlainLoader
            return yaml.load(self.body, Loader=_PlainLoader)  # noqa: S506
        except yaml.YAMLError as error:
            raise BadRequest(f"the body is not YAML: {error}") from error

    def decoded_object(self) -> Obj:
        """Return the body as an object. Raises `BadRequest`."""
        decoded = self.decoded()
        if not isinstance(decoded, dict):
            raise BadRequest("the body must be an object")
        return decoded


class _PlainLoader(yaml.SafeLoader):
    """YAML as JSON data: dates stay strings."""


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _accepted(header: str) -> list[tuple[str, dict[str, str]]]:
    """Return the media types of an Accept header with their parameters, in order."""
    accepted = []
    for entry in header.split(","):
        media, *rest = (part.strip() for part in entry.split(";"))
        if media:
            pairs = (part.partition("=") for part in rest)
            accepted.append((media.lower(), {name.strip(): value.strip() for name, _, value in pairs}))
    return accepted


def parse_query(raw: bytes) -> dict[str, str]:
    """Return the query parameters; of a repeated one the first."""
    query: dict[str, str] = {}
    for name, value in urllib.parse.parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        query.setdefault(name, value)
    return query


@attrs.frozen
class Response:
    """One answer."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = JSON


def encode(value: Any) -> bytes:
    """Return JSON."""
    return msgspec.json.encode(value)


def respond(value: Any, status: int = 200, warnings: Sequence[str] = ()) -> Response:
    """Return an answer with a JSON body and warnings."""
    return Response(status, encode(value), tuple(("warning", _warning(text)) for text in warnings))


def _warning(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'299 - "{quoted.encode("ascii", "backslashreplace").decode()}"'


def refuse(error: KubeError) -> Response:
    """Return the answer of a failure."""
    headers: list[tuple[str, str]] = []
    if error.http_code == 401:
        headers.append(("www-authenticate", "Bearer"))
    if error.retry_after is not None:
        headers.append(("retry-after", str(int(error.retry_after))))
    return Response(error.http_code, encode(error.to_status()), tuple(headers))
