# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Do the waits know together when FACEKI is down, and hold still?"""

from __future__ import annotations

from airflow_provider_faceki.triggers.lookout import (
    FAILURES_BEFORE_DOWN,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    CircuitBreaker,
)


def down(now: float = 1000.0) -> CircuitBreaker:
    outage = CircuitBreaker()
    for _ in range(FAILURES_BEFORE_DOWN):
        outage.failed(now)
    return outage


def test_single_failures_hold_nobody_back() -> None:
    outage = CircuitBreaker()
    for _ in range(FAILURES_BEFORE_DOWN - 1):
        assert outage.failed(1000.0) is False
    assert outage.hold(1000.0) == 0.0


def test_a_success_between_failures_starts_the_count_again() -> None:
    outage = CircuitBreaker()
    for _ in range(10):
        assert outage.failed(1000.0) is False
        assert outage.answered() is False
    assert not outage.is_down


def test_the_change_to_down_is_told_once() -> None:
    outage = CircuitBreaker()
    told = [outage.failed(1000.0) for _ in range(20)]
    assert told == [False] * (FAILURES_BEFORE_DOWN - 1) + [True] + [False] * (20 - FAILURES_BEFORE_DOWN)


def test_while_down_one_of_many_looks_and_the_rest_hold() -> None:
    outage = down()
    assert outage.hold(1000.0) == FIRST_PAUSE
    due = 1000.0 + FIRST_PAUSE
    assert [outage.hold(due) for _ in range(50)].count(0.0) == 1


def test_probes_grow_rare_and_looks_that_began_before_do_not_make_them_rarer() -> None:
    outage = down()
    for _ in range(32):
        outage.failed(1000.0)
    assert outage.hold(1000.0) == FIRST_PAUSE
    now, probes = 1000.0 + FIRST_PAUSE, 0
    while now < 1000.0 + 600:
        held = outage.hold(now)
        if held:
            now += held
            continue
        probes += 1
        outage.failed(now)
    assert 5 <= probes <= 8
    assert outage.pause == LONGEST_PAUSE


def test_a_probe_that_never_ends_blocks_nobody_for_ever() -> None:
    outage = down()
    assert outage.hold(1000.0 + FIRST_PAUSE) == 0.0
    assert outage.hold(1000.0 + FIRST_PAUSE + outage.pause) == 0.0


def test_an_answer_lets_everybody_look_again_and_is_told_once() -> None:
    outage = down()
    assert outage.answered() is True
    assert outage.answered() is False
    assert [outage.hold(1001.0) for _ in range(5)] == [0.0] * 5
