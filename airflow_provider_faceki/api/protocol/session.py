# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The steps of a call, as generators. The steps get an access token, send the request, and replace a refused token.

The generators do no I/O. They yield effects, which are descriptions of I/O, such as "send this request". A driver
(``api/transport/drivers.py``) executes each effect, on the caller's thread or for an event loop. The driver sends the
result of the effect into the generator. If the effect fails, the driver throws the error into the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar

from airflow_provider_faceki.api.errors import FacekiError, NotFoundError, ResponseError, ValidationError
from airflow_provider_faceki.api.protocol.auth import AccessToken, RefreshLock, TokenRequest, TokenStore
from airflow_provider_faceki.api.protocol.envelope import Payload, is_token_refusal
from airflow_provider_faceki.api.protocol.messages import HttpRequest
from airflow_provider_faceki.api.service import Service

#: Seconds between two reads of the token store while another caller fetches the token. A token request takes about ten
#: times as long, so this pause delays a waiting caller only a little.
LOCK_POLL_SECONDS = 0.05
#: Only the owner of a refresh lock fetches a new token. The other callers wait for this token, at most this number of
#: seconds. If the token has not arrived after this time, the owner probably hangs or was killed. (The lock of a killed
#: owner is usually released at once, but not in a storage that several hosts share.) Then the waiting callers try
#: another lock; see :meth:`TokenStore.try_lock`. One of them acquires the other lock and fetches the token. The others
#: wait again.
MAX_LOCK_WAIT_SECONDS = 30.0
#: FACEKI possibly issues a token and then refuses this new token in a call. After such a refusal, the token is not
#: replaced for this number of seconds. FACEKI would probably refuse the next token too, and FACEKI charges extra for
#: many requests a day.
MIN_RENEWAL_SECONDS = 300.0

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class SendRequest:
    """Instruction to the driver, which does the I/O of a call: send an HTTP request, and return the answer's content.

    After a failure, the driver sends the request again if the retry policy allows this.
    """

    request: HttpRequest


@dataclass(frozen=True, slots=True)
class RunBlocking:
    """Instruction to the driver, which does the I/O of a call: run a short blocking function, and return its result.

    The asynchronous driver runs the function in a thread, so that the event loop is not blocked.
    """

    operation: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Sleep:
    """Instruction to the driver, which does the I/O of a call: wait for a number of seconds."""

    seconds: float


@dataclass(frozen=True, slots=True, repr=False)
class MaskSecret:
    """Instruction to the driver, which does the I/O of a call: mask a secret value in all later log lines.

    :param value: The secret.
    :param is_link: Whether the secret is the id or the URL of a new verification link. The driver is allowed to leave
        links unmasked, because masking becomes slower with each secret, and a process possibly creates thousands of
        links.
    """

    value: str
    is_link: bool = False


@dataclass(frozen=True, slots=True)
class CountToken:
    """Instruction to the driver, which does the I/O of a call: count a new access token in the metrics.

    The driver cannot count tokens by the HTTP status, because FACEKI can refuse a token request with HTTP 200.
    """


Effect: TypeAlias = "SendRequest | RunBlocking | Sleep | MaskSecret | CountToken"
# A generator of this type yields effects (instructions such as SendRequest). The result of each effect is sent into the
# generator. The type of this result depends on the effect, so it is annotated as Any. T is the type of the value that
# the generator returns.
Steps: TypeAlias = Generator[Effect, Any, T]


class Endpoint(Protocol[T_co]):
    """One call of FACEKI's API. An endpoint creates the HTTP request and interprets the answer.

    These further members of an endpoint are optional:

    * ``steps(session)``: Generator that performs the whole call, if the call needs more than :func:`call_once`.
    * ``empty(error)``: Method that is called with a NotFoundError. If this error proves that FACEKI has no record, the
      method returns the result of the call, such as an empty tuple. Otherwise the method raises a FacekiError.
    * ``reads_records = True``: An answer with a decision in each record is accepted, even if the outer object of the
      answer (its envelope) reports a failure without a code.
    * ``is_charged = True``: The call counts against the limit of charged calls (setting ``max_charged_calls`` of the
      Connection).
    """

    def request(self, service: Service = ...) -> HttpRequest:
        """Return the HTTP request of this call, with the URL and the field names from ``service``."""

    def read(self, answer: Payload) -> T_co:
        """Convert FACEKI's answer into the typed result of the call and return it."""


