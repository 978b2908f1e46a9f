# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Decisions of the trigger and of the shared poller, with a fake client, in virtual time and without a server.

``tests/airflow/test_trigger.py`` and ``test_circuit_breaker.py`` poll the sandbox over HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_faceki import api, metrics
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.task_mixin import DEFAULT_MAX_WAIT_SECONDS
from airflow_provider_faceki.triggers import faceki as trigger_module
from airflow_provider_faceki.triggers import poll_log, shared_poller
from airflow_provider_faceki.triggers.faceki import MIN_POLL_INTERVAL_SECONDS, FacekiKycDecisionTrigger
from airflow_provider_faceki.triggers.shared_poller import (
    CLIENT_TTL_SECONDS,
    FAILURE_THRESHOLD,
    MAX_FAILED_READS,
    MAX_OPEN_SECONDS,
    MIN_OPEN_SECONDS,
    REREAD_INTERVAL_SECONDS,
    SharedPoller,
)
from tests.virtual_time import START, elapsed, run, use_virtual_time

JITTER = 0.1
Records = tuple[api.VerificationRecord, ...]
ENDPOINT = api.FetchRecords(record_identifier="customer-1")


def record(decision: str = "ACCEPTED") -> Records:
    return (api.VerificationRecord({"requestId": "r-1", "decision": decision}),)


@dataclass
class Client:
    """Fake of a FACEKI client. Its answer depends on the time, and it records the time of each poll."""

    answer: Callable[[float], Records]
    polls: list[float] = field(default_factory=list)
    retry: api.RetryPolicy = field(default_factory=api.RetryPolicy)

    def as_sync(self) -> Client:
        return self

    as_async = as_sync

    async def call(self, endpoint: api.FetchRecords) -> Records:
        assert self.retry.max_attempts == 1, "the trigger polls again by itself"
        self.polls.append(round(elapsed(), 6))
        return self.answer(elapsed())


class Faceki:
    """FACEKI with a script: records or an error, depending on the seconds since the start of the test."""

    def __init__(self) -> None:
        #: Errors of polls, by the number of the poll. Polls without an error return ``records``.
        self.errors: dict[int, Exception] = {}
        self.records: Callable[[float], Records] = lambda seconds: ()
        self.client = Client(self._answer)
        self.reads: list[float] = []
        self.read_error: Exception | None = None

    def _answer(self, seconds: float) -> Records:
        if error := self.errors.get(len(self.client.polls) - 1):
            raise error
        return self.records(seconds)

    async def read_connection(self, _hook: FacekiHook) -> Client:
        self.reads.append(round(elapsed(), 6))
        await asyncio.sleep(0)  # other polls run meanwhile
        if self.read_error is not None:
            raise self.read_error
        return self.client

    def decides_at(self, seconds: float, decision: str = "ACCEPTED") -> None:
        # The tolerance is for the rounding errors of many added pauses.
        self.records = lambda now: record(decision) if now >= seconds - 1e-6 else ()

    def fails(self, *errors: Exception) -> None:
        """Let the first polls fail."""
        self.errors = dict(enumerate(errors))


@pytest.fixture
def faceki(monkeypatch: pytest.MonkeyPatch) -> Faceki:
    made = Faceki()
    use_virtual_time(monkeypatch, trigger_module, shared_poller, poll_log)
    monkeypatch.setattr(FacekiHook, "aget_conn", lambda hook: made.read_connection(hook))
    return made


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the jitter, for tests that count seconds."""
    for module in (trigger_module, shared_poller):
        monkeypatch.setattr(module, "random", SimpleNamespace(uniform=lambda low, high: 1.0))


def trigger(*, within: float = 1000.0, **given: Any) -> FacekiKycDecisionTrigger:
    usual = {"faceki_conn_id": "faceki_default", "record_identifier": "customer-1"}
    given = {**usual, "max_wait": DEFAULT_MAX_WAIT_SECONDS, **given}
    return FacekiKycDecisionTrigger(deadline=START + within, **given)


async def fired(waiting: FacekiKycDecisionTrigger) -> Any:
    """Return the payload of the trigger's event; the trigger must fire exactly one event."""
    (payload,) = [event.payload async for event in waiting.run()]
    return payload


def status(waiting: FacekiKycDecisionTrigger) -> str:
    return str(run(fired(waiting))["status"])


def pauses(faceki: Faceki) -> list[float]:
    """Return the seconds before each poll."""
    polls = faceki.client.polls
    return [round(end - begin, 6) for begin, end in zip([0.0, *polls], polls, strict=False)]


