# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Retry policy: which failed requests are sent again, and when, as arguments for tenacity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from tenacity import RetryCallState, stop_after_attempt, wait_exponential, wait_random
from tenacity.retry import RetryBaseT
from tenacity.stop import StopBaseT
from tenacity.wait import WaitBaseT

from airflow_provider_faceki.api.errors import FacekiError
from airflow_provider_faceki.api.protocol.http import HttpRequest

#: Seconds before the second attempt; doubled for each further one.
INITIAL_WAIT_SECONDS = 0.5

# With jitter of up to the first wait, so that calls that failed together do not come back together.
_BACKOFF = wait_exponential(multiplier=INITIAL_WAIT_SECONDS) + wait_random(0, INITIAL_WAIT_SECONDS)


class RetryArguments(TypedDict):
    """Arguments that ``tenacity.Retrying`` and ``tenacity.AsyncRetrying`` both take."""

    stop: StopBaseT
    wait: WaitBaseT
    retry: RetryBaseT
    reraise: bool


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after which pauses, one request is sent again inside one call.

    :param max_attempts: Attempts in all. Default 4: three pauses of about half, one and two seconds
        outlast the restart of a gateway and hold a worker only shortly.
    :param max_wait: Longest pause in seconds, also where ``Retry-After`` asks for more. Default 30.
    """

    max_attempts: int = 4
    max_wait: float = 30.0

    def arguments(self) -> RetryArguments:
        """Return the keyword arguments for tenacity; the retried function's first argument is the request."""
        return {
            "stop": stop_after_attempt(self.max_attempts),
            "wait": self._wait,
            "retry": _retry,
            "reraise": True,
        }

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, FacekiError) else None
        return min(max(asked or 0.0, _BACKOFF(state)), self.max_wait)


def may_repeat(request: HttpRequest, error: BaseException) -> bool:
    """Whether ``request`` may be sent again after ``error``.

    True if the error is transient and a second request does no harm: it is idempotent, or FACEKI cannot have acted.
    """
    if not isinstance(error, FacekiError) or not error.is_transient:
        return False
    return request.idempotent or not error.is_ambiguous


def _retry(state: RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    return error is not None and may_repeat(state.args[0], error)
