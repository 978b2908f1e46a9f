# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Which errors Airflow's retries may repeat, and how an error of FACEKI becomes an exception of Airflow.

=====================  =====================================================================================
fails at once          because another try cannot help
=====================  =====================================================================================
ConfigurationError     the Connection has to be changed
ValidationError        the DAG, or its input, has to be changed
AuthenticationError    wrong credentials stay wrong, and asking again looks like an attack
InvalidRequestError    FACEKI finds the request itself wrong
WorkflowError          the workflow has to be repaired in the FACEKI portal
QuotaError             the wallet has to be topped up, or a limit raised
LinkError              a link that is used up or expired does not come back
VerificationError      the same images give the same response, and are billed again
TlsError               certificates have to be repaired
needs_consent          of any error: FACEKI may act, or charge, a second time
=====================  =====================================================================================

Everything else is raised as it is, so the task's ``retries`` apply: no connection, a lost response, throttling, a
failing service, a response that cannot be read or carries an unknown code. So are two errors that are not transient:
NotFoundError, as the person may have answered by the next try, and OutcomeUnknownError, as the next try looks before it
sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_provider_faceki import api


def is_task_retryable(error: api.FacekiError) -> bool:
    """Whether another try of the task may succeed, and does no harm."""
    if error.needs_consent:
        return False
    # A plain ResponseError carries an unknown code; the next try looks for a lost outcome before it sends again.
    is_unexplained = type(error) is api.ResponseError
    return (
        error.is_transient or is_unexplained or isinstance(error, api.NotFoundError | api.OutcomeUnknownError)
    )


def is_gateway_error(error: api.FacekiError) -> bool:
    """True for a 4xx without a code of FACEKI's: a proxy or firewall in front of it may have answered, for all callers.

    Not for a 401, as wrong credentials must not be tried again and again, nor for a 413, which depends on the request.
    A :class:`ConfigurationError` with a status is a token request that found no such address.
    """
    status = error.http_status or 0
    refused = isinstance(error, api.AuthenticationError | api.InvalidRequestError | api.ConfigurationError)
    return refused and error.code is None and 400 <= status < 500 and status not in {401, 413}


def is_poll_retryable(error: api.FacekiError) -> bool:
    """Whether a wait may go on polling, which is free: where another try may help, and while a gateway fails."""
    return is_task_retryable(error) or is_gateway_error(error)


def are_rules_unavailable(error: api.FacekiError) -> bool:
    """Whether the rules of a workflow cannot be fetched, for a reason that does not concern the verification.

    The route is undocumented and only seen in SDKs. So a missing route, an unreadable response or none at all is no
    obstacle to a verification: FACEKI checks its rules itself.

    :param error: Error of the request for the rules, after its retries.
    """
    from airflow_provider_faceki.api.codes import REFUSED

    # One code stands for a refused token and for an unknown URL; the HTTP status tells them apart.
    no_such_url = (
        isinstance(error, api.AuthenticationError)
        and error.code == REFUSED
        and error.http_status not in {401, 403}
    )
    no_such_url |= isinstance(error, api.InvalidRequestError) and error.http_status in {404, 405}
    no_answer = error.is_transient and not isinstance(error, api.RateLimitError)
    return no_such_url or no_answer or isinstance(error, api.NotFoundError)


def fail_if_declined(record: api.VerificationRecord | None) -> None:
    """Fail the task for good if a record says DECLINED.

    :param record: The record, or ``None``.
    :raises AirflowFailException: it does; the text names the request id and FACEKI's codes.
    """
    if record is None or str(record.decision) != "DECLINED":
        return
    from airflow.providers.common.compat.sdk import AirflowFailException

    codes = [f"{item['code']} {item['name'] or ''}".strip() for item in record.summary()["error_codes"]]
    raise AirflowFailException(
        f"FACEKI declined verification {record.request_id} ({', '.join(codes) or 'no codes given'})"
    )


@contextmanager
def translate_errors(
    passes: Callable[[api.FacekiError], bool] = is_task_retryable,
) -> Iterator[None]:
    """Turn errors that another try cannot mend into ``AirflowFailException``; let the rest pass.

    The FACEKI error is the ``__cause__``, so an ``on_failure_callback`` can read its code and request id. Its own
    cause, such as a transport's exception with a URL or header in its text, is cut off: Airflow logs whole chains.

    :param passes: Returns true for errors to let pass.
    """
    try:
        yield
    except api.FacekiError as error:
        error.__cause__ = error.__context__ = None
        if passes(error):
            raise
        from airflow.providers.common.compat.sdk import AirflowFailException

        message = f"{type(error).__name__}: {error}"
        if error.needs_consent:
            message += (
                "; the call may have been made, so it is not made again by itself: clear the task to do so"
            )
        raise AirflowFailException(message) from error
