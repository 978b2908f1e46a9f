# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The steps of a call: get a token, send the request, replace a refused token.

These generators decide and do no I/O. They yield effects; a driver (``transport/drivers.py``) carries each out, on a
thread or for an event loop, and sends back the result or throws the error.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from airflow_provider_faceki.api.errors import FacekiError, NotFoundError, ResponseError, ValidationError
from airflow_provider_faceki.api.protocol.auth import AccessToken, RefreshLock, TokenRequest, TokenStore
from airflow_provider_faceki.api.protocol.envelope import Payload, is_token_refusal
from airflow_provider_faceki.api.protocol.http import HttpRequest
from airflow_provider_faceki.api.service import Service

#: Seconds between two looks while another holder fetches the token; a token request takes about ten times as long.
LOCK_POLL_SECONDS = 0.05
#: Seconds after which the holder of the refresh lock is not waited for any longer. A killed holder releases it at once;
#: this is for one that hangs. Of those who waited, one takes the lock of the next generation, and the others wait for
#: that one as long again.
MAX_LOCK_WAIT_SECONDS = 30.0
#: Seconds after which a token is renewed again that was refused when it was new. FACEKI charges for needless tokens.
MIN_RENEWAL_SECONDS = 300.0

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class SendRequest:
    """Send this request, again where the retry policy allows it, and read the answer."""

    request: HttpRequest


@dataclass(frozen=True, slots=True)
class RunBlocking:
    """Run this short file operation; never on an event loop."""

    operation: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True, repr=False)
class MaskSecret:
    """Keep this value out of logs from now on."""

    value: str


Effect: TypeAlias = "SendRequest | RunBlocking | Sleep | MaskSecret"
# The type of what is sent back depends on the effect, which a generator's type cannot say.
Steps: TypeAlias = Generator[Effect, Any, T]


class Endpoint(Protocol[T_co]):
    """One call of FACEKI: its request, and the reading of its answer."""

    def request(self, service: Service = ...) -> HttpRequest:
        """Return the request for this installation of FACEKI."""

    def read(self, answer: Payload) -> T_co:
        """Return the typed result."""


@runtime_checkable
class OptionalResult(Protocol):
    """An endpoint for which "not found" is a result."""

    def empty(self, error: NotFoundError) -> object:
        """Return the result for nothing found, or raise if ``error`` does not say that surely."""


@runtime_checkable
class MultiStep(Protocol):
    """An endpoint that takes more than one request."""

    def steps(self, account: AuthSession) -> Steps[object]:
        """Perform the call and return what ``read()`` returns."""


@dataclass(frozen=True, slots=True, repr=False)
class AuthSession:
    """An account at FACEKI with its token.

    :param service: FACEKI's addresses and names.
    :param token_request: The request for a token.
    :param tokens: The store of the token.
    :param clock: Returns Unix time.
    """

    service: Service
    token_request: TokenRequest
    tokens: TokenStore
    clock: Callable[[], float]
    _masked: set[str] = field(default_factory=set)
    _refused: dict[str, float] = field(default_factory=dict)

    def needs_masking(self, token: AccessToken) -> bool:
        """Return whether ``token`` is new here and has to be kept out of logs; true once for each token."""
        if token.value in self._masked:
            return False
        self._masked.clear()
        self._masked.add(token.value)
        return True

    def note_refusal(self, token: AccessToken) -> None:
        """Remember that ``token`` was refused although it was new: another new one would not help."""
        self._refused.clear()
        self._refused[token.value] = self.clock()

    def may_renew(self, token: AccessToken) -> bool:
        """Return whether a new token may help where ``token`` is refused."""
        refused_at = self._refused.get(token.value)
        return refused_at is None or not 0 <= self.clock() - refused_at < MIN_RENEWAL_SECONDS


def call(account: AuthSession, endpoint: Endpoint[T]) -> Steps[T]:
    """Perform one call, in one request or in the steps that the endpoint takes.

    :raises ValidationError: it is no endpoint.
    :raises FacekiError: any of the tree.
    """
    _check_endpoint(endpoint)
    if isinstance(endpoint, MultiStep):
        return (yield from endpoint.steps(account))  # type: ignore[return-value]  # what read() returns
    return (yield from call_once(account, endpoint))


def _check_endpoint(endpoint: object) -> None:
    # A class has the same methods; called on it, they fail far from the mistake.
    if isinstance(endpoint, type):
        raise ValidationError(
            f"call takes an endpoint with its arguments: {endpoint.__name__}(…), not {endpoint.__name__}"
        )
    if not (callable(getattr(endpoint, "request", None)) and callable(getattr(endpoint, "read", None))):
        raise ValidationError(
            f"call takes an endpoint such as FetchRecords(request_id=…), not {type(endpoint).__name__}"
        )


