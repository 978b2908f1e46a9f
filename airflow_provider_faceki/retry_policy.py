# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Retry policy of Airflow for tasks that use the hook directly.

``FACEKI_RETRY_POLICY`` goes into ``@task(retries=3, retry_policy=FACEKI_RETRY_POLICY)``. It exists in Airflow 3.3 and
later; on older Airflow this module does not have the name. FACEKI's operators need no policy: they fail at once for
errors that another try cannot mend, and look before they send again. Your own task does not look. So the policy does
not repeat it after a charged call with an unknown outcome, or after any other ``RawCall`` that must not be sent twice
and may have arrived.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_provider_faceki.api.errors import FacekiError, OutcomeUnknownError
from airflow_provider_faceki.failures import is_task_retryable

try:
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
except ImportError:
    # Airflow before 3.3 has no retry policies.
    __all__: list[str] = []
else:
    __all__ = ["FACEKI_RETRY_POLICY"]

    if TYPE_CHECKING:
        from airflow.providers.common.compat.sdk import Context

    class _FacekiRetryPolicy(RetryPolicy):
        """Fail at once for errors that another try cannot mend, and wait as long as FACEKI asks."""

        def evaluate(
            self,
            exception: BaseException,
            try_number: int,
            max_tries: int,
            context: Context | None = None,
        ) -> RetryDecision:
            """Decide by the kind of error; errors of other origin are left to Airflow."""
            if not isinstance(exception, FacekiError):
                return RetryDecision.default()
            if isinstance(exception, OutcomeUnknownError) or exception.needs_consent:
                kind = type(exception).__name__
                return RetryDecision.fail(reason=f"{kind}: another try may be billed again")
            if not is_task_retryable(exception):
                return RetryDecision.fail(reason=f"{type(exception).__name__}: another try cannot help")
            asked = exception.retry_after
            return RetryDecision.retry(
                delay=timedelta(seconds=asked) if asked is not None else None,
                reason=type(exception).__name__,
            )

    FACEKI_RETRY_POLICY = _FacekiRetryPolicy()
