# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Decide whether Airflow retries a task after a FACEKI error, and translate FACEKI errors into Airflow exceptions.

These errors fail a task at once, because another try cannot help:

- ConfigurationError: the Connection must be changed.
- ValidationError: the DAG or its input must be changed.
- AuthenticationError: wrong credentials remain wrong, and repeated requests look like an attack.
- InvalidRequestError: FACEKI reports that the request itself is wrong.
- WorkflowError: the workflow must be repaired in the FACEKI portal.
- ChargeLimitError: the Connection's limit of charged calls must be raised.
- QuotaError: the wallet must be topped up, or a limit must be raised.
- LinkError: a used or expired link does not become valid again.
- VerificationError: another try gets the same answer for the same images, and FACEKI charges again.
- TlsError: certificates must be repaired.
- Any error with ``needs_consent``, which means that only a person can decide to repeat the call: FACEKI has possibly
  acted on the call already. With another try, FACEKI would possibly act or charge a second time.

All other errors are raised again, so the task's ``retries`` apply to them:

- Connection failures, lost answers, throttling, a failing service, and unreadable answers.
- ResponseError itself, and not one of its subclasses: FACEKI answered with an unknown code and HTTP status 2xx.
- NotFoundError: FACEKI has no record yet, but the person possibly finishes the verification before the next try.
- OutcomeUnknownError: nobody knows whether FACEKI acted on the call. The next try looks for the record before it sends
  the call again.

The calls of face search and face analysis leave no record. Therefore the operators for these calls fail at once after
an OutcomeUnknownError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from airflow_provider_faceki import api


def is_task_retryable(error: api.FacekiError) -> bool:
    """Return whether another try of the task can succeed and is safe."""
    if error.needs_consent:
        return False
    # A plain ResponseError (not a subclass) means that FACEKI answered with a code that this provider does not know. It
    # counts as retryable. A retry is safe, because the next try of a verification first looks for the record. A charged
    # call that leaves no record raises an OutcomeUnknownError instead.
    is_unexplained = type(error) is api.ResponseError
    return (
        error.is_transient or is_unexplained or isinstance(error, api.NotFoundError | api.OutcomeUnknownError)
    )


def is_gateway_error(error: api.FacekiError) -> bool:
    """Return True if a proxy or firewall in front of FACEKI, and not FACEKI itself, possibly refused the request.

    Such a refusal has a 4xx status and no FACEKI code. The proxy or firewall possibly accepts the same request later.
    Therefore polling continues after such a refusal. Two statuses are excluded, so the result is ``False`` and polling
    ends:

    - 401: The credentials are wrong, and wrong credentials must not be sent again and again.
    - 413: This request is too large, so it would be refused each time.

    A :class:`ConfigurationError` with another 4xx status and without a FACEKI code says that the URL of the token
    request does not exist. But a proxy or firewall possibly sent this answer, so the result is ``True``.
    """
    status = error.http_status or 0
    refused = isinstance(error, api.AuthenticationError | api.InvalidRequestError | api.ConfigurationError)
    return refused and error.code is None and 400 <= status < 500 and status not in {401, 413}


def is_definite_answer(error: api.FacekiError) -> bool:
    """Return True if the error is FACEKI's own answer to a request for records, which shows that FACEKI works.

    During an outage, waiting triggers poll rarely. After a definite answer, they poll at the usual rate again.

    A definite answer has a FACEKI code, such as the code of an expired link. These answers are not definite:

    - A transient error, because it can be a part of the outage.
    - Refused credentials, because FACEKI can refuse them before it looks for the records.
    - An unknown code with HTTP status 2xx, because nobody knows what the answer means.
    """
    is_known = isinstance(error, api.ResponseError) and type(error) is not api.ResponseError
    return (
        is_known
        and error.code is not None
        and not error.is_transient
        and not isinstance(error, api.AuthenticationError)
    )


def is_poll_retryable(error: api.FacekiError) -> bool:
    """Return True if polling continues after an error.

    Polling continues in two cases:

    - Another try of the task can succeed and is safe.
    - A proxy or firewall, and not FACEKI, possibly refused the poll. The proxy or firewall possibly accepts a later
      poll, and FACEKI does not charge for polls.
    """
    return is_task_retryable(error) or is_gateway_error(error)


def fail_if_declined(record: api.VerificationRecord | None) -> None:
    """Fail the task without retries if a record has the decision DECLINED.

    :param record: The record. If it is ``None``, the task does not fail.
    :raises AirflowFailException: if the record is declined. The text contains the request id and FACEKI's codes.
    """
    if record is None or str(record.decision) != "DECLINED":
        return
    from airflow.providers.common.compat.sdk import AirflowFailException

    codes = [f"{item['code']} {item['name'] or ''}".strip() for item in record.summary()["error_codes"]]
    raise AirflowFailException(
        f"FACEKI declined verification {record.request_id} ({', '.join(codes) or 'no codes given'})"
    )


def fail_with_unknown_outcome(message: str, conn_id: str) -> NoReturn:
    """Fail the task without retries, because nobody knows whether FACEKI acted on a charged call.

    :param message: What happened, and what a person has to do.
    :param conn_id: Id of the FACEKI Connection.
    :raises AirflowFailException: always. Its ``__cause__`` is an :class:`.OutcomeUnknownError`, which an
        ``on_failure_callback`` can find.
    """
    from airflow.providers.common.compat.sdk import AirflowFailException

    error = api.OutcomeUnknownError(message).with_conn_id(conn_id)
    raise AirflowFailException(f"OutcomeUnknownError: {error}") from error


@contextmanager
def translate_errors(
    passes: Callable[[api.FacekiError], bool] = is_task_retryable,
) -> Iterator[None]:
    """Raise ``AirflowFailException`` in place of a FACEKI error that another try cannot solve.

    All other errors are raised again. The FACEKI error is the ``__cause__`` of the ``AirflowFailException``, so an
    ``on_failure_callback`` can read its code and request id. The cause of each FACEKI error is removed, because Airflow
    logs the whole chain of causes, and the text of such a cause can contain secrets. For example, the text of a
    transport exception can contain a URL or a header.

    :param passes: Function that receives a FACEKI error. If it returns ``True``, the error is raised again. Default:
        :func:`is_task_retryable`.
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
                "; the call may have been made, so it is not repeated automatically: clear the task "
                "to repeat it"
            )
        raise AirflowFailException(message) from error
