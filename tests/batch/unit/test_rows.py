# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Lookups before rows are sent, ``resubmit``, the ceiling, and which rows are counted as billed."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.batch.rows import Row
from tests.batch.unit.fakes import World, rows


class Killed(BaseException):
    """Exception that simulates ``kill -9``."""


def decisions(world: World) -> dict[str, tuple[object, object]]:
    return {line["record_identifier"]: (line["decision"], line["billed"]) for line in world.lines("results")}


def names(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


@pytest.mark.parametrize("resubmit", ["if_absent", "never"])
def test_a_row_that_faceki_has_is_found_and_not_billed(resubmit: str) -> None:
    world = World()
    world.faceki.add_record("known", "DECLINED", age=30 * 86400.0)
    batch = world.run(rows("known", "new"), resubmit=resubmit)
    assert decisions(world) == {"known": ("DECLINED", False), "new": ("ACCEPTED", True)}
    assert (dict(world.faceki.bills), batch.journal.found) == ({"new": 1}, 1)


def test_always_bills_a_row_that_faceki_has() -> None:
    world = World()
    world.faceki.add_record("known", "DECLINED")
    world.run(rows("known"), resubmit="always")
    assert decisions(world) == {"known": ("ACCEPTED", True)}
    assert dict(world.faceki.bills) == {"known": 1}
    # A row that is done is not sent again within its batch.
    world.run(rows("known"), resubmit="always")
    assert dict(world.faceki.bills) == {"known": 1}


def test_assume_new_sends_without_a_lookup() -> None:
    world = World()
    world.run(rows(*names(10)), assume_new=True)
    assert dict(world.faceki.calls) == {"verify": 10}


def test_one_free_look_up_for_each_row_and_none_for_rows_that_are_done() -> None:
    world = World()
    world.run(rows(*names(10)))
    assert dict(world.faceki.calls) == {"verify": 10, "find": 10}
    world.run(rows(*names(15)))
    assert dict(world.faceki.calls) == {"verify": 15, "find": 15}


def test_a_look_up_that_fails_sends_nothing_and_leaves_the_row_open() -> None:
    world = World()

    def fails(kind: str, identifier: str) -> None:
        if kind == "find" and identifier == "p1":
            raise api.ServiceError("down")

    world.faceki.before = fails
    batch = world.run(rows(*names(3)))
    assert (batch.unfinished, dict(world.faceki.bills)) == (1, {"p0": 1, "p2": 1})
    world.faceki.before = lambda kind, identifier: None
    assert world.run(rows(*names(3))).unfinished == 0
    assert set(world.faceki.bills.values()) == {1}


def test_a_verification_that_faceki_has_not_decided_is_waited_for_and_not_paid_again() -> None:
    world = World()
    world.faceki.add_record("pending", None)
    began = world.clock.time()
    world.run(rows("pending"))
    assert decisions(world) == {"pending": (None, False)}
    assert world.clock.time() - began >= 150.0
    assert dict(world.faceki.bills) == {}


LOST = api.ResponseLostError("lost")


@pytest.mark.parametrize(
    ("resubmit", "is_processed", "expected"),
    [
        pytest.param("if_absent", True, ({"p": ("ACCEPTED", True)}, {}, 1), id="if_absent, billed"),
        pytest.param("if_absent", False, ({"p": ("ACCEPTED", True)}, {}, 1), id="if_absent, not billed"),
        pytest.param("never", True, ({"p": ("ACCEPTED", True)}, {}, 1), id="never, billed"),
        pytest.param("never", False, ({}, {"OUTCOME_UNKNOWN": 1}, 0), id="never, not billed"),
        pytest.param("always", True, ({"p": ("ACCEPTED", True)}, {}, 1), id="always, billed"),
        pytest.param("always", False, ({"p": ("ACCEPTED", True)}, {}, 1), id="always, not billed"),
    ],
)
def test_a_lost_answer(resubmit: str, is_processed: bool, expected: tuple[Any, Any, int]) -> None:
    world = World()
    lost: list[str] = []

    def once(*where: str) -> None:
        if where[0] != "find" and not lost:
            lost.append(where[-1])
            raise LOST

    if is_processed:
        world.faceki.after = once
    else:
        world.faceki.before = once
    batch = world.run(rows("p"), resubmit=resubmit)
    assert (decisions(world), dict(batch.journal.failures), world.faceki.bills["p"]) == expected


@pytest.mark.parametrize("ceiling", [0, 1, 7, 64, 99])
def test_the_ceiling_holds_over_tries_and_goes_on_when_it_is_raised(ceiling: int) -> None:
    world = World()
    manifest = rows(*names(100))
    batch = world.run(manifest, max_verifications=ceiling)
    assert (world.faceki.bills.total(), batch.over_ceiling, batch.unfinished) == (ceiling, 100 - ceiling, 0)
    # A second run with the same ceiling bills nothing.
    world.run(manifest, max_verifications=ceiling)
    assert world.faceki.bills.total() == ceiling
    assert world.run(manifest, max_verifications=100).over_ceiling == 0
    assert set(world.faceki.bills.values()) == {1}
    assert world.faceki.bills.total() == 100


def test_only_rows_that_may_be_billed_count_against_the_ceiling() -> None:
    world = World()
    for name in names(30):
        world.faceki.add_record(name)
    world.faceki.refuse = lambda identifier: (
        api.InvalidRequestError("no", code=5006) if identifier.startswith("bad") else None
    )
    manifest = rows("first", *names(30), *(f"bad{number}" for number in range(10)), "second", "third")
    batch = world.run(manifest, max_verifications=2)
    assert dict(world.faceki.bills) == {"first": 1, "second": 1}
    assert (batch.over_ceiling, batch.journal.charged, batch.journal.found) == (1, 2, 30)


def test_a_row_whose_outcome_is_unknown_counts_against_the_ceiling() -> None:
    world = World()
    world.faceki.keeps_records = False

    def lost(identifier: str) -> None:
        if identifier == "p0":
            raise LOST

    world.faceki.after = lost
    batch = world.run(rows(*names(3)), resubmit="never", max_verifications=2)
    assert (world.faceki.bills.total(), batch.over_ceiling, batch.journal.charged) == (2, 1, 2)


def test_a_row_that_was_refused_may_be_sent_within_the_ceiling_by_the_next_try() -> None:
    world = World()
    world.faceki.refuse = lambda identifier: api.QuotaError("no credit", code=5003)
    with pytest.raises(api.QuotaError):
        world.run(rows(*names(5)), max_verifications=5)
    assert world.journal().charged == 0
    world.faceki.refuse = lambda identifier: None
    assert world.run(rows(*names(5)), max_verifications=5).over_ceiling == 0
    assert world.faceki.bills.total() == 5


def test_identifiers_are_compared_byte_by_byte() -> None:
    world = World()
    alike = ["\u00e9", "e\u0301", "a", "A"]
    world.run(rows(*alike))
    assert dict(world.faceki.bills) == dict.fromkeys(alike, 1)
    assert set(decisions(world)) == set(alike)


def test_a_short_first_pass_waits_until_its_records_can_be_tested() -> None:
    world = World()
    world.faceki.keeps_records = False

    def killed(identifier: str) -> None:
        if identifier == "lost":
            raise Killed

    world.faceki.after = killed
    with pytest.raises(Killed):
        world.run(rows("lost"))
    world.clock.now += 600.0
    world.faceki.after = lambda identifier: world.clock.sleep(5.0)
    batch = world.run(rows(*names(5), "lost"))
    assert (world.faceki.bills["lost"], dict(batch.journal.failures)) == (1, {"OUTCOME_UNKNOWN": 1})


def test_an_invalid_row_of_a_later_manifest_gets_its_own_error_line() -> None:
    world = World()
    (a, b, c) = rows("a", "b", "c")
    no_name = Row(2, {"selfie": "s3://b/s.jpg"})
    manifests = [
        [a, no_name],
        [a, no_name, c, Row(4, {}, "the line is not JSON")],
        [a, Row(2, {"selfie": "s3://b/other.jpg"}), c],
        [a, Row(2, {}, "the line is not JSON", "{1"), c],
        [a, Row(2, {}, "the line is not JSON", "{2"), c],
        [a, Row(2, dict(a.values)), c],
        [b, Row(2, dict(b.values)), c],
    ]
    for manifest in manifests * 2:
        world.run(manifest)
    found = Counter((line["row"], line["code"]) for line in world.lines("errors"))
    assert found == {
        (2, "NO_IDENTIFIER"): 2,
        (2, "BAD_ROW"): 2,
        (2, "DUPLICATE_IDENTIFIER"): 2,
        (4, "BAD_ROW"): 1,
    }


def test_a_row_in_doubt_that_is_gone_from_the_second_reading_stays_unfinished() -> None:
    world = World()

    def lost(identifier: str) -> None:
        if identifier == "b":
            raise LOST

    world.faceki.after = lost
    world.faceki.show_after = lambda identifier: 60.0
    batch = world.run(rows("a", "b"), second_reading=rows("x", "y"))
    assert (batch.unfinished, batch.journal.charged) == (1, 2)
    assert "the manifest has changed" in str(batch.problem)
    assert world.run(rows("a", "b")).unfinished == 0
    assert dict(world.faceki.bills) == {"a": 1, "b": 1}


def test_refused_rows_at_the_head_do_not_use_up_the_ceiling() -> None:
    world = World()
    world.faceki.refuse = lambda identifier: (
        api.InvalidRequestError("no", code=5006) if identifier.startswith("bad") else None
    )
    manifest = rows(*(f"bad{number}" for number in range(5)), *names(10))
    batch = world.run(manifest, max_verifications=5)
    assert (world.faceki.bills.total(), batch.over_ceiling, batch.journal.charged) == (5, 5, 5)
    assert dict(batch.journal.failures) == {"5006": 5}


def test_rows_in_doubt_that_the_manifest_lacks_are_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    world = World()

    def killed(identifier: str) -> None:
        raise Killed

    world.faceki.after = killed
    with pytest.raises(Killed):
        world.run(rows("old"), assume_new=True)
    world.faceki.after = lambda identifier: None
    world.run(rows("new"))
    (warning,) = (record.message for record in caplog.records if record.levelno == logging.WARNING)
    assert warning.startswith("1 row(s) were possibly sent, have no result, and are not in this manifest")
    caplog.clear()
    world.run(rows("new", "old"))
    assert [record for record in caplog.records if record.levelno == logging.WARNING] == []
    assert dict(world.faceki.bills) == {"old": 1, "new": 1}
