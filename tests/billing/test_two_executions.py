# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Two concurrent executions of one task instance cause one bill, if they share a state store."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event, Lock
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_faceki import charged_call
from airflow_provider_faceki.charged_call import ChargedCallState
from airflow_provider_faceki.operators import verification
from airflow_provider_faceki.operators.images import FacekiAnalyzeFaceOperator, FacekiFaceMatchOperator
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.fakes import StateStore, TaskInstance, context
from tests.airflow.running import HAS_STATE_STORE
from tests.billing.tries import FileStateStore, Tries
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(not HAS_STATE_STORE, reason="before Airflow 3.3 there is no task state store")

FENCE_SECONDS = charged_call.MIN_FENCE_SECONDS
OFFSETS = [0.0, 0.1, 0.3, 0.5, 1.0, 1.5, 2.0]
#: Seconds of a request to the store; a request to Airflow's API server takes about the same time.
STORE_LATENCY_SECONDS = 0.03


class SlowStore(FileStateStore):
    """A store with network latency. Each key is changed independently, as in Airflow's database."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lock = Lock()

    def get(self, key: str, default: object = None) -> Any:
        time.sleep(STORE_LATENCY_SECONDS)
        with self._lock:
            return super().get(key, default)

    def set(self, key: str, value: object) -> None:
        time.sleep(STORE_LATENCY_SECONDS)
        with self._lock:
            super().set(key, value)


class HeldEnd(SlowStore):
    """A store in which the end of a call is written only when the other execution has ended.

    Without this delay, the second execution, if it begins late on a busy machine, would find a finished call.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.other_ended = Event()

    def set(self, key: str, value: object) -> None:
        is_mark = isinstance(value, dict) and "nonce" in value and not value.get("is_finished")
        if not is_mark:
            self.other_ended.wait(60)
        super().set(key, value)


