# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A driver without network and clock. It takes its answers from a list and records each effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from airflow_provider_faceki.api.errors import FacekiError
from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenRequest
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.messages import HttpRequest
from airflow_provider_faceki.api.protocol.session import (
    AuthSession,
    Effect,
    MaskSecret,
    RunBlocking,
    SendRequest,
    Steps,
)
from airflow_provider_faceki.api.protocol.session import Sleep as Sleep
from airflow_provider_faceki.api.service import FACEKI, Service
from airflow_provider_faceki.api.tokens.memory import MemoryRefreshLock, MemoryTokenStore

T = TypeVar("T")
NOW = 1_700_000_000.0


class RecordingStore(MemoryTokenStore):
    """A memory store that records each call."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.events = events

    def read(self) -> AccessToken | None:
        self.events.append("read")
        return super().read()

    def try_lock(self, generation: int = 0) -> MemoryRefreshLock | None:
        lock = super().try_lock(generation)
        self.events.append("lock" if lock else "no lock")
        return lock

    def set(self, token: AccessToken) -> None:
        self.events.append(f"set {token.value}")
        super().set(token)

    def invalidate(self, token: AccessToken) -> None:
        self.events.append(f"invalidate {token.value}")
        super().invalidate(token)

    def _release(self, lock: MemoryRefreshLock) -> None:
        self.events.append("release")
        super()._release(lock)

    @property
    def is_free(self) -> bool:
        """Whether the refresh lock is free."""
        lock = super().try_lock()
        if lock is not None:
            super()._release(lock)
        return lock is not None


def token(value: str, age: float = 0.0, lifetime: float = 3600.0) -> AccessToken:
    """Return a token that was obtained ``age`` seconds ago."""
    return AccessToken(value, NOW - age, lifetime)


def token_answer(value: str, lifetime: float = 3600.0) -> Payload:
    """Return FACEKI's answer with a new token."""
    result: dict[str, str | float] = {"access_token": value, "expires_in": lifetime}
    return Payload({**result}, {"responseCode": 0, "data": {**result}})


@dataclass
class FakeDriver:
    """A driver for one account, with a recording of its effects.

    :param events: Effects and calls of the token store, in order.
    :param requests: Requests that were sent.
    :param now: Current Unix time of the driver. Sleeps advance it.
    :param service: FACEKI installation that is called.
    :param between: Function that is called in each sleep. It simulates the actions of other callers.
    """

    events: list[str] = field(default_factory=list)
    requests: list[HttpRequest] = field(default_factory=list)
    now: float = NOW
    between: Callable[[], None] = lambda: None
    service: Service = FACEKI

    def __post_init__(self) -> None:
        self.store = RecordingStore(self.events)
        asked = TokenRequest(FACEKI.base_url, "client-1", "s3cret")
        self.session = AuthSession(self.service, asked, self.store, lambda: self.now)

    def run(self, steps: Steps[T], *answers: Payload | FacekiError) -> T:
        """Run ``steps`` with these answers. Fail if an answer is not used."""
        left = list(answers)
        try:
            effect = next(steps)
            for _ in range(10_000):
                effect = self._step(steps, effect, left)
        except StopIteration as end:
            assert not left, f"never requested: {left}"
            result: T = end.value
            return result
        raise AssertionError("the steps do not end")

    def _step(self, steps: Steps[T], effect: Effect, left: list[Payload | FacekiError]) -> Effect:
        match effect:
            case SendRequest(request):
                self.requests.append(request)
                self.events.append("token request" if "/auth/" in request.url else "request")
                assert left, f"one request too many: {request!r}"
                answer = left.pop(0)
                if isinstance(answer, FacekiError):
                    return steps.throw(answer)
                return steps.send(answer)
            case RunBlocking(operation):
                return steps.send(operation())
            case Sleep(seconds):
                self.events.append("sleep")
                self.now += seconds
                self.between()
            case MaskSecret(value):
                self.events.append(f"mask {value}")
        return steps.send(None)
