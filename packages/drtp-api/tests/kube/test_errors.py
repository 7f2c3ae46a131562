from __future__ import annotations

import pytest

from drtp_api.errors import CATALOGUE, DrtpError
from drtp_api.kube import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    MethodNotAllowed,
    NotFound,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    error_from_status,
)

KINDS = [
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    MethodNotAllowed,
    NotFound,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_the_trip_through_a_status(kind: type[KubeError]):
    error = kind("it went wrong", details={"name": "x"})
    back = error_from_status(error.to_status())
    assert type(back) is kind
    assert (back.message, back.reason, back.http_code, back.details) == (
        "it went wrong",
        error.reason,
        error.http_code,
        {"name": "x"},
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_code_in_the_table(kind: type[KubeError]):
    error = kind("x")
    assert isinstance(error, DrtpError)
    assert error.code in CATALOGUE
    assert str(error).startswith(error.code)


def test_a_taken_name_is_told_from_a_stale_version():
    assert type(error_from_status({"code": 409, "reason": "AlreadyExists"})) is AlreadyExists
    assert type(error_from_status({"code": 409, "reason": "Conflict"})) is Conflict


def test_an_answer_without_a_status_still_becomes_an_error():
    error = error_from_status({}, code=502)
    assert isinstance(error, Unavailable)
    assert error.http_code == 502


def test_an_unknown_code_is_not_guessed_at():
    assert type(error_from_status({"code": 418})) is KubeError


def test_a_missing_kind_is_told_from_a_missing_object():
    assert NotFound("no such path").kind_is_missing
    assert not NotFound("no such object", details={"name": "x"}).kind_is_missing


def test_the_fields_at_fault_are_listed():
    causes = [{"field": "spec.a"}, {"field": "spec.b"}]
    assert Invalid("x", details={"causes": causes}).fields == ["spec.a", "spec.b"]
