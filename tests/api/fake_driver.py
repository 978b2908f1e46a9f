# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What does a conversation want next? A performer with neither network nor clock, that writes down each wish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from airflow_provider_faceki.api.errors import FacekiError
from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenRequest
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.http import HttpRequest
from airflow_provider_faceki.api.protocol.session import (
    AuthSession,
    Effect,
    MaskSecret,
    RunBlocking,
    SendRequest,
    Steps,
)
from airflow_provider_faceki.api.protocol.session import Sleep as Sleep
from airflow_provider_faceki.api.service import FACEKI
from airflow_provider_faceki.api.tokens.memory import MemoryRefreshLock, MemoryTokenStore

T = TypeVar("T")
NOW = 1_700_000_000.0


class Notes(MemoryTokenStore):
    """The store in memory, which notes what is asked of it."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self.notes = notes

    def read(self) -> AccessToken | None:
        self.notes.append("read")
        return super().read()

    def try_lock(self, generation: int = 0) -> MemoryRefreshLock | None:
        claim = super().try_lock(generation)
        self.notes.append("claim" if claim else "no claim")
        return claim

    def set(self, token: AccessToken) -> None:
        self.notes.append(f"keep {token.value}")
        super().set(token)

    def invalidate(self, token: AccessToken) -> None:
        self.notes.append(f"drop {token.value}")
        super().invalidate(token)

    def _release(self, lock: MemoryRefreshLock) -> None:
        self.notes.append("release")
        super()._release(lock)

    @property
    def is_free(self) -> bool:
        """Whether the right to fetch could be had now."""
        claim = super().try_lock()
        if claim is not None:
            super()._release(claim)
        return claim is not None


def token(value: str, age: float = 0.0, lifetime: float = 3600.0) -> AccessToken:
    """Return a token that was obtained ``age`` seconds ago."""
    return AccessToken(value, NOW - age, lifetime)


def token_answer(value: str, lifetime: float = 3600.0) -> Payload:
    """Return FACEKI's answer with a new token."""
    result: dict[str, str | float] = {"access_token": value, "expires_in": lifetime}
    return Payload({**result}, {"responseCode": 0, "data": {**result}})


@dataclass
class Table:
    """An account, laid out on a table.

    :param notes: What has happened, in order.
    :param requests: What was sent.
    :param now: The clock.
    :param between: Called in each pause: what others do meanwhile.
    """

    notes: list[str] = field(default_factory=list)
    requests: list[HttpRequest] = field(default_factory=list)
    now: float = NOW
    between: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.store = Notes(self.notes)
        asked = TokenRequest(FACEKI.base_url, "client-1", "s3cret")
        self.account = AuthSession(FACEKI, asked, self.store, lambda: self.now)

    def play(self, conversation: Steps[T], *answers: Payload | FacekiError) -> T:
        """Perform ``conversation``, giving it these answers, all of which it has to ask for."""
        left = list(answers)
        try:
            effect = next(conversation)
            for _ in range(10_000):
                effect = self._step(conversation, effect, left)
        except StopIteration as end:
            assert not left, f"never asked for: {left}"
            result: T = end.value
            return result
        raise AssertionError("it goes on for ever")

    def _step(self, conversation: Steps[T], effect: Effect, left: list[Payload | FacekiError]) -> Effect:
        match effect:
            case SendRequest(request):
                self.requests.append(request)
                self.notes.append("ask token" if "/auth/" in request.url else "ask")
                assert left, f"one question too many: {request!r}"
                answer = left.pop(0)
                if isinstance(answer, FacekiError):
                    return conversation.throw(answer)
                return conversation.send(answer)
            case RunBlocking(operation):
                return conversation.send(operation())
            case Sleep(seconds):
                self.notes.append("pause")
                self.now += seconds
                self.between()
            case MaskSecret(value):
                self.notes.append(f"conceal {value}")
        return conversation.send(None)