def test_the_event_has_the_id_of_the_newest_record(faceki: Faceki) -> None:
    older, newer = (
        api.VerificationRecord(
            {"requestId": name, "decision": word, "createdAt": f"2026-01-0{day}T00:00:00Z"}
        )
        for name, word, day in (("r-1", "DECLINED", 1), ("r-2", "ACCEPTED", 2))
    )
    faceki.records = lambda seconds: (newer, older)
    assert run(fired(trigger())) == {"status": "decided", "request_id": "r-2"}


@pytest.mark.parametrize(
    ("decision", "wait_for_review", "expected"),
    [
        pytest.param("ACCEPTED", True, "decided", id="accepted"),
        pytest.param("DECLINED", True, "decided", id="declined"),
        pytest.param("REVIEW", True, "timeout", id="in review"),
        pytest.param("REVIEW", False, "decided", id="a review is enough"),
        pytest.param("", False, "timeout", id="no decision"),
    ],
)
def test_the_wait_ends_with_the_decision(
    faceki: Faceki, decision: str, wait_for_review: bool, expected: str
) -> None:
    faceki.decides_at(0.0, decision)
    assert status(trigger(wait_for_review=wait_for_review)) == expected


@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({"poke_interval": 10, "max_wait": 50}, [10, 10, 20, 40, 50, 50], id="grow"),
        pytest.param({"poke_interval": 10, "max_wait": None}, [10, 10, 20, 40, 80, 160], id="no maximum"),
        pytest.param({"poke_interval": 10, "exponential_backoff": False}, [10, 10, 10, 10], id="do not grow"),
        pytest.param({"poke_interval": 90, "max_wait": 50}, [50, 50, 50, 50], id="longer than the maximum"),
        pytest.param(
            {"poke_interval": 0, "exponential_backoff": False}, [MIN_POLL_INTERVAL_SECONDS] * 5, id="no flood"
        ),
    ],
)
def test_pauses_between_polls_grow_up_to_the_maximum(
    faceki: Faceki, given: dict[str, Any], expected: list[float]
) -> None:
    faceki.decides_at(sum(expected))
    assert status(trigger(within=10_000, **given)) == "decided"
    assert pauses(faceki) == expected


def test_pauses_are_random_within_a_range(faceki: Faceki) -> None:
    faceki.decides_at(500)
    assert status(trigger(poke_interval=50, exponential_backoff=False)) == "decided"
    first, *others = pauses(faceki)
    assert 0 <= first <= 50
    assert all(50 * (1 - JITTER) <= pause <= 50 * (1 + JITTER) for pause in others)
    assert len({first, *others}) > 5


@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize("decided", [False, True], ids=["no decision", "decided in the last moment"])
def test_the_last_poll_is_at_the_deadline(faceki: Faceki, decided: bool) -> None:
    if decided:
        faceki.decides_at(100)
    waiting = trigger(within=100, poke_interval=30, exponential_backoff=False)
    assert status(waiting) == ("decided" if decided else "timeout")
    assert faceki.client.polls == [30, 60, 90, 100]


@pytest.mark.parametrize("decided", [False, True], ids=["no decision", "decided meanwhile"])
def test_a_trigger_that_starts_after_its_deadline_polls_once(faceki: Faceki, decided: bool) -> None:
    # A trigger starts after its deadline if, for example, no triggerer ran during the night.
    if decided:
        faceki.decides_at(0.0)
    assert status(trigger(within=-3600)) == ("decided" if decided else "timeout")
    assert faceki.client.polls == [0.0]


DOWN = api.ServiceError("down", http_status=503)


@pytest.mark.parametrize(
    ("errors", "failed_polls", "expected"),
    [
        pytest.param([DOWN] * 2, 0, "decided", id="as many as allowed"),
        pytest.param([DOWN] * 3, 0, "failed", id="one more"),
        pytest.param([DOWN] * 2, 1, "failed", id="with a failed poll of the worker"),
        pytest.param([DOWN, DOWN, None, DOWN, DOWN], 0, "decided", id="not in a row"),
    ],
)
def test_consecutive_failures_are_counted(
    faceki: Faceki, errors: list[Exception | None], failed_polls: int, expected: str
) -> None:
    faceki.errors = {number: error for number, error in enumerate(errors) if error}
    faceki.records = lambda seconds: record() if len(faceki.client.polls) > len(errors) else ()
    assert status(trigger(within=10_000, max_failures=2, failed_polls=failed_polls)) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(api.ConnectError("x"), "decided", id="no connection"),
        pytest.param(api.RateLimitError("x", http_status=429), "decided", id="throttled"),
        pytest.param(api.NotFoundError("x", code=8013), "decided", id="no record yet"),
        pytest.param(api.ResponseError("x", code=4711), "decided", id="unknown code"),
        pytest.param(api.InvalidRequestError("x", http_status=403), "decided", id="refused by a gateway"),
        pytest.param(api.InvalidRequestError("x", http_status=400, code=1), "refused", id="wrong request"),
        pytest.param(api.AuthenticationError("x", http_status=401, code=1), "refused", id="wrong secret"),
        pytest.param(api.LinkError("x", code=8015), "refused", id="expired link"),
        pytest.param(api.TlsError("x"), "refused", id="wrong certificate"),
    ],
)
def test_only_what_can_pass_is_polled_again(faceki: Faceki, error: Exception, expected: str) -> None:
    faceki.fails(error)
    faceki.decides_at(0.0)
    assert status(trigger()) == expected
    assert len(faceki.client.polls) == (2 if expected == "decided" else 1)


