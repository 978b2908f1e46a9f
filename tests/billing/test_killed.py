# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A task process is killed (``kill -9``) at each distinct moment and retried until it ends: each person is billed once.

`make test-thorough` also kills at random moments.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from airflow_provider_faceki.sandbox import SandboxProcess
from tests.billing.conftest import FEW_ATTEMPTS
from tests.billing.image_files import image_bytes, write
from tests.billing.task_process import Death, Task
from tests.thorough import THOROUGH
from tests.waiting import wait_until

pytestmark = [pytest.mark.process, pytest.mark.long]

PEOPLE = 50
#: Number of concurrent tasks: large enough to save waiting time, small enough that the tasks do not slow each other.
AT_ONCE = 8
#: Processing time of the sandbox in seconds, and the value of ``resubmit_after``. ``resubmit_after`` is much longer, so
#: that FACEKI has finished before it ends, even on a busy machine.
FACEKI_TAKES = 0.4
RESUBMIT_AFTER_SECONDS = 16.0
#: Processing time in seconds of the cases in :func:`cases_by_point`, and the value of ``lookup_timeout``. The
#: processing is so long that the next try at first finds no record, because FACEKI still processes the call of the
#: killed try.
TAKES_LONG = 6.0
LOOKUP = 0.3
#: Maximum difference in seconds between the clocks of the sandbox and of a try. ``TAKES_LONG`` is much longer, so this
#: difference cannot hide whether a bill was made before or after a kill.
CLOCK_DIFFERENCE_SECONDS = 2.0
DECISIONS = {"accepted": "ACCEPTED", "declined": "DECLINED", "review": "REVIEW", "code-5004": "DECLINED"}


@dataclass(frozen=True)
class Case:
    """A person to be verified, and the point at which the first try is killed."""

    number: int
    word: str
    death: Death
    takes: float = FACEKI_TAKES

    @property
    def record_identifier(self) -> str:
        return f"slow-{self.takes}-{self.word}-{self.number}"


def random_cases(rng: random.Random, calls: int) -> list[Case]:
    """Return random cases: half are killed anywhere in the try, half while FACEKI processes or has just responded."""
    return [
        Case(
            number,
            rng.choice(sorted(DECISIONS)),
            Death(sending=rng.uniform(0.0, FACEKI_TAKES * 1.5))
            if number % 2
            else Death(calls=rng.randrange(1, calls)),
        )
        for number in range(1, PEOPLE + 1)
    ]


#: For each moment: the point at which the try is killed, and its progress at this point, first with and then without a
#: store.
POINTS: dict[str, tuple[Death, str, str]] = {
    "at the start": (Death(entering="FacekiKycVerificationOperator.execute"), "before", "before"),
    "before the intent": (Death(entering="ChargedCallState.acquire"), "before", "before"),
    "intent written, nothing sent": (Death(entering="ChargedCallState.send"), "intent", "before"),
    "half sent": (Death(chunk=30), "intent", "before"),
    "FACEKI processes": (Death(sending=1.0), "intent", "before"),
    "answered, not saved": (Death(entering="ChargedCallState.save"), "billed", "billed"),
    "saved, not finished": (Death(entering="FacekiKycVerificationOperator._finish"), "billed", "billed"),
    "finished, not told": (Death(entering="fail_if_declined"), "billed", "billed"),
}


def cases_by_point() -> dict[str, Case]:
    """Return a case for each point. The decisions take turns."""
    words = sorted(DECISIONS)
    return {
        point: Case(number, words[number % len(words)], death, TAKES_LONG)
        for number, (point, (death, *_)) in enumerate(POINTS.items(), 1)
    }


@dataclass(frozen=True)
class Ending:
    """Outcome of a case: the progress of the first try when it was killed, and the decision of the last try."""

    came_to: str
    decision: object
    tries: int