def call_once(account: AuthSession, endpoint: Endpoint[T]) -> Steps[T]:
    """Send one request and read the answer. A refused token is replaced once.

    :raises FacekiError: any of the tree.
    """
    request = replace(endpoint.request(account.service), endpoint=type(endpoint).__name__)
    try:
        if request.authenticated:
            answer: Payload = yield from _call_with_token(account, request)
        else:
            answer = yield SendRequest(request)
    except NotFoundError as error:
        if not isinstance(endpoint, OptionalResult):
            raise
        not_found = error
    else:
        if answer.failure is not None and not getattr(endpoint, "reads_records", False):
            raise answer.failure
        return endpoint.read(answer)
    return endpoint.empty(not_found)  # type: ignore[return-value]  # empty() returns what read() returns


def token(account: AuthSession) -> Steps[AccessToken]:
    """Get a usable token: the stored one, or a new one under the refresh lock."""
    found = account.tokens.peek()
    if found is None or not found.usable(account.clock()):
        found = yield from _shared_token(account)
    if account.needs_masking(found):
        yield MaskSecret(found.value)
    return found


def fetch_token(account: AuthSession) -> Steps[AccessToken]:
    """Request a new token, past the store.

    :raises AuthenticationError: FACEKI does not accept the credentials.
    :raises ConfigurationError: FACEKI does not know this form of the request.
    """
    requested_at = account.clock()
    try:
        answer = yield SendRequest(account.token_request.request())
    except ResponseError as error:
        raise account.token_request.map_error(error) from None
    return account.token_request.read(answer, requested_at)


def _call_with_token(account: AuthSession, request: HttpRequest) -> Steps[Payload]:
    began = account.clock()
    bearer = yield from _token_first(account)
    try:
        answer: Payload = yield SendRequest(_with_token(account, request, bearer))
    except ResponseError as error:
        if not _may_renew(account, request, error, bearer, began):
            raise
        refusal = error
    else:
        return answer
    # A token that this very call has fetched is not replaced: the next would be refused as well. It is sent once more,
    # since the service may have to learn of it first.
    if bearer.obtained_at <= began:
        yield RunBlocking(lambda: account.tokens.invalidate(bearer))
        bearer = yield from _token_first(account)
    try:
        answer = yield SendRequest(_with_token(account, request, bearer))
    except ResponseError as error:
        if is_token_refusal(error) or error.may_refuse_token:
            account.note_refusal(bearer)
            error.message += _ADVICE if is_token_refusal(refusal) else ""
        raise
    return answer


_ADVICE = (
    "; a new token is refused as well, so check the credentials' rights in the FACEKI portal, the API base URL, and "
    "the Connection's auth_header and auth_scheme"
)


def _may_renew(
    account: AuthSession, request: HttpRequest, error: ResponseError, token: AccessToken, began: float
) -> bool:
    """Return whether the request is sent again, with a new token if this one is not new."""
    if not account.may_renew(token):
        return False
    if is_token_refusal(error):
        return True
    # What only may be a refusal: a new token is asked for once, and for what does no harm when it is sent again.
    is_new = token.obtained_at > began
    return error.may_refuse_token and not is_new and (request.idempotent or not error.is_ambiguous)


def _with_token(account: AuthSession, request: HttpRequest, token: AccessToken) -> HttpRequest:
    return request.with_token(token.value, account.service.auth_header, account.service.auth_scheme)


def _token_first(account: AuthSession) -> Steps[AccessToken]:
    try:
        return (yield from token(account))
    except FacekiError as error:
        # The token request failed. The request that needs the token has not been sent, or was refused without it.
        error.is_ambiguous = False
        raise


def _shared_token(account: AuthSession) -> Steps[AccessToken]:
    waited = 0.0
    while True:
        found: AccessToken | None = yield RunBlocking(account.tokens.read)
        if found is not None and found.usable(account.clock()):
            return found
        generation = int(waited / MAX_LOCK_WAIT_SECONDS)
        lock: RefreshLock | None = yield RunBlocking(partial(account.tokens.try_lock, generation))
        if lock is not None:
            return (yield from _fetch_under(account, lock))
        yield Sleep(LOCK_POLL_SECONDS)
        waited += LOCK_POLL_SECONDS


def _fetch_under(account: AuthSession, lock: RefreshLock) -> Steps[AccessToken]:
    try:
        # Another holder may have finished between our look and our lock.
        found: AccessToken | None = yield RunBlocking(account.tokens.read)
        if found is not None and found.usable(account.clock()):
            return found
        fetched = yield from fetch_token(account)
        if fetched.lifetime:
            yield RunBlocking(lambda: account.tokens.set(fetched))
        return fetched
    finally:
        lock.release()
