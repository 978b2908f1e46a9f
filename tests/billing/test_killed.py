# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A task process is killed (``kill -9``) at any moment, and tried again until it ends: what is billed, what is said?"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from airflow_provider_faceki.sandbox import SandboxProcess
from tests.billing.conftest import IMPATIENT
from tests.billing.pictures import picture, write
from tests.billing.task_process import Task

PEOPLE = 50
#: Tasks at once: enough that waiting costs little, few enough that nothing but the kill disturbs them.
AT_ONCE = 16
#: Seconds that FACEKI takes, and that a try gives it: more than it takes, on a busy machine too.
FACEKI_TAKES = 0.4
SETTLE = 5.0
DECISIONS = {"accepted": "ACCEPTED", "declined": "DECLINED", "review": "REVIEW", "code-5004": "DECLINED"}


@dataclass(frozen=True)
class Case:
    """Somebody to be verified, and when the first try is killed: a share of what a whole try takes."""

    number: int
    word: str
    moment: float

    @property
    def record_identifier(self) -> str:
        return f"slow-{FACEKI_TAKES}-{self.word}-{self.number}"


@dataclass(frozen=True)
class Ending:
    """What became of somebody: how far the first try had come when it was killed, and what the last one said."""

    came_to: str
    decision: object
    tries: int


@dataclass(frozen=True)
class Household:
    """What all tasks here share."""

    faceki: SandboxProcess
    folder: Path
    arguments: dict[str, Any]
    remembers: bool

    def task(self, case: Case) -> Task:
        own = self.folder / str(case.number)
        own.mkdir()
        connection = self.faceki.connection(**{**IMPATIENT, "timeout": 20, "upload_timeout": 20})
        arguments = {**self.arguments, "record_identifier": case.record_identifier}
        return Task(own, json.dumps(connection), arguments, self.remembers)

    def ledger(self) -> dict[str, int]:
        return cast("dict[str, Any]", self.faceki.control.get("state"))["ledger"]  # type: ignore[no-any-return]

    def how_far(self, task: Task, case: Case) -> str:
        if task.result is not None:
            return "ended"
        if case.record_identifier in self.ledger():
            return "billed"
        return "begun" if task.store.get("faceki_submitting_since") else "before"

    def live_through(self, case: Case, duration: float) -> Ending:
        task = self.task(case)
        first = task.start(1)
        time.sleep(case.moment * duration)
        first.kill()
        first.join()
        came_to = self.how_far(task, case)
        tries = 1
        while task.result is None and tries < 6:
            tries += 1
            task.go_on(tries)
        return Ending(came_to, (task.result or {}).get("decision"), tries)

    def undisturbed(self, number: int) -> float:
        """How long a try takes."""
        task = self.task(Case(-number, "accepted", 0.0))
        first = task.start(1)
        began = time.monotonic()
        first.join()
        assert task.result is not None
        return time.monotonic() - began


@pytest.fixture(params=[pytest.param(True, id="store"), pytest.param(False, id="no store")])
def household(request: pytest.FixtureRequest, sandbox_process: SandboxProcess, tmp_path: Path) -> Household:
    sandbox_process.control.post("reset")
    # Large enough that a kill may fall into the sending.
    content = picture(1_500_000)
    front, back = (write(tmp_path, name, content) for name in ("front.jpg", "back.jpg"))
    arguments = {
        "selfie": write(tmp_path, "selfie.jpg", content),
        "documents": [{"front": front, "back": back}],
        "settle_seconds": SETTLE,
        "patience": 2.0,
    }
    return Household(sandbox_process, tmp_path, arguments, request.param)


def test_everybody_is_billed_once_and_nobody_is_lost(household: Household) -> None:
    dice = random.Random(2026)
    cases = [
        Case(number, dice.choice(sorted(DECISIONS)), dice.uniform(0.0, 1.1))
        for number in range(1, PEOPLE + 1)
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        duration = statistics.median(pool.map(household.undisturbed, range(1, AT_ONCE + 1)))
        endings = list(pool.map(lambda case: household.live_through(case, duration), cases))
    # Whatever FACEKI may still have been at would be billed by now.
    time.sleep(FACEKI_TAKES * 2)
    billed = household.ledger()
    expected = {case.record_identifier: 1 for case in cases}
    assert {identifier: billed.get(identifier, 0) for identifier in expected} == expected
    assert [ending.decision for ending in endings] == [DECISIONS[case.word] for case in cases]
    assert {ending.tries for ending in endings if ending.came_to != "ended"} == {2}
    # The dice must have met the moments that matter, or this proves nothing.
    met = Counter(ending.came_to for ending in endings)
    told = f"within {duration:.2f} s the first tries had come to: {dict(met)}"
    assert met["ended"] <= PEOPLE / 2, told
    assert met["billed"] + (met["begun"] if household.remembers else met["before"]) >= 10, told