@pytest.fixture(autouse=True)
def real_fence(short_fence: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fence with its real waiting time."""
    monkeypatch.setattr(charged_call, "MIN_FENCE_SECONDS", FENCE_SECONDS)
    monkeypatch.setattr(verification, "MIN_RECONCILE_INTERVAL_SECONDS", 0.5)


def _execute(make: Callable[[], Any], store: SlowStore, start_at: float) -> Any:
    time.sleep(max(0.0, start_at - time.time()))
    seen = context(task_state_store=store)
    operator = make()
    operator.render_template_fields(seen)
    try:
        return operator.execute(seen)
    except AirflowFailException as error:
        return str(error)


def both(
    make: Callable[[], Any],
    store: SlowStore,
    offset: float,
    at_first_end: Callable[[], object] = lambda: None,
) -> list[Any]:
    """Execute twice, the second time `offset` seconds after the first; return both results.

    :param at_first_end: Function that is called as soon as one of the executions has ended.
    """
    begin = time.time() + 0.1
    with ThreadPoolExecutor(2) as pool:
        executions = [pool.submit(_execute, make, store, begin + after) for after in (0.0, offset)]
        wait(executions, 300, FIRST_COMPLETED)
        at_first_end()
        return [each.result(timeout=300) for each in executions]


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_verification_is_billed_once(
    sandbox: FacekiSandbox, images: dict[str, Any], tmp_path: Path, offset: float
) -> None:
    # The latency is long enough for the second execution to find the call that the first execution is sending.
    sandbox.settings.latency = 0.2

    def make() -> FacekiKycVerificationOperator:
        return FacekiKycVerificationOperator(
            task_id="verify", record_identifier="accepted-1", resubmit_after=20.0, **images
        )

    found = both(make, SlowStore(tmp_path / "store.json"), offset)
    assert [summary["decision"] for summary in found] == ["ACCEPTED", "ACCEPTED"]
    assert sandbox.ledger == {"accepted-1": 1}


CALLS_WITHOUT_RECORD = pytest.mark.parametrize(
    ("kind", "route"),
    [(FacekiFaceMatchOperator, "search_by_face"), (FacekiAnalyzeFaceOperator, "analyze_face")],
)


@pytest.mark.parametrize("offset", [0.0, 0.5])
@CALLS_WITHOUT_RECORD
def test_a_call_without_a_record_is_made_once(
    sandbox: FacekiSandbox, images: dict[str, Any], tmp_path: Path, kind: Any, route: str, offset: float
) -> None:
    store = HeldEnd(tmp_path / "store.json")

    def make() -> Any:
        return kind(task_id="search", selfie=images["selfie"])

    found = both(make, store, offset, at_first_end=store.other_ended.set)
    (refused,) = [each for each in found if isinstance(each, str)]
    assert "another execution of this try" in refused
    assert sandbox.counters.requests[route] == 1


@CALLS_WITHOUT_RECORD
def test_a_call_without_a_record_is_not_made_again_after_its_end(
    sandbox: FacekiSandbox, images: dict[str, Any], tmp_path: Path, kind: Any, route: str
) -> None:
    store = SlowStore(tmp_path / "store.json")
    first, second = (
        _execute(lambda: kind(task_id="search", selfie=images["selfie"]), store, 0.0) for _ in range(2)
    )
    # The second execution of a face match returns the records that the first has saved. A face analysis is refused.
    if kind is FacekiFaceMatchOperator:
        assert second == first
    else:
        assert "another execution of this try" in second
    assert sandbox.counters.requests[route] == 1


class Interleaved(dict[str, Any]):
    """A store in which another execution writes directly after a read or a write of this execution."""

    def __init__(self, after: str) -> None:
        super().__init__()
        self.after = after
        self.other: Callable[[], object] = lambda: None

    def get(self, key: str, default: object = None) -> Any:
        found = super().get(key, default)
        self._interrupt("get")
        return found

    def set(self, key: str, value: object) -> None:
        self[key] = value
        self._interrupt("set")

    def _interrupt(self, done: str) -> None:
        if self.after == done:
            self.after = ""
            self.other()


@pytest.fixture
def slow_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each write to the task state store take longer than ``_MAX_WRITE_SECONDS``, so the call is not sent."""
    monkeypatch.setattr(charged_call, "MIN_FENCE_SECONDS", 0.0)
    monkeypatch.setattr(charged_call, "_MAX_WRITE_SECONDS", STORE_LATENCY_SECONDS / 2)


@pytest.mark.usefixtures("slow_writes")
def test_a_verification_waits_for_the_record_after_a_slow_write(
    sandbox: FacekiSandbox, images: dict[str, Any], tmp_path: Path
) -> None:
    # After a slow write, another execution has possibly ended its wait and sent the call. So this execution does not
    # send, and polls for the record of the other execution instead.
    def make() -> FacekiKycVerificationOperator:
        return FacekiKycVerificationOperator(
            task_id="verify", record_identifier="accepted-1", resubmit_after=20.0, **images
        )

    store = SlowStore(tmp_path / "store.json")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(_execute, make, store, 0.0)
        wait_until(lambda: sandbox.polls(record_identifier="accepted-1"))
        sandbox.add_record("accepted-1")
        assert waiting.result(timeout=300)["decision"] == "ACCEPTED"
    assert "verify" not in sandbox.counters.requests


@pytest.mark.usefixtures("slow_writes")
def test_a_call_without_a_record_is_not_made_after_a_slow_write(
    sandbox: FacekiSandbox, images: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Tries(
        lambda: FacekiAnalyzeFaceOperator(task_id="analyze", selfie=images["selfie"]),
        SlowStore(tmp_path / "store.json"),
    )
    with pytest.raises(AirflowFailException, match="responds so slowly.*clear the task"):
        task.go()
    assert "analyze_face" not in sandbox.counters.requests
    task.clear()
    monkeypatch.setattr(charged_call, "_MAX_WRITE_SECONDS", FENCE_SECONDS)
    task.go()
    assert sandbox.counters.requests["analyze_face"] == 1


@pytest.fixture
def renewing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew the stored mark of a call at each piece of an image, instead of every ten seconds."""
    monkeypatch.setattr(charged_call, "MIN_FENCE_SECONDS", 0.0)
    monkeypatch.setattr(charged_call, "_RENEW_SECONDS", 0.0)


@pytest.mark.usefixtures("renewing")
def test_a_long_upload_holds_up_the_other_execution() -> None:
    store = StateStore()
    seen = context(ti=TaskInstance(), task_state_store=store)
    first, second = ChargedCallState(seen, "id"), ChargedCallState(seen, "id")
    assert first.acquire()
    began = second.resubmit_at(0.0, 0.0)
    time.sleep(0.05)
    first.check_fence()
    # The second execution has waited and found no record. The first still sends, so the second must not send.
    assert second.acquire() is False
    renewed = second.resubmit_at(0.0, 0.0)
    assert began is not None
    assert renewed is not None
    assert renewed >= began + 0.05
    first.clear()
    assert store == {}


class Replaced(FileStateStore):
    """A store in which another execution replaces the mark of this execution before its first renewal."""

    reads = 0

    def get(self, key: str, default: object = None) -> Any:
        found = super().get(key, default)
        if isinstance(found, dict) and "nonce" in found:
            self.reads += 1
            # The mark is read first at the end of the wait before the call, and then at the first renewal.
            if self.reads == 2:
                found = {**found, "nonce": "of another execution"}
                self.set(key, found)
        return found


class Failing(FileStateStore):
    """A store that fails when the mark is renewed."""

    writes = 0

    def set(self, key: str, value: object) -> None:
        self.writes += 1
        if self.writes == 2:
            raise ConnectionError("Airflow's API server is gone")
        super().set(key, value)


@pytest.mark.usefixtures("renewing")
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Replaced, "another execution .* sends or has sent this verification"),
        (Failing, "task state store failed: ConnectionError"),
    ],
)
def test_an_execution_stops_sending_if_its_mark_is_not_its_own(
    sandbox: FacekiSandbox, images: dict[str, Any], tmp_path: Path, kind: type[FileStateStore], told: str
) -> None:
    store = kind(tmp_path / "store.json")
    task = Tries(
        lambda: FacekiKycVerificationOperator(
            task_id="verify", record_identifier="accepted-1", resubmit_after=0.5, **images
        ),
        store,
    )
    with pytest.raises(AirflowException, match=told) as caught:
        task.go()
    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.__cause__ is None
    assert sandbox.bills == ()
    assert store.has_intent
    task.store = FileStateStore(store.path)
    assert task.go()["decision"] == "ACCEPTED"
    assert sandbox.ledger == {"accepted-1": 1}


def test_only_the_own_mark_is_removed() -> None:
    store = StateStore()
    first = ChargedCallState(context(ti=TaskInstance(), task_state_store=store), "id")
    assert first.acquire()
    second = {"nonce": "of another execution", "try_number": 1}
    store[first._pending_key] = second
    first.clear()
    assert store == {first._pending_key: second}


@pytest.mark.parametrize(
    ("after", "mine"),
    [
        pytest.param("get", False, id="before my write: the comparison shows it"),
        pytest.param("set", False, id="after my write: my nonce is gone"),
        pytest.param("", True, id="never"),
    ],
)
def test_one_of_two_acquires(monkeypatch: pytest.MonkeyPatch, after: str, mine: bool) -> None:
    monkeypatch.setattr(charged_call, "MIN_FENCE_SECONDS", 0.0)
    store = Interleaved(after)
    state = ChargedCallState(context(ti=TaskInstance(), task_state_store=store), "id")
    store.other = lambda: dict.__setitem__(store, state._pending_key, {"nonce": "of another execution"})
    assert state.acquire() is mine


def test_a_write_during_the_wait_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Interleaved("")
    state = ChargedCallState(context(ti=TaskInstance(), task_state_store=store), "id")
    waited: list[float] = []

    def other_writes(seconds: float) -> None:
        waited.append(seconds)
        dict.__setitem__(store, state._pending_key, {"nonce": "of another execution"})

    monkeypatch.setattr(
        charged_call,
        "time",
        SimpleNamespace(
            time=time.time,
            monotonic=time.monotonic,
            sleep=other_writes,
            clock_gettime=time.clock_gettime,
        ),
    )
    assert state.acquire() is False
    assert waited[0] >= FENCE_SECONDS