@dataclass(frozen=True, slots=True, repr=False)
class AuthSession:
    """An account at FACEKI with its token store.

    The object also remembers two tokens. One is the token that was registered last for masking in log lines. The other
    is the last new token that FACEKI refused.

    :param service: URLs, paths and field names of the FACEKI installation.
    :param clock: Function that returns the Unix time.
    """

    service: Service
    token_request: TokenRequest
    tokens: TokenStore
    clock: Callable[[], float]
    _masked: set[str] = field(default_factory=set)
    _refused: dict[str, float] = field(default_factory=dict)

    def needs_masking(self, token: AccessToken) -> bool:
        """Return whether ``token`` has to be registered for masking in log lines.

        One registration is sufficient for all later log lines. Therefore the result is false if the previous call of
        this method had the same token.
        """
        if token.value in self._masked:
            return False
        self._masked.clear()
        self._masked.add(token.value)
        return True

    def note_refusal(self, token: AccessToken) -> None:
        """Remember that FACEKI refused ``token``, although the token was new.

        During the next :data:`MIN_RENEWAL_SECONDS`, :meth:`may_renew` returns ``False`` for this token.
        """
        self._refused.clear()
        self._refused[token.value] = self.clock()

    def may_renew(self, token: AccessToken) -> bool:
        """Return whether a call is allowed to send its request once more after FACEKI refused ``token``.

        The result is false if :meth:`note_refusal` was called with ``token`` in the last :data:`MIN_RENEWAL_SECONDS`.
        FACEKI then refused ``token`` although it was new, so FACEKI would probably refuse the next token too.
        """
        refused_at = self._refused.get(token.value)
        return refused_at is None or not 0 <= self.clock() - refused_at < MIN_RENEWAL_SECONDS


def call(session: AuthSession, endpoint: Endpoint[T]) -> Steps[T]:
    """Perform one call. If the endpoint has its own ``steps``, run these steps. Otherwise run :func:`call_once`.

    :raises ValidationError: if ``endpoint`` is not an endpoint.
    :raises FacekiError: if the call failed.
    """
    _check_endpoint(endpoint)
    steps = getattr(endpoint, "steps", None)
    if steps is None:
        return (yield from call_once(session, endpoint))
    result: T = yield from steps(session)
    return result


def _check_endpoint(endpoint: object) -> None:
    # A caller possibly passes the class `FetchRecords` instead of an object `FetchRecords(request_id=…)`. The class has
    # the methods `request` and `read` too, so the second check below would accept the class, and a confusing error
    # would be raised later. Therefore the first check refuses classes.
    if isinstance(endpoint, type):
        raise ValidationError(
            f"call takes an endpoint with its arguments: {endpoint.__name__}(…), not {endpoint.__name__}"
        )
    if not (callable(getattr(endpoint, "request", None)) and callable(getattr(endpoint, "read", None))):
        raise ValidationError(
            f"call takes an endpoint such as FetchRecords(request_id=…), not {type(endpoint).__name__}"
        )


def call_once(session: AuthSession, endpoint: Endpoint[T]) -> Steps[T]:
    """Send the request of an endpoint and return the endpoint's result.

    If FACEKI refuses the access token, the request is sent once more. If the refused token is older than this call, the
    second request contains a new token. If the token was fetched during this call, the second request contains the same
    token, because FACEKI possibly accepts a new token only after a short delay. If FACEKI refuses the second request
    too, later calls with the same token send no second request for :data:`MIN_RENEWAL_SECONDS`.

    :raises FacekiError: if the call failed.
    """
    request = endpoint.request(session.service)
    request = replace(request, endpoint=request.endpoint or type(endpoint).__name__)
    try:
        if request.authenticated:
            answer: Payload = yield from _call_with_token(session, request)
        else:
            answer = yield SendRequest(request)
    except NotFoundError as error:
        empty = getattr(endpoint, "empty", None)
        if empty is None:
            raise
        not_found = error
    else:
        if answer.failure is not None and not getattr(endpoint, "reads_records", False):
            raise answer.failure
        if session.service.null_result == "no_record":
            answer = replace(answer, null_is_no_record=True)
        return endpoint.read(answer)
    # `empty` possibly raises a new error. Inside the except block, Python would store the caught NotFoundError in the
    # `__context__` of the new error, and a traceback would show both errors. Therefore `empty` is called outside of the
    # except block.
    result: T = empty(not_found)
    return result


def token(session: AuthSession) -> Steps[AccessToken]:
    """Return the stored token if it is usable. Otherwise fetch a new token, store it and return it.

    If several callers need a new token at the same time, only one of them fetches it, and the others wait for it. If
    the token does not arrive within :data:`MAX_LOCK_WAIT_SECONDS`, one of the waiting callers fetches a token instead.
    """
    found = session.tokens.peek()
    if found is None or not found.usable(session.clock()):
        found = yield from _shared_token(session)
    if session.needs_masking(found):
        yield MaskSecret(found.value)
    return found