@dataclass(frozen=True)
class KillScenario:
    """State that all tasks of this test share."""

    faceki: SandboxProcess
    folder: Path
    arguments: dict[str, Any]
    remembers: bool

    def task(self, case: Case) -> Task:
        own = self.folder / str(case.number)
        own.mkdir()
        connection = self.faceki.connection(**{**FEW_ATTEMPTS, "timeout": 20, "upload_timeout": 20})
        arguments = {**self.arguments, "record_identifier": case.record_identifier}
        return Task(own, json.dumps(connection), arguments, self.remembers)

    def state(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self.faceki.control.get("state"))

    def in_flight(self) -> int:
        return int(cast("dict[str, Any]", self.faceki.control.get("counters"))["in_flight"])

    def last_stage(self, task: Task, case: Case) -> str:
        """Return how far the first try had come when it ended.

        FACEKI possibly makes a bill after the try was killed and before this method reads the bills. Therefore only
        bills until the time of the kill count.
        """
        if task.result is not None:
            return "ended"
        assert task.died_at is not None
        latest = task.died_at + CLOCK_DIFFERENCE_SECONDS
        billed = {bill["record_identifier"] for bill in self.state()["bills"] if bill["at"] <= latest}
        if case.record_identifier in billed:
            return "billed"
        return "intent" if task.store.has_intent else "before"

    def run_case(self, case: Case) -> Ending:
        task = self.task(case)
        task.start(1, case.death).join()
        came_to = self.last_stage(task, case)
        tries = 1
        while task.result is None and tries < 6:
            tries += 1
            task.go_on(tries)
        return Ending(came_to, (task.result or {}).get("decision"), tries)


@pytest.fixture(params=[pytest.param(True, id="store"), pytest.param(False, id="no store")])
def scenario(request: pytest.FixtureRequest, sandbox_process: SandboxProcess, tmp_path: Path) -> KillScenario:
    sandbox_process.control.post("reset")
    # The image is large enough that a try can be killed while it is sending.
    content = image_bytes(1_500_000)
    front, back = (write(tmp_path, name, content) for name in ("front.jpg", "back.jpg"))
    arguments = {
        "selfie": write(tmp_path, "selfie.jpg", content),
        "documents": [{"front": front, "back": back}],
        "resubmit_after": RESUBMIT_AFTER_SECONDS,
        "lookup_timeout": LOOKUP,
    }
    return KillScenario(sandbox_process, tmp_path, arguments, request.param)


def run_cases(scenario: KillScenario, cases: list[Case]) -> list[Ending]:
    """Run all cases, and check that each person is billed once and that the last try returns the decision."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        endings = list(pool.map(scenario.run_case, cases))
    # FACEKI makes a bill when it has processed a call, so the test waits until all calls have been processed.
    wait_until(lambda: scenario.in_flight() == 0)
    billed = scenario.state()["ledger"]
    expected = {case.record_identifier: 1 for case in cases}
    assert {identifier: billed.get(identifier, 0) for identifier in expected} == expected
    assert [ending.decision for ending in endings] == [DECISIONS[case.word] for case in cases]
    assert {ending.tries for ending in endings if ending.came_to != "ended"} == {2}
    return endings


def test_killed_at_each_point(scenario: KillScenario) -> None:
    cases = cases_by_point()
    endings = run_cases(scenario, list(cases.values()))
    for point, ending in zip(cases, endings, strict=True):
        _, with_store, without = POINTS[point]
        assert ending.came_to == (with_store if scenario.remembers else without), point


@pytest.mark.skipif(not THOROUGH, reason="only in make test-thorough: many random moments")
def test_random_kills_bill_each_verification_once(scenario: KillScenario) -> None:
    undisturbed = scenario.task(Case(0, "accepted", Death()))
    undisturbed.go_on(1)
    endings = run_cases(scenario, random_cases(random.Random(2026), undisturbed.calls))
    # The random kills must have covered the important points, otherwise this test proves nothing.
    met = Counter(ending.came_to for ending in endings)
    assert met["before"] >= 5, met
    assert met["intent" if scenario.remembers else "before"] + met["billed"] >= 15, met
