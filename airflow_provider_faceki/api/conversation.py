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

from airflow_provider_faceki.api.auth import AccessToken, Claim, RequestToken, TokenStore
from airflow_provider_faceki.api.envelope import Answer, is_token_refusal
from airflow_provider_faceki.api.errors import AnswerError, FacekiError, InputError, NotFoundError
from airflow_provider_faceki.api.service import Service
from airflow_provider_faceki.api.wire import HttpRequest

#: Seconds between two looks while somebody else fetches the token: a token request takes about ten of these.
CLAIM_PAUSE = 0.05
#: Seconds after which a claim is not waited for any more: its holder may be stopped, or the claim be stuck.
#: A killed holder gives its claim back at once; this is for one that neither lives nor dies. Of those who waited one
#: takes the next turn, and the others wait for that one as long again.
CLAIM_PATIENCE = 30.0

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Exchange:
    """Send this request, again where that is allowed, and read the answer."""

    request: HttpRequest


@dataclass(frozen=True, slots=True)
class Offload:
    """Run this short file operation; never on an event loop."""

    operation: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True, repr=False)
class Conceal:
    """Keep this value out of logs from now on."""

    value: str


Effect: TypeAlias = "Exchange | Offload | Pause | Conceal"
# What is sent back depends on the effect, which a generator's type cannot say: the one `Any` of this package.
Conversation: TypeAlias = Generator[Effect, Any, T]


class Endpoint(Protocol[T_co]):
    """One call of FACEKI: what to ask and what the answer means."""

    def request(self, service: Service = ...) -> HttpRequest:
        """Return the request for this installation of FACEKI."""

    def read(self, answer: Answer) -> T_co:
        """Return the typed result."""


@runtime_checkable
class MayBeAbsent(Protocol):
    """An endpoint for which "not found" is a result."""

    def absent(self) -> object:
        """Return the result that stands for nothing found."""


@runtime_checkable
class Conversing(Protocol):
    """An endpoint that takes more than one question."""

    def converse(self, account: Account) -> Conversation[object]:
        """Ask whatever it takes; return what ``read()`` returns."""


@dataclass(frozen=True, slots=True, repr=False)
class Account:
    """Who asks, and what they know.

    :param service: FACEKI's addresses.
    :param token_request: How to get a token.
    :param tokens: Where the token lives.
    :param clock: Unix time.
    """

    service: Service
    token_request: RequestToken
    tokens: TokenStore
    clock: Callable[[], float]
    _concealed: set[str] = field(default_factory=set)

    def first_seen(self, token: AccessToken) -> bool:
        """Whether ``token`` is new here and has to be kept out of logs; true once a token."""
        if token.value in self._concealed:
            return False
        self._concealed.clear()
        self._concealed.add(token.value)
        return True


def ask(account: Account, endpoint: Endpoint[T]) -> Conversation[T]:
    """Ask one thing, in the way that the endpoint asks for.

    :raises InputError: it is no endpoint.
    :raises FacekiError: any of the tree.
    """
    _check_endpoint(endpoint)
    if isinstance(endpoint, Conversing):
        return (yield from endpoint.converse(account))  # type: ignore[return-value]  # what read() returns
    return (yield from ask_once(account, endpoint))


def _check_endpoint(endpoint: object) -> None:
    # A class has the same methods; called on it, they fail far from the mistake.
    if isinstance(endpoint, type):
        raise InputError(
            f"ask takes a call with its arguments: {endpoint.__name__}(…), not {endpoint.__name__}"
        )
    if not (callable(getattr(endpoint, "request", None)) and callable(getattr(endpoint, "read", None))):
        raise InputError(
            f"ask takes a call such as FetchRecords(request_id=…), not {type(endpoint).__name__}"
        )


def ask_once(account: Account, endpoint: Endpoint[T]) -> Conversation[T]:
    """Ask one question. A refused token is replaced once; a second refusal is an answer.

    :raises FacekiError: any of the tree.
    """
    request = endpoint.request(account.service)
    try:
        if request.authenticated:
            answer = yield from _ask_with_token(account, request)
        else:
            answer = yield Exchange(request)
    except NotFoundError:
        if isinstance(endpoint, MayBeAbsent):
            return endpoint.absent()  # type: ignore[return-value]  # absent() returns what read() returns
        raise
    return endpoint.read(answer)


def token(account: Account) -> Conversation[AccessToken]:
    """Get a usable token: the one there is, or a new one if the right to fetch it is ours."""
    found = account.tokens.peek()
    if found is None or not found.usable(account.clock()):
        found = yield from _shared_token(account)
    if account.first_seen(found):
        yield Conceal(found.value)
    return found


def fetch_token(account: Account) -> Conversation[AccessToken]:
    """Ask FACEKI for a new token, whatever is in the store.

    :raises AuthenticationError: FACEKI does not accept the credentials.
    :raises ConfigurationError: FACEKI does not know this form of the request.
    """
    asked_at = account.clock()
    try:
        answer = yield Exchange(account.token_request.request())
    except AnswerError as error:
        raise account.token_request.explain(error) from None
    return account.token_request.read(answer, asked_at)


def _ask_with_token(account: Account, request: HttpRequest) -> Conversation[Answer]:
    bearer = yield from _token_first(account)
    try:
        answer: Answer = yield Exchange(request.bearing(bearer.value))
        return answer
    except AnswerError as error:
        if not is_token_refusal(error):
            raise
    yield Offload(lambda: account.tokens.drop(bearer))
    renewed = yield from _token_first(account)
    answer = yield Exchange(request.bearing(renewed.value))
    return answer


def _token_first(account: Account) -> Conversation[AccessToken]:
    try:
        return (yield from token(account))
    except FacekiError as error:
        # It befell the request for a token; what the token is for has not been sent, or was refused for want of it.
        error.may_have_acted = False
        raise


def _shared_token(account: Account) -> Conversation[AccessToken]:
    waited = 0.0
    while True:
        found: AccessToken | None = yield Offload(account.tokens.read)
        if found is not None and found.usable(account.clock()):
            return found
        turn = int(waited / CLAIM_PATIENCE)
        claim: Claim | None = yield Offload(partial(account.tokens.claim, turn))
        if claim is not None:
            return (yield from _fetch_under(account, claim))
        yield Pause(CLAIM_PAUSE)
        waited += CLAIM_PAUSE


def _fetch_under(account: Account, claim: Claim) -> Conversation[AccessToken]:
    try:
        # Somebody may have finished between our look and our claim.
        found: AccessToken | None = yield Offload(account.tokens.read)
        if found is not None and found.usable(account.clock()):
            return found
        fetched = yield from fetch_token(account)
        if fetched.lifetime:
            yield Offload(lambda: account.tokens.keep(fetched))
        return fetched
    finally:
        claim.release()
