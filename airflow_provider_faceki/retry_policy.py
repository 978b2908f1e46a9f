# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Airflow retry policy for your own tasks that call FACEKI through ``FacekiHook``.

The policy fails a task at once after an error that another try cannot solve. After other errors Airflow retries the
task. If FACEKI has named a time for the next request (header ``Retry-After``), the retry waits for this time.

Use the policy as ``@task(retries=3, retry_policy=FACEKI_RETRY_POLICY)``. The policy requires Airflow 3.3 or later. In
older versions of Airflow, this module does not define the name ``FACEKI_RETRY_POLICY``.

The operators of this provider do not need the policy. They fail at once after errors that another try cannot solve. If
an earlier try possibly sent a charged call, an operator does not simply send the call again. It first looks for the
result of the call, or it fails. Your own task does not look for an earlier result. Therefore the policy does not repeat
your task after a charged call with an unknown outcome. If an ``execution_timeout`` interrupts a charged call, the
outcome of the call is unknown.

The policy does not cover an error that happens after the end of a charged call, for example in your own code. The next
try then makes the charged call again.

A ``RawCall`` is a call for which you choose the HTTP method and the path. Its parameter ``idempotent`` says whether the
request can be sent twice. If ``idempotent`` is false and the request possibly reached FACEKI, the policy does not
repeat your task. By default, ``idempotent`` is true only for GET and HEAD.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_provider_faceki.api.charge_limit import has_unknown_outcome
from airflow_provider_faceki.api.errors import FacekiError, OutcomeUnknownError
from airflow_provider_faceki.failures import is_task_retryable

try:
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
except ImportError:
    # Airflow before 3.3 has no retry policies. Therefore this module does not define FACEKI_RETRY_POLICY there.
    __all__: list[str] = []
else:
    __all__ = ["FACEKI_RETRY_POLICY"]

    if TYPE_CHECKING:
        from airflow.providers.common.compat.sdk import Context

    class _FacekiRetryPolicy(RetryPolicy):
        """Retry policy that fails a task at once after FACEKI errors that another try cannot solve.

        After other FACEKI errors, the next try starts after the time that FACEKI has requested. If FACEKI has requested
        no time, Airflow's own delay applies.
        """

        def evaluate(
            self,
            exception: BaseException,
            try_number: int,
            max_tries: int,
            context: Context | None = None,
        ) -> RetryDecision:
            """Return whether Airflow retries the task after an error, and after which time.

            If the outcome of a charged call is unknown, the task fails, whatever the error is. After an error that is
            not a FACEKI error, Airflow's default policy applies.
            """
            # DAG files import this module, so it imports the hook only when a try has failed.
            from airflow_provider_faceki.hooks.faceki import current_try

            if has_unknown_outcome(current_try(context)):
                kind = type(exception).__name__
                return RetryDecision.fail(reason=f"{kind} in a charged call: another try may be billed again")
            if not isinstance(exception, FacekiError):
                return RetryDecision.default()
            if isinstance(exception, OutcomeUnknownError) or exception.needs_consent:
                kind = type(exception).__name__
                return RetryDecision.fail(reason=f"{kind}: another try may be billed again")
            if not is_task_retryable(exception):
                return RetryDecision.fail(reason=f"{type(exception).__name__}: another try cannot help")
            retry_after = exception.retry_after
            return RetryDecision.retry(
                delay=timedelta(seconds=retry_after) if retry_after is not None else None,
                reason=type(exception).__name__,
            )

    FACEKI_RETRY_POLICY = _FacekiRetryPolicy()
