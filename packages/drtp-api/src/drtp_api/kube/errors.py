"""What a Kubernetes API refuses with, as typed exceptions; also what our embedded server raises.

Rules:
- Every error renders as the API's `Status` object and is rebuilt from one: the two directions agree.
- Every one is a `DrtpError`: `code` is what a user sees, `message` is the API's own sentence, `http_code` its number.
- An answer that cannot be classified is `KubeError` itself, never a guess.
What must not enter: HTTP clients, retries (the reflector and the work queue decide those).
"""

# ruff: noqa: N818 - the names are the reasons of the API

from __future__ import annotations

from typing import Any, ClassVar

from drtp_api.errors import DrtpError

Status = dict[str, Any]


class KubeError(DrtpError):
    """The API answered with a failure.

    Args:
        message: the API's sentence.
        http_code: the HTTP status, where it differs from the class's own.
        reason: the machine-readable reason, likewise.
        details: the Status's details: kind, group, name, causes, retryAfterSeconds.
    """

    drtp_code: ClassVar[str] = "DRTP-2030"
    default_http_code: ClassVar[int] = 500
    default_reason: ClassVar[str] = "InternalError"

    def __init__(
        self,
        message: str,
        *,
        http_code: int = 0,
        reason: str = "",
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(self.drtp_code, message)
        self.http_code = http_code or self.default_http_code
        self.reason = reason or self.default_reason
        self.details: dict[str, Any] = details or {}

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asked to wait before another try, None when it did not say."""
        seconds = self.details.get("retryAfterSeconds")
        return float(seconds) if isinstance(seconds, (int, float)) else None

    def to_status(self) -> Status:
        """Return the error as the API's `Status` object."""
        status: Status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.http_code,
        }
        if self.details:
            status["details"] = self.details
        return status


class BadRequest(KubeError):
    """The request could not be understood: a malformed body, an unknown field, a bad selector."""

    drtp_code = "DRTP-2009"
    default_http_code = 400
    default_reason = "BadRequest"


class Unauthorized(KubeError):
    """The server does not know who is asking: no token, or one it does not accept."""

    drtp_code = "DRTP-2003"
    default_http_code = 401
    default_reason = "Unauthorized"


class Forbidden(KubeError):
    """The user is known and may not do this."""

    drtp_code = "DRTP-2008"
    default_http_code = 403
    default_reason = "Forbidden"


class NotFound(KubeError):
    """No such object, or no such kind at this address."""

    drtp_code = "DRTP-2031"
    default_http_code = 404
    default_reason = "NotFound"

    @property
    def kind_is_missing(self) -> bool:
        """Return whether the whole kind is unknown to the server (its CRD is not installed)."""
        return not self.details.get("name")


class MethodNotAllowed(KubeError):
    """The address exists but does not offer this verb."""

    drtp_code = "DRTP-2009"
    default_http_code = 405
    default_reason = "MethodNotAllowed"


class Conflict(KubeError):
    """The object changed since it was read, or another manager owns the field."""

    drtp_code = "DRTP-2015"
    default_http_code = 409
    default_reason = "Conflict"


class AlreadyExists(KubeError):
    """An object of this name exists."""

    drtp_code = "DRTP-2032"
    default_http_code = 409
    default_reason = "AlreadyExists"


class Gone(KubeError):
    """The resource version or the continue token is older than the server remembers: list again."""

    drtp_code = "DRTP-2033"
    default_http_code = 410
    default_reason = "Expired"


class UnsupportedMediaType(KubeError):
    """The kind does not accept this form of body or patch."""

    drtp_code = "DRTP-2009"
    default_http_code = 415
    default_reason = "UnsupportedMediaType"


class Invalid(KubeError):
    """The object violates its schema; `details.causes` name the fields."""

    drtp_code = "DRTP-2009"
    default_http_code = 422
    default_reason = "Invalid"

    @property
    def fields(self) -> list[str]:
        """Return the paths of the fields at fault, in the server's order."""
        return [cause.get("field", "") for cause in self.details.get("causes", [])]


class Unavailable(KubeError):
    """The server cannot be reached, is overloaded or timed out; the request may be tried again later."""

    drtp_code = "DRTP-2002"
    default_http_code = 503
    default_reason = "ServiceUnavailable"


_BY_CODE: dict[int, type[KubeError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    409: Conflict,
    410: Gone,
    413: BadRequest,
    415: UnsupportedMediaType,
    422: Invalid,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def error_from_status(status: Status, *, code: int = 0) -> KubeError:
    """Build the typed error of a `Status` object.

    Args:
        status: the decoded body; anything that is not a Status still yields an error with the code.
        code: the HTTP status, used where the body does not carry one.
    """
    raw_code = status.get("code")
    number = raw_code if isinstance(raw_code, int) and raw_code else code
    reason = str(status.get("reason") or "")
    kind: type[KubeError] = _BY_CODE.get(number, KubeError)
    if reason == "AlreadyExists":
        kind = AlreadyExists
    elif reason in {"Expired", "Gone"}:
        kind = Gone
    details = status.get("details")
    return kind(
        str(status.get("message") or f"the server answered {number}"),
        http_code=number,
        reason=reason,
        details=details if isinstance(details, dict) else None,
    )
