# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Attributes and texts of errors, also after pickling."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.endpoints.records import check_is_stated
from airflow_provider_faceki.api.errors import FacekiError, ValidationError
from airflow_provider_faceki.api.protocol.envelope import read_payload
from airflow_provider_faceki.api.protocol.messages import HttpResponse

#: Default values of ``is_transient`` and ``is_ambiguous`` for each class.
FLAGS = {
    errors.FacekiError: (False, False),
    errors.ConfigurationError: (False, False),
    errors.ValidationError: (False, False),
    errors.ChargeLimitError: (False, False),
    errors.TransportError: (True, False),
    errors.ConnectError: (True, False),
    errors.TlsError: (False, False),
    errors.ResponseLostError: (True, True),
    errors.OutcomeUnknownError: (False, True),
    errors.ResponseError: (False, False),
    errors.AuthenticationError: (False, False),
    errors.InvalidRequestError: (False, False),
    errors.WorkflowError: (False, False),
    errors.QuotaError: (False, False),
    errors.LinkError: (False, False),
    errors.NotFoundError: (False, False),
    errors.VerificationError: (False, True),
    errors.RateLimitError: (True, False),
    errors.ServiceError: (True, True),
    errors.UnexpectedResponseError: (True, True),
}


def _tree(root: type[FacekiError]) -> Iterator[type[FacekiError]]:
    yield root
    for branch in root.__subclasses__():
        yield from _tree(branch)


def _full(kind: type[FacekiError]) -> FacekiError:
    return kind(
        "it went wrong",
        code=5003,
        code_name="NOT_ENOUGH_WALLET_CREDIT",
        http_status=402,
        request_id="0b0b0b0b-1111-4222-8333-444444444444",
        retry_after=7.5,
        is_ambiguous=True,
    ).with_conn_id("faceki_eu")


every_kind = pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.__name__) for kind in FLAGS])


def test_the_table_above_lists_every_error_class() -> None:
    # Subclasses in other modules are left out, because they exist here only if another test has imported their modules.
    tree = {kind for kind in _tree(FacekiError) if kind.__module__ == FacekiError.__module__}
    assert tree == set(FLAGS)


@every_kind
def test_flags(kind: type[FacekiError]) -> None:
    error = kind("it went wrong")
    assert (error.is_transient, error.is_ambiguous) == FLAGS[kind]
    assert kind("it went wrong", is_ambiguous=False).is_ambiguous is False


@every_kind
def test_a_pickle_keeps_all_facts(kind: type[FacekiError]) -> None:
    error = _full(kind)
    error.add_note("seen in task check_person")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        back = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - the test itself made the pickle
        assert type(back) is kind
        assert back.__dict__ == error.__dict__
        assert (str(back), repr(back), back.args) == (str(error), repr(error), error.args)


@every_kind
def test_copies_and_nested_pickles_keep_all_facts(kind: type[FacekiError]) -> None:
    error = _full(kind)
    inner = pickle.dumps({"failed": [error, ("again", ExceptionGroup("two", [error, ValueError("x")]))]})
    outer = pickle.loads(pickle.dumps((inner, error)))  # noqa: S301 - the test itself made the pickle
    failed = pickle.loads(outer[0])["failed"]  # noqa: S301 - the test itself made the pickle
    found = [outer[1], failed[0], failed[1][1].exceptions[0], copy.copy(error), copy.deepcopy(error)]
    assert [(type(one), one.__dict__) for one in found] == [(kind, error.__dict__)] * 5


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        pytest.param({}, "it went wrong", id="no facts"),
        pytest.param({"http_status": 502}, "it went wrong (HTTP 502)", id="status"),
        pytest.param({"code": 5013}, "it went wrong (FACEKI code 5013)", id="code without a name"),
        pytest.param(
            {"code": 1, "code_name": "UNAUTHORIZED", "http_status": 401},
            "it went wrong (FACEKI code 1 UNAUTHORIZED, HTTP 401)",
            id="code and status",
        ),
        pytest.param(
            {"conn_id": "eu", "code": 0}, "it went wrong (connection 'eu', FACEKI code 0)", id="code 0"
        ),
        pytest.param({"request_id": "0b0b"}, "it went wrong (request id 0b0b)", id="request id"),
        pytest.param({"retry_after": 3.0, "is_ambiguous": True}, "it went wrong", id="for programs only"),
    ],
)
def test_text(facts: dict[str, object], text: str) -> None:
    error = errors.ResponseError("it went wrong", **facts)  # type: ignore[arg-type]  # the values are test parameters
    assert str(error) == text
    assert repr(error) == f"ResponseError({text!r})"


def test_naming_the_connection_keeps_the_error_itself() -> None:
    error = errors.LinkError("it went wrong")
    assert error.with_conn_id("faceki_eu") is error
    assert str(error) == "it went wrong (connection 'faceki_eu')"


def test_a_wrong_argument_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match="it went wrong"):
        raise ValidationError("it went wrong")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        pytest.param(401, errors.AuthenticationError, id="a refused token"),
        pytest.param(404, errors.UnexpectedResponseError, id="records at an unknown path"),
    ],
)
def test_errors_of_wrong_settings_advise_the_check_once(status: int, error: type[errors.FacekiError]) -> None:
    def fetch() -> None:
        try:
            read_payload(HttpResponse(status, {"content-type": "text/html"}, b"<html></html>"))
        except errors.NotFoundError as missing:
            check_is_stated(missing)

    with pytest.raises(error) as raised:
        fetch()
    assert raised.value.message.count(errors.CHECK_ADVICE) == 1
