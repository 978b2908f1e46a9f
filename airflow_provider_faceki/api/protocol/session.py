# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The order of things: a token, the question, and what to do when the token is refused.

These generators decide and do nothing else: they yield effects, and a performer (``performers.py``) carries
each out, here or off the event loop, and sends back what came of it or throws the error that it met.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from airflow_provider_faceki.api.errors import FacekiError, NotFoundError, ResponseError, ValidationError
from airflow_provider_faceki.api.protocol.auth import AccessToken, RefreshLock, TokenRequest, TokenStore
from airflow_provider_faceki.api.protocol.envelope import Payload, is_token_refusal
from airflow_provider_faceki.api.protocol.http import HttpRequest
from airflow_provider_faceki.api.service import Service

#: Seconds between two looks while somebody else fetches the token: a token request takes about ten of these.
LOCK_POLL_SECONDS = 0.05
#: Seconds after which a claim is not waited for any more: its holder may be stopped, or the claim be stuck.
#: A killed holder gives its claim back at once; this is for one that neither lives nor dies. Of those who waited one
#: takes the next turn, and the others wait for that one as long again.
MAX_LOCK_WAIT_SECONDS = 30.0

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class SendRequest:
    """Send this request, again where that is allowed, and read the answer."""

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
# What is sent back depends on the effect, which a generator's type cannot say: the one `Any` of this package.
Steps: TypeAlias = Generator[Effect, Any, T]


class Endpoint(Protocol[T_co]):
    """One call of FACEKI: what to ask and what the answer means."""

    def request(self, service: Service = ...) -> HttpRequest:
        """Return the request for this installation of FACEKI."""

    def read(self, answer: Payload) -> T_co:
        """Return the typed result."""


@runtime_checkable
class OptionalResult(Protocol):
    """An endpoint for which "not found" is a result."""

    def empty(self) -> object:
        """Return the result that stands for nothing found."""


@runtime_checkable
class MultiStep(Protocol):
    """An endpoint that takes more than one question."""

    def steps(self, account: AuthSession) -> Steps[object]:
        """Ask whatever it takes; return what ``read()`` returns."""


@dataclass(frozen=True, slots=True, repr=False)
class AuthSession:
    """Who asks, and what they know.

    :param service: FACEKI's addresses.
    :param token_request: How to get a token.
    :param tokens: Where the token lives.
    :param clock: Unix time.
    """

    service: Service
    token_request: TokenRequest
    tokens: TokenStore
    clock: Callable[[], float]
    _concealed: set[str] = field(default_factory=set)

    def needs_masking(self, token: AccessToken) -> bool:
        """Whether ``token`` is new here and has to be kept out of logs; true once a token."""
        if token.value in self._concealed:
            return False
        self._concealed.clear()
        self._concealed.add(token.value)
        return True


def call(account: AuthSession, endpoint: Endpoint[T]) -> Steps[T]:
    """Ask one thing, in the way that the endpoint asks for.

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
            f"ask takes a call with its arguments: {endpoint.__name__}(…), not {endpoint.__name__}"
        )
    if not (callable(getattr(endpoint, "request", None)) and callable(getattr(endpoint, "read", None))):
        raise ValidationError(
            f"ask takes a call such as FetchRecords(request_id=…), not {type(endpoint).__name__}"
        )


def call_once(account: AuthSession, endpoint: Endpoint[T]) -> Steps[T]:
    """Ask one question. A refused token is replaced once; a second refusal is an answer.

    :raises FacekiError: any of the tree.
    """
    request = endpoint.request(account.service)
    try:
        if request.authenticated:
            answer = yield from _call_with_token(account, request)
        else:
            answer = yield SendRequest(request)
    except NotFoundError:
        if isinstance(endpoint, OptionalResult):
            return endpoint.empty()  # type: ignore[return-value]  # absent() returns what read() returns
        raise
    return endpoint.read(answer)


def token(account: AuthSession) -> Steps[AccessToken]:
    """Get a usable token: the one there is, or a new one if the right to fetch it is ours."""
    found = account.tokens.peek()
    if found is None or not found.usable(account.clock()):
        found = yield from _shared_token(account)
    if account.needs_masking(found):
        yield MaskSecret(found.value)
    return found


def fetch_token(account: AuthSession) -> Steps[AccessToken]:
    """Ask FACEKI for a new token, whatever is in the store.

    :raises AuthenticationError: FACEKI does not accept the credentials.
    :raises ConfigurationError: FACEKI does not know this form of the request.
    """
    asked_at = account.clock()
    try:
        answer = yield SendRequest(account.token_request.request())
    except ResponseError as error:
        raise account.token_request.map_error(error) from None
    return account.token_request.read(answer, asked_at)


def _call_with_token(account: AuthSession, request: HttpRequest) -> Steps[Payload]:
    bearer = yield from _token_first(account)
    try:
        answer: Payload = yield SendRequest(_with_token(account, request, bearer))
        return answer
    except ResponseError as error:
        if not is_token_refusal(error):
            raise
    yield RunBlocking(lambda: account.tokens.invalidate(bearer))
    renewed = yield from _token_first(account)
    answer = yield SendRequest(_with_token(account, request, renewed))
    return answer


def _with_token(account: AuthSession, request: HttpRequest, token: AccessToken) -> HttpRequest:
    return request.with_token(token.value, account.service.auth_header, account.service.auth_scheme)


def _token_first(account: AuthSession) -> Steps[AccessToken]:
    try:
        return (yield from token(account))
    except FacekiError as error:
        # It befell the request for a token; what the token is for has not been sent, or was refused for want of it.
        error.is_ambiguous = False
        raise


def _shared_token(account: AuthSession) -> Steps[AccessToken]:
    waited = 0.0
    while True:
        found: AccessToken | None = yield RunBlocking(account.tokens.read)
        if found is not None and found.usable(account.clock()):
            return found
        turn = int(waited / MAX_LOCK_WAIT_SECONDS)
        claim: RefreshLock | None = yield RunBlocking(partial(account.tokens.try_lock, turn))
        if claim is not None:
            return (yield from _fetch_under(account, claim))
        yield Sleep(LOCK_POLL_SECONDS)
        waited += LOCK_POLL_SECONDS


def _fetch_under(account: AuthSession, claim: RefreshLock) -> Steps[AccessToken]:
    try:
        # Somebody may have finished between our look and our claim.
        found: AccessToken | None = yield RunBlocking(account.tokens.read)
        if found is not None and found.usable(account.clock()):
            return found
        fetched = yield from fetch_token(account)
        if fetched.lifetime:
            yield RunBlocking(lambda: account.tokens.set(fetched))
        return fetched
    finally:
        claim.release()
