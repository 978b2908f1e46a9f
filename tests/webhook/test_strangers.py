# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Can somebody who knows nothing, or only half, keep the right callers out?"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
from typing import TYPE_CHECKING

import pytest

from airflow_provider_faceki.webhook import callers, events
from airflow_provider_faceki.webhook.callers import BELIEVED, Caller, Callers, Named, nobody
from airflow_provider_faceki.webhook.limits import Bucket
from tests.webhook.served import SECRET, TOKEN, Served, said

if TYPE_CHECKING:
    from airflow_provider_faceki.webhook.app import Receiver

TOO_MANY = (429, '{"detail":"too many webhooks"}')


def _used_up() -> Bucket:
    bucket = Bucket(1, 0.0001)
    assert bucket.take()
    return bucket


def test_the_first_right_call_of_all_gets_in(served: Served, receiver: Receiver) -> None:
    receiver._refusals = _used_up()
    assert served.post(served.at(), said()).status_code == 200
    wrong = [
        served.at("nobody"),
        served.at("faceki_bare"),
        served.at("faceki_plain", token="wrong" * 10),
        served.at(token="wrong" * 10),
    ]
    answers = [served.post(url, said()) for url in wrong]
    assert {(answer.status_code, answer.text) for answer in answers} == {TOO_MANY}
    assert served.post(served.at("faceki_plain"), said()).status_code == 200


def test_named_are_those_that_dags_name(served: Served) -> None:
    named = events.named()
    assert named >= {"faceki_default", "faceki_signed", "faceki_paused", "faceki_plain", "faceki_mixed"}
    assert not named & {"faceki_unheard", "faceki_bare", "nobody", ""}


def _signed(served: Served, key: str) -> int:
    body = json.dumps(said()).encode()
    signature = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
    return served.post(served.at("faceki_signed"), body, {"X-Signature": signature}).status_code


def test_wrong_signatures_do_not_use_up_what_right_ones_may_take(served: Served, receiver: Receiver) -> None:
    receiver._calls, receiver._refusals = Bucket(3, 0.001), Bucket(2, 0.001)
    assert [_signed(served, TOKEN) for _ in range(5)] == [401, 401, 429, 429, 429]
    assert [_signed(served, SECRET) for _ in range(4)] == [200, 200, 200, 429]


def test_right_callers_do_not_wait_until_strangers_are_looked_up() -> None:
    asked = threading.Event()
    goes_on = threading.Event()

    def slow(conn_id: str) -> Caller:
        if conn_id.startswith("stranger"):
            asked.set()
            assert goes_on.wait(30)
            return nobody("unknown")
        return Caller("", ())

    async def ask() -> None:
        found = Callers(slow)
        strangers = [asyncio.create_task(found.find(f"stranger_{number}")) for number in range(10)]
        await asyncio.to_thread(asked.wait, 30)
        try:
            assert not (await asyncio.wait_for(found.find("known", expected=True), 30)).why_not
            assert not any(task.done() for task in strangers)
        finally:
            goes_on.set()
        assert all(each.why_not for each in await asyncio.gather(*strangers))

    asyncio.run(ask())


class Shelf:
    """Says which ids are named, when it can."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.reads = 0
        self.ids: set[str] | None = {"one"}

    def __call__(self) -> set[str]:
        self.reads += 1
        if self.ids is None:
            raise OSError("secret address")
        return self.ids


def test_named_are_read_seldom_and_together() -> None:
    async def ask() -> None:
        shelf = Shelf()
        named = Named(shelf, lambda: shelf.now)
        assert await asyncio.gather(*(named.has(each) for each in ["one", "two"] * 20)) == [True, False] * 20
        shelf.ids = {"two"}
        shelf.now += BELIEVED - 1
        assert (await named.has("one"), await named.has("two")) == (True, False)
        shelf.now += 1
        assert (await named.has("one"), await named.has("two")) == (False, True)
        assert shelf.reads == 2

    asyncio.run(ask())


def test_what_was_named_stays_named_while_it_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> None:
        shelf = Shelf()
        named = Named(shelf, lambda: shelf.now)
        assert await named.has("one")
        shelf.ids = None
        shelf.now += BELIEVED
        for _ in range(3):
            assert (
                await asyncio.gather(*(named.has(each) for each in ["one", "two"] * 20))
                == [
                    True,
                    False,
                ]
                * 20
            )
            shelf.now += BELIEVED
        assert shelf.reads == 4
        shelf.ids = {"two"}
        assert (await named.has("one"), await named.has("two")) == (False, True)

    asyncio.run(ask())
    assert [each.getMessage() for each in caplog.records if each.name == callers.__name__] == [
        "The assets that DAGs listen to cannot be read (OSError)"
    ]
