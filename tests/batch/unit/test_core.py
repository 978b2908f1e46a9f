# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The guard, the journal, the lease and the runner, each tested separately with fakes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.batch.error_guard import (
    FAILURES_BEFORE_DOWN,
    MIN_ALIKE,
    MIN_ALIKE_LATER,
    SystemicErrorGuard,
)
from airflow_provider_faceki.batch.journal import RowIndex, SegmentLog
from airflow_provider_faceki.batch.lease import (
    MAX_UNCHECKED_SECONDS,
    Lease,
    LeaseLostError,
    LeaseUncheckedError,
)
from airflow_provider_faceki.batch.rows import (
    Abort,
    Crashed,
    Deferred,
    Failed,
    Outcome,
    Row,
    Succeeded,
    row_key,
)
from airflow_provider_faceki.batch.runner import (
    MAX_LOGGED_ERRORS,
    Job,
    Progress,
    TaskKilledError,
    WorkerPool,
)
from tests.batch.unit.fakes import ROOT, FakeClock, MemoryStore, World, rows


def names(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


# The guard


def refusal(code: int, number: int = 0) -> Failed:
    row = Row(number, {"record_identifier": f"p{number}"})
    error = api.InvalidRequestError(f"refused {code}", code=code)
    return Failed({"row": number, "code": str(code)}, Abort(row, error, None))


def test_one_refusal_of_another_kind_does_not_hide_a_thousand_that_are_alike() -> None:
    guard = SystemicErrorGuard(is_released=False)
    assert guard.hold(refusal(5006))
    held = [guard.hold(refusal(5001, number)) for number in range(1000)]
    assert all(held)
    error = guard.systemic_error()
    assert isinstance(error, api.InvalidRequestError)
    assert (error.code, "1000 rows were refused for the same reason" in error.message) == (5001, True)
    assert len(guard.held_rows) == 1001


def test_every_kind_is_counted_by_itself() -> None:
    guard = SystemicErrorGuard(is_released=False)
    for number in range(MIN_ALIKE - 1):
        for code in (5001, 5002, 5006):
            guard.hold(refusal(code, number))
    assert (guard.systemic_error(), guard.held) == (None, 3 * (MIN_ALIKE - 1))
    guard.hold(refusal(5002))
    assert guard.systemic_error() is not None


def test_asking_for_the_error_does_not_change_it() -> None:
    guard = SystemicErrorGuard(is_released=False)
    for number in range(MIN_ALIKE):
        guard.hold(refusal(5001, number))
    texts = {str(guard.systemic_error()) for _ in range(3)}
    assert len(texts) == 1
    assert "refused 5001" in texts.pop()


def test_a_row_that_succeeds_makes_held_refusals_errors_of_their_rows() -> None:
    guard = SystemicErrorGuard(is_released=False)
    for number in range(30):
        guard.hold(refusal(5001 + number % 2, number))
    assert [line["row"] for line in guard.release()] == list(range(30))
    assert (guard.hold(refusal(5001)), guard.held, guard.systemic_error()) == (False, 0, None)


@pytest.mark.parametrize(
    ("has_worked", "count"),
    [pytest.param(False, MIN_ALIKE, id="from the start"), pytest.param(True, MIN_ALIKE_LATER, id="later")],
)
def test_storage_failures_in_succession(has_worked: bool, count: int) -> None:
    guard = SystemicErrorGuard(is_released=has_worked)
    if has_worked:
        guard.storage_worked()
    for _ in range(count - 1):
        guard.storage_failed(OSError("expired"))
    assert guard.systemic_error() is None
    guard.storage_failed(OSError("expired"))
    assert isinstance(guard.systemic_error(), OSError)
    guard.storage_worked()
    assert guard.systemic_error() is None


DOWN = Deferred(Row(1, {}), api.ServiceError("down", http_status=503), None)


@pytest.mark.parametrize(
    ("between", "is_down"),
    [
        pytest.param(None, True, id="in succession"),
        pytest.param(Succeeded({"billed": True}), False, id="a row that succeeded"),
        pytest.param(Deferred(Row(2, {}), None, None), False, id="a row that only waits"),
        pytest.param(Deferred(Row(2, {}), OSError(5, "no image"), None), True, id="an unreadable image"),
        pytest.param(Deferred(Row(2, {}), api.ValidationError("x"), None), True, id="an invalid value"),
    ],
)
def test_the_guard_reports_that_faceki_is_down(between: Outcome | None, is_down: bool) -> None:
    guard = SystemicErrorGuard(is_released=True)
    for _ in range(FAILURES_BEFORE_DOWN - 1):
        guard.note(DOWN)
    assert guard.systemic_error() is None
    if between is not None:
        guard.note(between)
    guard.note(DOWN)
    assert guard.systemic_error() is (DOWN.error if is_down else None)


def refuse_some(world: World, bad: Callable[[str], bool]) -> None:
    world.faceki.refuse = lambda name: api.InvalidRequestError("no", code=5006) if bad(name) else None


def test_the_error_rate_counts_held_refusals() -> None:
    world = World()
    # Each row has its own kind of refusal, so that the guard does not stop the batch.
    world.faceki.refuse = lambda name: api.InvalidRequestError("no", code=int(name[1:]))
    with pytest.raises(
        api.ValidationError, match=r"100 of 100 rows are errors, more than max_error_rate=0.5"
    ):
        world.run(rows(*names(500)), max_error_rate=0.5)
    assert list(world.lines("errors")) == []


def test_a_systemic_refusal_leaves_all_rows_unsent_and_open() -> None:
    world = World()
    refuse_some(world, lambda name: True)
    with pytest.raises(api.InvalidRequestError, match="refused for the same reason"):
        world.run(rows(*names(200)))
    assert world.faceki.calls["verify"] < 60
    assert (list(world.lines("errors")), world.journal().charged) == ([], 0)
    refuse_some(world, lambda name: False)
    world.run(rows(*names(200)))
    assert set(world.faceki.bills.values()) == {1}
    assert world.journal().done == 200


# The journal


def test_a_segment_that_failed_after_it_was_written_is_written_again_as_it_was() -> None:
    store, clock = MemoryStore(), FakeClock()
    log = SegmentLog(store, f"{ROOT}/results", "w", clock)
    log.add({"a": 1})

    def fails(operation: str, uri: str) -> None:
        raise OSError("after it had acted")

    store.after = fails
    with pytest.raises(OSError, match="acted"):
        log.write()
    log.add({"a": 2})
    assert log.buffered == 2
    store.after = lambda operation, uri: None
    log.write()
    assert ([line["a"] for line in log.lines()], log.buffered) == ([1, 2], 0)


@pytest.mark.parametrize(
    "torn", [b"", b'{"record_identifier": "p', b"[]\n", b"\xff\xfe\n", b'{"record_identifier": "p9"}']
)
def test_a_torn_segment_loses_no_more_than_its_torn_line(torn: bytes) -> None:
    world = World()
    world.run(rows(*names(3)))
    (uri,) = [uri for uri in world.store.files if "/results/" in uri]
    world.store.files[uri] += torn
    expected = 4 if torn.endswith(b"}") else 3
    assert world.journal().done == expected


def test_results_that_are_listed_late_are_found_and_not_paid_again() -> None:
    world = World()
    world.run(rows(*names(5)))
    hidden = {
        uri: world.store.files.pop(uri)
        for uri in [*world.store.files]
        if "/results/" in uri or "/errors/" in uri
    }
    world.run(rows(*names(6)))
    world.store.files.update(hidden)
    assert world.journal().done == 6
    assert set(world.faceki.bills.values()) == {1}


@pytest.mark.parametrize(
    ("intents", "cancelled", "is_open"),
    [(0, 0, False), (1, 0, True), (1, 1, False), (2, 1, True), (2, 2, False), (1, 2, False)],
)
def test_a_row_may_have_been_sent_if_it_has_more_intents_than_cancellations(
    intents: int, cancelled: int, is_open: bool
) -> None:
    index, key = RowIndex(), row_key("p")
    for _ in range(cancelled):
        index.cancel_intent(key)
    for number in range(intents):
        index.add_intent(key, 1000.0 - number)
    since = index.state(key).sent_since
    assert (since is not None, index.count_open()) == (is_open, int(is_open))
    assert since in (None, 1000.0 - intents + 1)


def test_the_row_index_separates_readings_and_keys() -> None:
    index = RowIndex()
    assert index.mark_seen("id a")
    assert not index.mark_seen("id a")
    assert index.mark_seen("id a", reading=2)
    assert index.mark_seen("id \ud800")
    assert (index.state("id a").was_seen, index.state("id b").was_seen) == (True, False)
    index.mark_done("id a")
    assert (index.state("id a").is_done, index.state("id b").is_done) == (True, False)


# The lease


def held(store: MemoryStore, clock: FakeClock, batch_id: str = "batch") -> Lease:
    lease = Lease(store, f"{ROOT}/_journal/tries", batch_id, clock)
    lease.acquire()
    return lease


def test_the_newest_try_has_the_lease() -> None:
    store, clock = MemoryStore(), FakeClock()
    first = held(store, clock)
    first.ensure_held()
    second = held(store, clock)
    second.ensure_held()
    with pytest.raises(LeaseLostError):
        first.ensure_held()
    with pytest.raises(api.ValidationError, match="contains another batch, 'batch'"):
        held(store, clock, "other")


def test_a_lease_is_checked_again_when_its_check_is_old_by_a_clock_that_counts_suspended_time() -> None:
    store, clock = MemoryStore(), FakeClock()
    lease = held(store, clock)
    before = store.operations["list"]
    lease.ensure_fresh()
    clock.now += MAX_UNCHECKED_SECONDS
    lease.ensure_fresh()
    assert store.operations["list"] == before
    held(store, clock)
    clock.suspended += 1.0
    with pytest.raises(LeaseLostError):
        lease.ensure_fresh()


def test_a_check_counts_from_before_its_list() -> None:
    store, clock = MemoryStore(), FakeClock()
    lease = held(store, clock)

    def suspended(operation: str, uri: str) -> None:
        clock.suspended += 1000.0

    store.after = suspended
    lease.ensure_held()
    store.after = lambda operation, uri: None
    held(store, clock)
    with pytest.raises(LeaseLostError):
        lease.ensure_fresh()


def run_another_try(world: World, count: int) -> Callable[..., None]:
    """Return a function that runs another try when it is called for the first time."""
    done: list[bool] = []

    def other(*_: object) -> None:
        if not done:
            done.append(True)
            world.run(rows(*names(count)), assume_new=True)

    return other


def test_a_try_that_is_superseded_before_its_intents_are_written_sends_nothing() -> None:
    world = World()
    other = run_another_try(world, 5)

    def before(operation: str, uri: str) -> None:
        if operation == "write" and "/intents/" in uri:
            other()

    world.store.before = before
    with pytest.raises(LeaseLostError):
        world.run(rows(*names(5)), assume_new=True)
    assert set(world.faceki.bills.values()) == {1}
    assert world.journal().done == 5


def test_a_try_that_is_suspended_between_two_rows_sends_no_further_row() -> None:
    world = World()
    other = run_another_try(world, 30)

    def after(identifier: str) -> None:
        if world.faceki.bills.total() == 3:
            world.clock.suspended += 100.0
            other()

    world.faceki.after = after
    with pytest.raises(LeaseLostError):
        world.run(rows(*names(30)), assume_new=True)
    assert set(world.faceki.bills.values()) == {1}
    assert world.journal().done == 30


def test_a_try_that_is_suspended_while_it_reads_an_image_does_not_send_it() -> None:
    world = World()
    other = run_another_try(world, 10)

    def before(kind: str, identifier: str) -> None:
        # The lease was checked just before, but the image is not read yet.
        if kind == "verify" and identifier == "p4":
            world.clock.suspended += 100.0
            other()

    world.faceki.before = before
    with pytest.raises(LeaseLostError):
        world.run(rows(*names(10)), assume_new=True)
    assert set(world.faceki.bills.values()) == {1}
    assert world.journal().done == 10


def test_an_output_storage_that_fails_while_a_row_is_sent_is_no_error_of_the_row() -> None:
    world = World()
    deferred: list[str] = []

    def before(kind: str, identifier: str) -> None:
        if kind == "find" and not deferred:
            deferred.append(identifier)
            raise api.ServiceError("down")  # So the row is sent in the second pass, where errors are final.
        if kind == "verify":
            world.clock.suspended += 100.0
            world.store.before = fails

    def fails(operation: str, uri: str) -> None:
        if operation == "list":
            raise OSError("503")

    world.faceki.before = before
    batch = world.run(rows("p"))
    assert (batch.unfinished, world.faceki.bills.total()) == (1, 0)
    assert isinstance(batch.problem, LeaseUncheckedError)
    world.faceki.before = lambda kind, identifier: None
    world.store.before = lambda operation, uri: None
    assert (list(world.lines("errors")), world.journal().charged) == ([], 0)
    assert world.run(rows("p")).unfinished == 0
    assert world.faceki.bills == {"p": 1}


# The runner


def test_a_storage_that_fails_for_results_ends_the_try_and_bills_nothing_twice() -> None:
    world = World()

    def fails(operation: str, uri: str) -> None:
        if operation == "write" and "/results/" in uri:
            raise OSError("down")

    world.store.before = fails
    with pytest.raises(OSError, match="down"):
        world.run(rows(*names(20)))
    world.store.before = lambda operation, uri: None
    assert world.journal().done == 0
    world.run(rows(*names(20)))
    assert (world.journal().done, set(world.faceki.bills.values())) == (20, {1})


def test_an_unexpected_exception_in_a_thread_ends_the_try_and_leaves_its_row_open() -> None:
    world = World()

    def broken(identifier: str) -> None:
        if identifier == "p7":
            raise ZeroDivisionError

    world.faceki.after = broken
    with pytest.raises(ZeroDivisionError):
        world.run(rows(*names(20)))
    world.faceki.after = lambda identifier: None
    world.run(rows(*names(20)))
    assert (world.journal().done, set(world.faceki.bills.values())) == (20, {1})


def test_a_base_exception_in_a_thread_ends_the_try() -> None:
    class Panic(BaseException):
        pass

    def work(job: Job) -> Outcome:
        raise Panic("a name")

    pool = WorkerPool(1, work)
    (row,) = rows("p")
    pool.submit(Job(lambda: Deferred(row, None, None), Deferred(row, None, None)))
    outcome = pool.next_result(5.0)
    assert isinstance(outcome, Crashed)
    assert str(outcome.error) == "Panic in a worker thread"
    pool.cancel_pending()


def test_a_killed_task_sends_no_row_that_is_still_looked_up() -> None:
    world = World()

    def kill(kind: str, identifier: str) -> None:
        world.is_killed = True

    world.faceki.before = kill
    with pytest.raises(TaskKilledError):
        world.run(rows(*names(3)))
    assert (world.faceki.calls["verify"], world.journal().charged) == (0, 0)


@pytest.mark.parametrize(
    ("error", "is_open"),
    [
        pytest.param(api.QuotaError("no credit", code=5003), True, id="no credit"),
        pytest.param(api.AuthenticationError("no"), True, id="credentials"),
        pytest.param(api.ServiceError("down"), True, id="FACEKI down"),
        pytest.param(api.InvalidRequestError("no", code=5006), False, id="the row's own"),
    ],
)
def test_which_errors_leave_a_row_open(error: api.FacekiError, is_open: bool) -> None:
    world = World()
    world.run(rows("good"))
    world.faceki.refuse = lambda name: error
    outcome: Any = None
    try:
        outcome = world.run(rows("good", "p")).unfinished
    except api.FacekiError as raised:
        outcome = raised
    assert bool(outcome) == is_open
    assert (world.journal().done == 2) != is_open


def test_only_the_first_error_rows_of_a_try_are_logged_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress(50, 0, FakeClock())
    with caplog.at_level(logging.WARNING):
        for number in range(1, 41):
            progress.log_error({"row": number, "code": "INVALID_INPUT", "problem": "selfie is missing"})
    *rows_, further = caplog.messages
    assert rows_ == [
        f"Row {number} is an error: INVALID_INPUT: selfie is missing"
        for number in range(1, MAX_LOGGED_ERRORS + 1)
    ]
    assert "Further error rows" in further


@pytest.mark.parametrize(
    "kind",
    [
        api.QuotaError,
        api.AuthenticationError,
        api.TlsError,
        api.ConfigurationError,
        api.ChargeLimitError,
    ],
)
def test_an_error_of_every_row_ends_the_batch_at_once(kind: type[api.FacekiError]) -> None:
    world = World()
    world.run(rows("good"))
    world.faceki.refuse = lambda name: kind("of every row")
    with pytest.raises(kind, match="of every row"):
        world.run(rows("good", *names(200)))
    assert world.faceki.calls["verify"] < 20
    assert list(world.lines("errors")) == []
