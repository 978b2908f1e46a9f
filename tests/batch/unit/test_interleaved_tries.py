# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tries of one batch that crash, are suspended while another try runs, lose responses, or use a failing storage.

Invariants: no identifier is billed twice, every row ends with exactly one result or error, and no row is lost.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from airflow_provider_faceki import api
from tests.batch.unit.fakes import FakeFaceki, MemoryStore, World, rows


class Killed(BaseException):
    """Exception that simulates ``kill -9``: no code of the process runs after it."""


@dataclass(frozen=True)
class Faults:
    """The faults of one try. A step is one operation of the storage or of FACEKI.

    :param killed_at: Step at which the process is killed.
    :param suspended_at: Step at which the process is suspended while another try runs.
    :param suspended_for: Additional seconds of the suspension.
    :param failing: Steps at which the storage fails.
    :param failing_after: Steps after which the storage reports a failure although the operation was successful.
    :param lost: Numbers of the verifications whose responses are lost after FACEKI has processed them.
    :param unsent: Numbers of the verifications that never reach FACEKI, although they seem to be sent.
    :param order: Seed of the order in which the threads work.
    """

    killed_at: int | None = None
    suspended_at: int | None = None
    suspended_for: float = 0.0
    failing: frozenset[int] = frozenset()
    failing_after: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()
    unsent: frozenset[int] = frozenset()
    order: int = 0


@dataclass
class Try:
    """A process with its own view of the storage and of FACEKI."""

    world: World
    faults: Faults
    other: Faults | None = None
    manifest: Any = ()
    assume_new: bool = False
    step: int = 0
    verifications: int = 0
    is_dead: bool = False
    store: MemoryStore = field(init=False)
    faceki: FakeFaceki = field(init=False)

    def __post_init__(self) -> None:
        self.store = MemoryStore()
        self.store.files = self.world.store.files
        self.store.before, self.store.after = self._before, self._after
        self.faceki = FakeFaceki(self.world.clock, bills=self.world.faceki.bills)
        self.faceki._records = self.world.faceki._records
        self.faceki.show_after = self.world.faceki.show_after
        self.faceki.refuse = self.world.faceki.refuse
        self.faceki.before, self.faceki.after = self._before_call, self._after_call

    def run(self) -> None:
        """Run the try to its end, and ignore its errors."""
        own = World(self.world.clock, self.store, random.Random(self.faults.order).randrange)
        own.faceki = self.faceki
        with suppress(Killed, OSError, api.FacekiError):
            own.run(self.manifest, assume_new=self.assume_new)

    def _next_step(self) -> None:
        if self.is_dead:
            raise Killed
        self.step += 1
        if self.step == self.faults.killed_at:
            self.is_dead = True
            raise Killed
        if self.step == self.faults.suspended_at and self.other is not None:
            Try(self.world, self.other, None, self.manifest, self.assume_new).run()
            self.world.clock.suspended += self.faults.suspended_for

    def _before(self, operation: str, uri: str) -> None:
        self._next_step()
        if self.step in self.faults.failing:
            raise OSError("the storage failed")

    def _after(self, operation: str, uri: str) -> None:
        if self.step in self.faults.failing_after:
            raise OSError("the storage failed after it had acted")

    def _before_call(self, kind: str, identifier: str) -> None:
        self._next_step()
        if kind == "verify":
            self.verifications += 1
            if self.verifications in self.faults.unsent:
                raise api.ResponseLostError("the request may have arrived")

    def _after_call(self, identifier: str) -> None:
        self._next_step()
        if self.verifications in self.faults.lost:
            raise api.ResponseLostError("the answer was lost")


STEPS = st.integers(1, 60)
SOME_STEPS = st.frozensets(STEPS, max_size=3)
SOME_CALLS = st.frozensets(st.integers(1, 12), max_size=3)
FAULTS = st.builds(
    Faults,
    killed_at=st.none() | STEPS,
    suspended_at=st.none() | STEPS,
    suspended_for=st.sampled_from([0.0, 4.0, 60.0, 1000.0]),
    failing=SOME_STEPS,
    failing_after=SOME_STEPS,
    lost=SOME_CALLS,
    unsent=SOME_CALLS,
    order=st.integers(0, 3),
)


class InterleavedTries(RuleBasedStateMachine):
    """State machine of one batch."""

    @initialize(
        people=st.integers(1, 9),
        late=st.sampled_from([0.0, 40.0, 140.0]),
        known=st.booleans(),
        refused=st.booleans(),
        assume_new=st.booleans(),
    )
    def begin(self, people: int, late: float, known: bool, refused: bool, assume_new: bool) -> None:
        self.world = World()
        self.assume_new = assume_new
        self.names = [f"p{number}" for number in range(people)]
        self.refused = "p1" if refused else None
        # The manifest also has a duplicate row, and a row without an identifier.
        self.manifest = [*rows(*self.names, "p0"), *rows("undefined")]
        self.world.faceki.show_after = lambda identifier: late if identifier < "p5" else 0.0
        self.world.faceki.refuse = lambda identifier: (
            api.VerificationError("no", code=None, is_ambiguous=False) if identifier == self.refused else None
        )
        # Lookups hide errors of the lease. So half of the batches make no lookups (`assume_new`) and have no known row.
        self.known = {"p0"} if known and not assume_new else set()
        for identifier in self.known:
            self.world.faceki.add_record(identifier, age=1000.0)

    @rule(faults=FAULTS, other=FAULTS)
    def run_a_try(self, faults: Faults, other: Faults) -> None:
        Try(self.world, faults, other, self.manifest, self.assume_new).run()
        self._check_bills()

    @rule(seconds=st.sampled_from([1.0, 30.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.world.clock.now += seconds

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        Try(self.world, Faults(), None, self.manifest, self.assume_new).run()
        self._check_bills()
        results = [line["record_identifier"] for line in self.world.lines("results")]
        errors = Counter(
            line["record_identifier"] or line["row"]
            for line in self.world.lines("errors")
            if line["code"] != "DUPLICATE_IDENTIFIER"
        )
        expected = set(self.names) - {self.refused}
        # Sets are compared, because a suspended try possibly writes a result of the newer try again.
        assert set(results) == expected
        assert set(errors) == ({self.refused} if self.refused in self.names else set()) | {1}
        journal = self.world.journal()
        assert journal.done == len(self.manifest)
        assert journal.index.count_open() == 0
        billed = {line["record_identifier"] for line in self.world.lines("results") if line["billed"]}
        assert billed == expected - self.known

    def _check_bills(self) -> None:
        assert {name: count for name, count in self.world.faceki.bills.items() if count > 1} == {}
        assert not self.known & set(self.world.faceki.bills)


TestInterleavedTries = InterleavedTries.TestCase
TestInterleavedTries.settings = settings(stateful_step_count=5, suppress_health_check=[HealthCheck.too_slow])