def test_an_error_that_is_not_of_faceki_fails_the_trigger(faceki: Faceki) -> None:
    faceki.read_error = KeyError("no such Connection")
    with pytest.raises(KeyError):
        status(trigger())


@pytest.mark.usefixtures("steady")
def test_while_the_circuit_is_open_a_trigger_polls_only_at_its_deadline(faceki: Faceki) -> None:
    faceki.fails(*[DOWN] * FAILURE_THRESHOLD)
    faceki.decides_at(0.0)

    async def wait() -> str:
        poller = shared_poller.shared_poller("faceki_default")
        for _ in range(FAILURE_THRESHOLD):
            with pytest.raises(api.ServiceError):
                await poller.poll(ENDPOINT)
        return str((await fired(trigger(within=4.0, poke_interval=1.0)))["status"])

    assert run(wait()) == "decided"
    assert faceki.client.polls == [0.0] * FAILURE_THRESHOLD + [4.0]


def test_open_waits_are_counted_also_after_a_cancellation(
    faceki: Faceki, monkeypatch: pytest.MonkeyPatch
) -> None:
    gauge: list[int] = []
    monkeypatch.setattr(metrics, "_gauge", lambda name, value, **tags: gauge.append(value))
    monkeypatch.setattr(metrics, "_open_waits", 0)

    async def cancel() -> None:
        first, second = (asyncio.ensure_future(fired(trigger())) for _ in range(2))
        await asyncio.sleep(100)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        faceki.decides_at(0.0)
        assert (await second)["status"] == "decided"

    run(cancel())
    assert gauge == [1, 2, 1, 0]


def test_an_outage_is_polled_by_few_of_many_triggers(
    faceki: Faceki, caplog: pytest.LogCaptureFixture
) -> None:
    waits, hour = 100, 3600.0

    def answer(seconds: float) -> Records:
        if seconds < hour:
            raise api.ConnectError("down")
        return record()

    faceki.records = answer

    async def wait() -> list[Any]:
        given = {"within": 5 * hour, "poke_interval": 60.0, "max_failures": math.inf}
        return await asyncio.gather(*(fired(trigger(**given)) for _ in range(waits)))

    with caplog.at_level(logging.INFO, logger=shared_poller.__name__):
        assert {each["status"] for each in run(wait())} == {"decided"}
    outage = [seconds for seconds in faceki.client.polls if seconds < hour]
    # Before the first probe the blocking time is the minimum; it doubles with each probe up to the maximum.
    doublings = math.ceil(math.log2(MAX_OPEN_SECONDS / MIN_OPEN_SECONDS))
    assert len(outage) <= FAILURE_THRESHOLD + doublings + 1 + hour / MAX_OPEN_SECONDS
    lines = [each.getMessage() for each in caplog.records if each.name == shared_poller.__name__]
    assert ["its circuit is open" in line for line in lines] == [True, False]
    assert lines[1] == "FACEKI answers again on connection 'faceki_default'; its circuit is closed"


@pytest.mark.parametrize(
    ("error", "opens"),
    [
        pytest.param(api.ConnectError("x"), True, id="no connection"),
        pytest.param(api.ServiceError("x", http_status=503), True, id="failing"),
        pytest.param(api.UnexpectedResponseError("x", http_status=200), True, id="unreadable"),
        pytest.param(api.InvalidRequestError("x", http_status=403), True, id="refused by a gateway"),
        pytest.param(api.ConfigurationError("x", http_status=404), True, id="no token URL"),
        pytest.param(api.ConfigurationError("x"), False, id="wrong Connection"),
        pytest.param(api.AuthenticationError("x", http_status=401, code=1), False, id="wrong secret"),
        pytest.param(api.LinkError("x", code=8015), False, id="expired link"),
        pytest.param(api.ResponseError("x", code=4711), False, id="unknown code"),
    ],
)
def test_only_an_outage_opens_the_circuit(faceki: Faceki, error: api.FacekiError, opens: bool) -> None:
    faceki.fails(*[error] * FAILURE_THRESHOLD)

    async def poll() -> float:
        poller = SharedPoller("faceki_default")
        for _ in range(FAILURE_THRESHOLD):
            assert poller.retry_after() == 0.0
            with pytest.raises(type(error), match="connection 'faceki_default'"):
                await poller.poll(ENDPOINT)
        return poller.retry_after()

    held_back = run(poll())
    assert MIN_OPEN_SECONDS <= held_back <= 1.5 * MIN_OPEN_SECONDS if opens else held_back == 0.0


