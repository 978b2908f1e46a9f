# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The event loop is never blocked. A heartbeat task on the loop measures the gaps."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.tokens import file as token_file
from airflow_provider_faceki.api.tokens.sealing import TokenSeal
from airflow_provider_faceki.api.transport.drivers import SecretMasker
from airflow_provider_faceki.api.transport.retry import RetryPolicy
from tests.api.fake_server import (
    NOTHING_FOUND,
    RECORDS_PATH,
    TOKEN_PATH,
    FakeServer,
    Handler,
    issue_token,
    reply_json,
    require_token,
)

FETCH = FetchRecords(request_id="r-1")
#: Maximum seconds between two beats. A longer gap would delay other triggers on the loop.
LONGEST_GAP = 0.2


def _late(seconds: float, reply: Callable[[Handler], None]) -> Callable[[Handler], None]:
    def late(handler: Handler) -> None:
        threading.Event().wait(seconds)
        reply(handler)

    return late


async def _longest_gap(work: Awaitable[object]) -> float:
    """Return the longest time in seconds between two beats during ``work``."""
    gaps: list[float] = []

    async def beat() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    heart = asyncio.create_task(beat())
    await asyncio.sleep(0.02)
    await work
    await asyncio.sleep(0.02)
    heart.cancel()
    assert len(gaps) > 4
    return max(gaps)


def _tries_until_smooth(work: Callable[[FacekiClient], Awaitable[object]], client: FacekiClient) -> int:
    """Run ``work`` with a new account until there is no long gap, and return the number of attempts.

    On a busy machine any process is possibly paused at any time. Code that blocks the loop causes a gap in each
    attempt.
    """
    gaps = []
    for attempt in range(1, 4):
        fresh = replace(client, client_secret=f"{client.client_secret}-{attempt}")
        gaps.append(asyncio.run(_longest_gap(work(fresh))))
        if gaps[-1] < LONGEST_GAP:
            return attempt
    pytest.fail(f"the loop stood still for {gaps} s")


async def _fifty(client: FacekiClient) -> None:
    answers = await asyncio.gather(*(client.as_async().call(FETCH) for _ in range(50)))
    assert answers == [()] * 50


def test_fifty_questions_with_a_cold_token_and_slow_answers(
    server: FakeServer, client: FacekiClient, tmp_path: Path
) -> None:
    """Check fifty concurrent calls. Imports are not measured, because this file has already imported all modules."""
    server.on(TOKEN_PATH, _late(0.4, issue_token()))
    server.on(RECORDS_PATH, require_token(_late(0.3, reply_json(NOTHING_FOUND))))
    tries = _tries_until_smooth(_fifty, replace(client, token_directory=tmp_path / "tokens"))
    assert server.token_requests == tries


def test_waiting_for_another_process_and_for_a_refused_token(
    server: FakeServer, client: FacekiClient, tmp_path: Path
) -> None:
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))

    async def ask_while_another_process_fetches(sharing: FacekiClient) -> None:
        await sharing.as_async().call(FETCH)
        server.live.clear()
        other = token_file.FileTokenStore(
            tmp_path / "tokens", TokenSeal(sharing._account.token_request), print
        )
        lock = other.try_lock()
        assert lock is not None
        threading.Timer(0.4, lock.release).start()
        await _fifty(sharing)

    tries = _tries_until_smooth(
        ask_while_another_process_fetches, replace(client, token_directory=tmp_path / "tokens")
    )
    assert server.token_requests == 2 * tries


def test_retries_do_not_hold_each_other_up(server: FakeServer, client: FacekiClient) -> None:
    """Check that the pauses of concurrent calls overlap: fifty calls need no more time than one."""
    patient = replace(client, retry=RetryPolicy(max_attempts=3, max_wait=0.5))

    async def ask_again(patient: FacekiClient) -> None:
        server.on(
            RECORDS_PATH, *[reply_json({}, 429, ("Retry-After", "0.5"))] * 50, reply_json(NOTHING_FOUND)
        )
        begun = time.monotonic()
        await _fifty(patient)
        assert time.monotonic() - begun < 10

    tries = _tries_until_smooth(ask_again, patient)
    assert len(server.requests_to(RECORDS_PATH)) == 100 * tries


def test_slow_files_are_waited_for_elsewhere(
    server: FakeServer, client: FacekiClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that slow file operations do not block the loop, as on a network file system."""
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))
    on_loop: list[bool] = []

    def slow(operation: Callable[..., object]) -> Callable[..., object]:
        def late(*arguments: object) -> object:
            on_loop.append(asyncio._get_running_loop() is not None)
            threading.Event().wait(0.3)
            return operation(*arguments)

        return late

    for name in ("_load", "_save", "_lock_file"):
        monkeypatch.setattr(token_file.FileTokenStore, name, slow(getattr(token_file.FileTokenStore, name)))
    _tries_until_smooth(
        lambda sharing: sharing.as_async().call(FETCH), replace(client, token_directory=tmp_path / "tokens")
    )
    assert len(on_loop) >= 4
    assert not any(on_loop)


@dataclass
class Masks:
    """The masked values, each with the place of the call: the caller's thread or an event loop."""

    messages: list[tuple[str, str]] = field(default_factory=list)

    def here(self, value: str) -> None:
        """Record a value that the synchronous driver masked."""
        self.messages.append(("here", value))

    async def on_loop(self, value: str) -> None:
        """Record a value that the asynchronous driver masked."""
        await asyncio.sleep(0)
        self.messages.append(("on loop", value))


def test_tokens_are_masked_in_the_way_of_each_mode_before_they_are_sent(
    server: FakeServer, client: FacekiClient
) -> None:
    masks = Masks()
    seen: list[int] = []

    def count_and_answer(handler: Handler) -> None:
        seen.append(len(masks.messages))
        reply_json(NOTHING_FOUND)(handler)

    server.on(RECORDS_PATH, count_and_answer)
    masking = replace(client, secret_masker=SecretMasker(masks.here, masks.on_loop))
    masking.call(FETCH)
    asyncio.run(replace(masking, client_secret="other").as_async().call(FETCH))
    assert masks.messages == [("here", "token-1"), ("on loop", "token-2")]
    assert seen == [1, 2]


def test_more_questions_than_threads_all_come_through(server: FakeServer, client: FacekiClient) -> None:
    server.on(RECORDS_PATH, _late(0.05, reply_json(NOTHING_FOUND)))
    narrow = replace(client, transport=replace(client.transport, max_concurrency=2))
    asyncio.run(_fifty(narrow))
    assert len({received.connection for received in server.received}) <= 2
