# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Does Airflow try a failed task again?

=====================  =====================================================================================
fails at once          why another try cannot help
=====================  =====================================================================================
ConfigurationError     somebody has to change the Connection
ValidationError             somebody has to change the DAG, or what it was given
AuthenticationError    wrong credentials stay wrong, and asking again looks like an attack
InvalidRequestError    FACEKI finds the request itself wrong
WorkflowError          somebody has to repair the workflow in the FACEKI portal
QuotaError             somebody has to top up; trying on would be trying for nothing
LinkError              a link that is used up or expired does not come back
VerificationError      the same images give the same answer, and are billed again
TlsError               somebody has to mend certificates
must_not_repeat        of any error: FACEKI may have done what it would do, or charge for, once more
=====================  =====================================================================================

Everything else is raised as it is, so that the task's ``retries`` apply: no connection, a lost answer,
throttling, a failing service, an answer that makes no sense or carries a code that nobody has explained. So
are two whose ``is_transient`` says that the same call, sent again at once, is useless. NotFoundError: by the
task's next try the person may have answered. OutcomeUnknownError: the next try looks before it sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_provider_faceki import api


def is_task_retryable(error: api.FacekiError) -> bool:
    """Whether the task, tried again as it is, may succeed, and do no harm."""
    if error.must_not_repeat:
        return False
    # An ResponseError of no particular kind carries a code that nobody has explained; a lost outcome is looked for
    # by the next try before anything is sent again.
    unexplained = type(error) is api.ResponseError
    return error.is_transient or unexplained or isinstance(error, api.NotFoundError | api.OutcomeUnknownError)


def is_gateway_error(error: api.FacekiError) -> bool:
    """Whether a refusal carries no code of FACEKI's: then it may come from something in front of it, for everybody.

    Not a 401, since credentials that are wrong are not to be tried again and again, nor a 413, which depends on what
    was sent. A :class:`ConfigurationError` with a status is a token request to which there was no such address.
    """
    status = error.http_status or 0
    refused = isinstance(error, api.AuthenticationError | api.InvalidRequestError | api.ConfigurationError)
    return refused and error.code is None and 400 <= status < 500 and status not in {401, 413}


def another_look_may_help(error: api.FacekiError) -> bool:
    """Whether a wait, which costs nothing, may go on: where another try may help, and while a gateway is in trouble."""
    return is_task_retryable(error) or is_gateway_error(error)


def is_silent_about_rules(error: api.FacekiError) -> bool:
    """Whether FACEKI, asked for a workflow's rules, told nothing that concerns the verification too.

    The route is in no documentation, only in SDKs: without it, FACEKI itself has to say no. So a route that is not
    there, an answer that is not one, and none at all are no obstacle to a verification.

    :param error: What came of the question, after its repetitions.
    """
    from airflow_provider_faceki.api.codes import REFUSED

    # One code stands for a refused token and for an unknown URL; HTTP's own word for the first is plain enough.
    no_such_url = (
        isinstance(error, api.AuthenticationError)
        and error.code == REFUSED
        and error.http_status not in {401, 403}
    )
    no_such_url |= isinstance(error, api.InvalidRequestError) and error.http_status in {404, 405}
    no_answer = error.is_transient and not isinstance(error, api.RateLimitError)
    return no_such_url or no_answer or isinstance(error, api.NotFoundError)


def fail_if_declined(record: api.VerificationRecord | None) -> None:
    """Fail the task for good if ``record`` is one of a declined person.

    :raises AirflowFailException: it is; the text names the request id and FACEKI's codes.
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
    """Fail the task at once for what another try cannot mend; let the rest pass as it is.

    The FACEKI error is the ``__cause__`` of the ``AirflowFailException``, so that an ``on_failure_callback``
    can ask it for code and request id. What lies behind it, such as a transport's exception with a URL or a
    header in its text, is cut off in either case, as Airflow logs a chain to its end.

    :param passes: What to let pass.
    """
    try:
        yield
    except api.FacekiError as error:
        error.__cause__ = error.__context__ = None
        if passes(error):
            raise
        from airflow.providers.common.compat.sdk import AirflowFailException

        told = f"{type(error).__name__}: {error}"
        if error.must_not_repeat:
            told += (
                "; the call may have been made, so it is not made again by itself: clear the task to do so"
            )
        raise AirflowFailException(told) from error