def fetch_token(session: AuthSession) -> Steps[AccessToken]:
    """Request a new token from FACEKI and return it. The token store is neither read nor changed.

    :raises AuthenticationError: if FACEKI does not accept the credentials.
    :raises ConfigurationError: if FACEKI does not know the form of the token request (``auth_flow``).
    :raises FacekiError: if the request failed for another reason.
    """
    requested_at = session.clock()
    try:
        answer = yield SendRequest(session.token_request.request())
    except ResponseError as error:
        raise session.token_request.map_error(error) from None
    fetched = session.token_request.read(answer, requested_at)
    yield CountToken()
    return fetched


def _call_with_token(session: AuthSession, request: HttpRequest) -> Steps[Payload]:
    began = session.clock()
    bearer = yield from _token_first(session)
    try:
        answer: Payload = yield SendRequest(_with_token(session, request, bearer))
    except ResponseError as error:
        if not _may_renew(session, request, error, bearer, began):
            raise
        refusal = error
    else:
        return answer
    # FACEKI refused the token. A token that is older than this call is replaced by a new token. A token that was
    # fetched during this call is sent again, because FACEKI possibly accepts a new token only after a short delay.
    if bearer.obtained_at <= began:
        yield RunBlocking(lambda: session.tokens.invalidate(bearer))
        bearer = yield from _token_first(session)
    try:
        answer = yield SendRequest(_with_token(session, request, bearer))
    except ResponseError as error:
        if is_token_refusal(error) or error.may_refuse_token:
            session.note_refusal(bearer)
            error.message += _ADVICE if is_token_refusal(refusal) else ""
        raise
    return answer


_ADVICE = (
    "; FACEKI refuses a new token too, so check the credentials' rights in the FACEKI portal, the API "
    "base URL, the path of the call, and the Connection's auth_header and auth_scheme"
)


def _may_renew(
    session: AuthSession, request: HttpRequest, error: ResponseError, token: AccessToken, began: float
) -> bool:
    """Return True if FACEKI possibly refused the token, and the caller is allowed to send the request once more.

    :param error: The error with which FACEKI answered.
    :param token: The access token that was sent.
    :param began: Unix time at which the call began.
    """
    if not session.may_renew(token):
        return False
    if is_token_refusal(error):
        return True
    # The error has several possible causes, and a refused token is only one of them. Therefore the request is sent
    # again only under two conditions:
    #
    # - The token is older than the call. A token that was fetched during the call has not expired, so the error
    #   probably has another cause.
    # - A second request does no harm.
    is_new = token.obtained_at > began
    return error.may_refuse_token and not is_new and (request.idempotent or not error.is_ambiguous)


def _with_token(session: AuthSession, request: HttpRequest, token: AccessToken) -> HttpRequest:
    return request.with_token(token.value, session.service.auth_header, session.service.auth_scheme)


def _token_first(session: AuthSession) -> Steps[AccessToken]:
    try:
        return (yield from token(session))
    except FacekiError as error:
        # The token request failed. The request of the call itself was not sent, or FACEKI refused the token of this
        # request. In both cases, FACEKI has certainly not acted on the call. Therefore `is_ambiguous` is set to false.
        error.is_ambiguous = False
        raise


def _shared_token(session: AuthSession) -> Steps[AccessToken]:
    waited = 0.0
    while True:
        found: AccessToken | None = yield RunBlocking(session.tokens.read)
        if found is not None and found.usable(session.clock()):
            return found
        generation = int(waited / MAX_LOCK_WAIT_SECONDS)
        lock: RefreshLock | None = yield RunBlocking(partial(session.tokens.try_lock, generation))
        if lock is not None:
            return (yield from _fetch_under(session, lock))
        yield Sleep(LOCK_POLL_SECONDS)
        waited += LOCK_POLL_SECONDS


def _fetch_under(session: AuthSession, lock: RefreshLock) -> Steps[AccessToken]:
    try:
        # The store is read again, because another caller possibly stored a token shortly before this caller acquired
        # the lock.
        found: AccessToken | None = yield RunBlocking(session.tokens.read)
        if found is not None and found.usable(session.clock()):
            return found
        fetched = yield from fetch_token(session)
        if fetched.lifetime:
            yield RunBlocking(lambda: session.tokens.set(fetched))
        return fetched
    finally:
        lock.release()
