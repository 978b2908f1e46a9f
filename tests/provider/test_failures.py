# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Classification of final failures for Airflow, and the information in their exceptions."""

from __future__ import annotations

import subprocess
import sys
import traceback

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.errors import FacekiError
from airflow_provider_faceki.api.models import VerificationRecord
from airflow_provider_faceki.failures import fail_if_declined, is_task_retryable, translate_errors

FINAL: set[type[FacekiError]] = {
    errors.ConfigurationError,
    errors.ValidationError,
    errors.AuthenticationError,
    errors.InvalidRequestError,
    errors.WorkflowError,
    errors.QuotaError,
    errors.ChargeLimitError,
    errors.LinkError,
    errors.VerificationError,
    errors.TlsError,
}
PASSED_ON: set[type[FacekiError]] = {
    errors.ConnectError,
    errors.ResponseLostError,
    errors.RateLimitError,
    errors.ServiceError,
    errors.UnexpectedResponseError,
    errors.NotFoundError,
    errors.OutcomeUnknownError,
    errors.ResponseError,  # not a subclass: an error code without documentation
}


def leaves(kind: type[FacekiError]) -> set[type[FacekiError]]:
    below = kind.__subclasses__()
    return set().union(*map(leaves, below)) if below else {kind}


def test_every_error_class_is_permanent_or_transient() -> None:
    known = {kind for kind in leaves(FacekiError) if kind.__module__ == errors.__name__}
    assert known <= FINAL | PASSED_ON


def fail_with(error: FacekiError) -> None:
    """Raise the error as a transport does: with a cause that contains a secret."""
    try:
        raise OSError("GET https://sdk.faceki.com/?clientSecret=canary")
    except OSError as behind:
        raise error from behind


def raised(error: FacekiError) -> Exception:
    with pytest.raises((FacekiError, AirflowFailException)) as caught, translate_errors():
        fail_with(error)
    return caught.value


@pytest.mark.parametrize("kind", sorted(FINAL, key=str))
def test_permanent_errors_fail_the_task_without_a_retry(kind: type[FacekiError]) -> None:
    error = kind("what to do", code=5003, http_status=200, request_id="r-1", conn_id="kyc")
    failure = raised(error)
    assert isinstance(failure, AirflowFailException)
    assert str(failure) == f"{kind.__name__}: {error}"
    assert failure.__cause__ is error
    assert "canary" not in "".join(traceback.format_exception(failure))


@pytest.mark.parametrize("kind", sorted(PASSED_ON, key=str))
def test_transient_errors_are_raised_unchanged(kind: type[FacekiError]) -> None:
    error = kind("try again", http_status=503)
    failure = raised(error)
    assert failure is error
    assert "canary" not in "".join(traceback.format_exception(failure))


def test_an_unknown_error_class_is_classified_by_is_transient() -> None:
    class Final(errors.ResponseError):
        pass

    class Fleeting(Final):
        is_transient = True

    assert is_task_retryable(Fleeting("soon"))
    assert not is_task_retryable(Final("never"))


def test_errors_of_other_classes_are_raised_unchanged() -> None:
    with pytest.raises(KeyError, match="mine"), translate_errors():
        raise KeyError("mine")


@pytest.mark.parametrize("decision", ["ACCEPTED", "REVIEW", "NEVER-HEARD-OF", "DECLINED"])
def test_fail_if_declined_fails_only_for_declined(decision: str) -> None:
    record = VerificationRecord({"requestId": "r-1", "decision": decision, "errorCodes": [5010]})
    if decision != "DECLINED":
        fail_if_declined(record)
        return
    with pytest.raises(AirflowFailException, match=r"verification r-1 \(5010 EXPIRED_DOCUMENT\)"):
        fail_if_declined(record)


def test_a_missing_record_does_not_count_as_declined() -> None:
    fail_if_declined(None)


def test_success_passes() -> None:
    with translate_errors():
        reached = True
    assert reached


@pytest.mark.process
def test_airflow_is_imported_for_a_failure_only() -> None:
    code = "import sys, airflow_provider_faceki.failures; print('airflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stdout.strip() == "False"
