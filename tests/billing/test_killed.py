# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A task process is killed (``kill -9``) at any time and retried until it ends: each person is billed once."""

from __future__ import annotations

import json
import random
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
from tests.billing.task_process import Death, Task

pytestmark = pytest.mark.process

PEOPLE = 50
#: Number of concurrent tasks: large enough to save waiting time, small enough that the tasks do not slow each other.
AT_ONCE = 16
#: Processing time of the sandbox in seconds, and the value of ``resubmit_after``, which is longer even on a busy
#: machine.
FACEKI_TAKES = 0.4
SETTLE = 5.0
DECISIONS = {"accepted": "ACCEPTED", "declined": "DECLINED", "review": "REVIEW", "code-5004": "DECLINED"}


@dataclass(frozen=True)
class Case:
    """A person to be verified, and the point at which the first try is killed."""

    number: int
    word: str
    death: Death

    @property
    def record_identifier(self) -> str:
        return f"slow-{FACEKI_TAKES}-{self.word}-{self.number}"


def thrown(dice: random.Random, calls: int) -> list[Case]:
    """Return random cases: half are killed anywhere in the try, half while FACEKI processes or has just responded."""
    return [
        Case(
            number,
            dice.choice(sorted(DECISIONS)),
            Death(sending=dice.uniform(0.0, FACEKI_TAKES * 1.5))
            if number % 2
            else Death(calls=dice.randrange(1, calls)),
        )
        for number in range(1, PEOPLE + 1)
    ]


@dataclass(frozen=True)
class Ending:
    """Outcome of a case: the progress of the first try when it was killed, and the decision of the last try."""

    came_to: str
    decision: object
    tries: int


@dataclass(frozen=True)
class Household:
    """State that all tasks of this test share."""

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
        return "begun" if task.store.is_marked else "before"

    def live_through(self, case: Case) -> Ending:
        task = self.task(case)
        task.start(1, case.death).join()
        came_to = self.how_far(task, case)
        tries = 1
        while task.result is None and tries < 6:
            tries += 1
            task.go_on(tries)
        return Ending(came_to, (task.result or {}).get("decision"), tries)


@pytest.fixture(params=[pytest.param(True, id="store"), pytest.param(False, id="no store")])
def household(request: pytest.FixtureRequest, sandbox_process: SandboxProcess, tmp_path: Path) -> Household:
    sandbox_process.control.post("reset")
    # The picture is large enough that a try can be killed while it is sending.
    content = picture(1_500_000)
    front, back = (write(tmp_path, name, content) for name in ("front.jpg", "back.jpg"))
    arguments = {
        "selfie": write(tmp_path, "selfie.jpg", content),
        "documents": [{"front": front, "back": back}],
        "resubmit_after": SETTLE,
        "lookup_timeout": 2.0,
    }
    return Household(sandbox_process, tmp_path, arguments, request.param)


def test_everybody_is_billed_once_and_nobody_is_lost(household: Household) -> None:
    undisturbed = household.task(Case(0, "accepted", Death()))
    undisturbed.go_on(1)
    cases = thrown(random.Random(2026), undisturbed.calls)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        endings = list(pool.map(household.live_through, cases))
    # After this pause, everything that FACEKI was still processing is billed.
    time.sleep(FACEKI_TAKES * 2)
    billed = household.ledger()
    expected = {case.record_identifier: 1 for case in cases}
    assert {identifier: billed.get(identifier, 0) for identifier in expected} == expected
    assert [ending.decision for ending in endings] == [DECISIONS[case.word] for case in cases]
    assert {ending.tries for ending in endings if ending.came_to != "ended"} == {2}
    # The random kills must have covered the important points, otherwise this test proves nothing.
    met = Counter(ending.came_to for ending in endings)
    assert met["before"] >= 5, met
    assert met["begun" if household.remembers else "before"] + met["billed"] >= 15, met
