# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The event loop is never blocked. In these tests, slow operations end only after further turns of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.protocol.session import MaskSecret
from airflow_provider_faceki.api.tokens import file as token_file
from airflow_provider_faceki.api.tokens.sealing import TokenSeal
from airflow_provider_faceki.api.transport.drivers import MAX_MASKED_LINKS, SecretMasker
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
from tests.waiting import LoopTurns

FETCH = FetchRecords(request_id="r-1")


def _after_turns(turns: LoopTurns, reply: Callable[[Handler], None]) -> Callable[[Handler], None]:
    """Return a reply that is sent when the client's event loop has made further turns."""

    def late(handler: Handler) -> None:
        turns.wait_for_more()
        reply(handler)

    return late


async def _fifty(client: FacekiClient) -> None:
    answers = await asyncio.gather(*(client.as_async().call(FETCH) for _ in range(50)))
    assert answers == [()] * 50


def test_fifty_calls_without_a_token_and_with_slow_answers(
    server: FakeServer, client: FacekiClient, tmp_path: Path
) -> None:
    turns = LoopTurns()
    server.on(TOKEN_PATH, _after_turns(turns, issue_token()))
    server.on(RECORDS_PATH, require_token(_after_turns(turns, reply_json(NOTHING_FOUND))))
    sharing = replace(client, token_directory=tmp_path / "tokens")
    asyncio.run(turns.count_during(_fifty(sharing)))
    assert server.token_requests == 1


def test_calls_wait_for_the_token_of_another_process_off_the_loop(
    server: FakeServer, client: FacekiClient, tmp_path: Path
) -> None:
    turns = LoopTurns()
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))
    sharing = replace(client, token_directory=tmp_path / "tokens")

    async def call_while_another_process_fetches() -> None:
        await sharing.as_async().call(FETCH)
        server.live.clear()
        other = token_file.FileTokenStore(
            tmp_path / "tokens", TokenSeal(sharing._session.token_request), print
        )
        lock = other.try_lock()
        assert lock is not None
        release = asyncio.create_task(asyncio.to_thread(_release_after_turns, turns, lock))
        await _fifty(sharing)
        await release

    asyncio.run(turns.count_during(call_while_another_process_fetches()))
    assert server.token_requests == 2


def _release_after_turns(turns: LoopTurns, lock: token_file.FileRefreshLock) -> None:
    turns.wait_for_more(20)
    lock.release()


def test_pauses_of_concurrent_calls_overlap(
    server: FakeServer, client: FacekiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on(RECORDS_PATH, *[reply_json({}, 429, ("Retry-After", "7"))] * 50, reply_json(NOTHING_FOUND))
    retrying = replace(client, retry=RetryPolicy(max_attempts=3, max_wait=7.0))
    pauses: list[float] = []
    all_pause, sleep = asyncio.Event(), asyncio.sleep

    async def pause_until_all_pause(seconds: float) -> None:
        if seconds < 1.0:  # the wait for the token that another call fetches
            await sleep(seconds)
            return
        pauses.append(seconds)
        if len(pauses) == 50:
            all_pause.set()
        await all_pause.wait()

    monkeypatch.setattr(asyncio, "sleep", pause_until_all_pause)
    asyncio.run(asyncio.wait_for(_fifty(retrying), 60))
    assert len(pauses) == 50
    assert len(server.requests_to(RECORDS_PATH)) == 100


def test_slow_files_do_not_block_the_loop(
    server: FakeServer, client: FacekiClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check slow file operations, as on a network file system."""
    turns = LoopTurns()
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))
    on_loop: list[bool] = []

    def slow(operation: Callable[..., object]) -> Callable[..., object]:
        def late(*arguments: object) -> object:
            on_loop.append(asyncio._get_running_loop() is not None)
            turns.wait_for_more()
            return operation(*arguments)

        return late

    for name in ("_load", "_save", "_lock_file"):
        monkeypatch.setattr(token_file.FileTokenStore, name, slow(getattr(token_file.FileTokenStore, name)))
    sharing = replace(client, token_directory=tmp_path / "tokens")
    asyncio.run(turns.count_during(sharing.as_async().call(FETCH)))
    assert len(on_loop) >= 4
    assert not any(on_loop)


@dataclass
class Masks:
    """The masked values, each with the place of masking: ``here`` is the caller's thread, or ``on loop``."""

    messages: list[tuple[str, str]] = field(default_factory=list)

    def here(self, value: str) -> None:
        """Record a value that the synchronous driver masked."""
        self.messages.append(("here", value))

    async def on_loop(self, value: str) -> None:
        """Record a value that the asynchronous driver masked."""
        await asyncio.sleep(0)
        self.messages.append(("on loop", value))


def test_each_mode_masks_tokens_before_they_are_sent(server: FakeServer, client: FacekiClient) -> None:
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


def test_a_client_masks_only_its_first_links() -> None:
    warned: list[str] = []
    masks = Masks()
    masker = SecretMasker(masks.here, masks.on_loop, warned.append)
    links = [masker.accepts(MaskSecret("link", is_link=True)) for _ in range(MAX_MASKED_LINKS + 2)]
    assert links == [True] * MAX_MASKED_LINKS + [False] * 2
    assert len(warned) == 1
    assert masker.accepts(MaskSecret("token"))


def test_more_calls_than_threads(server: FakeServer, client: FacekiClient) -> None:
    turns = LoopTurns()
    server.on(RECORDS_PATH, _after_turns(turns, reply_json(NOTHING_FOUND)))
    narrow = replace(client, transport=replace(client.transport, max_concurrency=2))
    asyncio.run(turns.count_during(_fifty(narrow)))
    assert len({received.connection for received in server.received}) <= 2