@pytest.mark.parametrize(
    ("error", "closes"),
    [
        pytest.param(None, True, id="records"),
        pytest.param(api.NotFoundError("x", code=8013), True, id="no record"),
        pytest.param(api.LinkError("x", code=8015), True, id="expired link"),
        pytest.param(api.NotFoundError("x", http_status=404), False, id="404 without a code"),
        pytest.param(api.AuthenticationError("x", http_status=401, code=1), False, id="wrong secret"),
        pytest.param(api.ResponseError("x", code=4711), False, id="unknown code"),
        pytest.param(api.RateLimitError("x", code=429), False, id="throttled"),
    ],
)
def test_only_a_definite_answer_closes_the_circuit(
    faceki: Faceki, error: api.FacekiError | None, closes: bool
) -> None:
    faceki.fails(*[DOWN] * FAILURE_THRESHOLD, *([error] if error else []))

    async def poll() -> float:
        poller = SharedPoller("faceki_default")
        for _ in range(FAILURE_THRESHOLD):
            with pytest.raises(api.ServiceError):
                await poller.poll(ENDPOINT)
        await asyncio.gather(poller.poll(ENDPOINT), return_exceptions=True)
        return poller.retry_after()

    assert (run(poll()) == 0.0) is closes


async def _poll(poller: SharedPoller, waits: int = 1) -> list[str]:
    """Return the type names of the errors of a number of polls at the same time."""
    polls = (poller.poll(ENDPOINT) for _ in range(waits))
    found = await asyncio.gather(*polls, return_exceptions=True)
    return [type(each).__name__ for each in found if isinstance(each, BaseException)]


def test_one_of_many_polls_reads_the_connection_again(faceki: Faceki) -> None:
    async def poll() -> None:
        poller = SharedPoller("faceki_default")
        assert await _poll(poller) == []
        await asyncio.sleep(CLIENT_TTL_SECONDS - 1)
        assert await _poll(poller, 20) == []
        await asyncio.sleep(1)
        assert await _poll(poller, 20) == []

    run(poll())
    assert faceki.reads == [0.0, CLIENT_TTL_SECONDS]


def test_a_connection_that_cannot_be_read_again_is_used_for_some_time(
    faceki: Faceki, caplog: pytest.LogCaptureFixture
) -> None:
    async def poll() -> list[list[str]]:
        poller = SharedPoller("faceki_default")
        await poller.poll(ENDPOINT)
        await asyncio.sleep(CLIENT_TTL_SECONDS)
        faceki.read_error, errors = OSError("secret address"), []
        for _ in range(MAX_FAILED_READS):
            errors.append(await _poll(poller, 20))
            await asyncio.sleep(REREAD_INTERVAL_SECONDS)
        faceki.read_error = None
        return [*errors, await _poll(poller, 20)]

    *borne, last, restored = run(poll())
    assert borne == [[]] * (MAX_FAILED_READS - 1)
    assert last
    assert set(last) == {"OSError"}
    assert restored == []
    assert caplog.text.count("could not be read again (OSError)") == 1
    assert "secret address" not in caplog.text


def test_a_connection_with_wrong_values_is_not_used_any_longer(faceki: Faceki) -> None:
    async def poll() -> list[str]:
        poller = SharedPoller("faceki_default")
        await poller.poll(ENDPOINT)
        await asyncio.sleep(CLIENT_TTL_SECONDS)
        faceki.read_error = api.ConfigurationError("timeout: found 'soon'")
        return await _poll(poller) + await _poll(poller)

    assert run(poll()) == ["ConfigurationError"] * 2


def test_triggers_of_a_connection_and_an_event_loop_share_a_poller() -> None:
    async def pollers() -> list[SharedPoller]:
        return [shared_poller.shared_poller(conn_id) for conn_id in ("one", "one", "two")]

    one, again, two = run(pollers())
    other, *_ = run(pollers())
    assert one is again
    assert len({one, two, other}) == 3
