# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Retry policy, which decides which failed requests are sent again, and after how many seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tenacity import RetryCallState, stop_after_attempt, wait_exponential, wait_random

from airflow_provider_faceki.api.errors import FacekiError
from airflow_provider_faceki.api.protocol.messages import HttpRequest

#: Pause in seconds before the second attempt of a request. The pause is doubled before each further attempt, up to the
#: maximum of the retry policy. A random time is added to each pause.
INITIAL_WAIT_SECONDS = 0.5

# The pause has a random part, so that requests that failed at the same time are not repeated at the same time.
_BACKOFF = wait_exponential(multiplier=INITIAL_WAIT_SECONDS) + wait_random(0, INITIAL_WAIT_SECONDS)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits for sending a failed request again within one call.

    :param max_attempts: Maximum number of attempts, including the first. The default is 4. With this default, there are
        three pauses of at least 0.5, 1 and 2 seconds. Together, the pauses are probably longer than the restart of a
        gateway, but they block a worker only for a short time.
    :param max_wait: Maximum pause in seconds, even if ``Retry-After`` is longer. Default: 30.
    """

    max_attempts: int = 4
    max_wait: float = 30.0

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments for ``tenacity.Retrying`` and ``tenacity.AsyncRetrying``.

        The function that tenacity repeats must have the HTTP request as its first argument.
        """
        return {
            "stop": stop_after_attempt(self.max_attempts),
            "wait": self._wait,
            "retry": _retry,
            "reraise": True,
        }

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        retry_after = error.retry_after if isinstance(error, FacekiError) else None
        return min(max(retry_after or 0.0, _BACKOFF(state)), self.max_wait)


def may_repeat(request: HttpRequest, error: BaseException) -> bool:
    """Return whether ``request`` is allowed to be sent again after ``error``.

    The error must be transient, and a second request must do no harm. A second request does no harm if the request is
    idempotent, or if FACEKI certainly did not act on the first request.
    """
    if not isinstance(error, FacekiError) or not error.is_transient:
        return False
    return request.idempotent or not error.is_ambiguous


def _retry(state: RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    return error is not None and may_repeat(state.args[0], error)
