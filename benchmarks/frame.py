# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Measure candidates so that their ratios are reliable even on a busy machine, and create rows of the result table.

The candidates are the functions that are compared, for example a call of our hook and a call of another package. In
each round, all candidates run one after another. The ratio of two candidates is the median of the ratios of the
rounds, with the quartiles. Other load on the machine slows all candidates of a round, so it hardly changes the ratio.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a measurement: a limit for a measured number.

    :param of: ``ours`` if the limit applies to our own number. ``ratio`` if the limit applies to our number divided
        by the number of the peer or baseline.
    :param sign: ``≤`` if the value must not be larger than the limit, ``≥`` if it must not be smaller.
    :param limit: The limit. A value equal to the limit meets the target.
    """

    of: Literal["ours", "ratio"]
    sign: Literal["≤", "≥"]
    limit: float

    def met(self, ours: float, ratio: float | None) -> bool:
        """Return whether the target is met. A missing ratio does not meet the target."""
        value = ours if self.of == "ours" else ratio
        if value is None:
            return False
        return value <= self.limit if self.sign == "≤" else value >= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the result table.

    :param measure: What was measured.
    :param peer: Name of the peer or baseline that was measured too. Empty if there is none.
    :param theirs: The number that was measured for the peer or baseline. ``None`` if it could not be measured.
    :param ours: The number that was measured for our provider.
    :param unit: The unit of both numbers.
    :param ratio: ``ours / theirs``. If the measurement had rounds, this is the median of the ratios of the rounds.
    :param quartiles: The first and the third quartile of the ratios of the rounds.
    :param target: The target of the row. ``None`` if the row is only informative.
    :param remark: A short remark on the result.
    """

    measure: str
    peer: str
    theirs: float | None
    ours: float
    unit: str
    ratio: float | None = None
    quartiles: tuple[float, float] | None = None
    target: Target | None = None
    remark: str = ""

    @property
    def ok(self) -> bool:
        """Return whether the target is met; true for a row without a target."""
        return self.target is None or self.target.met(self.ours, self.ratio)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as a JSON-serializable dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Row:
        """Return the row from a dictionary that :meth:`to_dict` returned."""
        target = document["target"]
        return cls(**{**document, "target": Target(**target) if target else None})


def counted(
    measure: str,
    peer: str,
    theirs: float | None,
    ours: float,
    unit: str,
    target: Target | None,
    remark: str = "",
) -> Row:
    """Return the row of the result table for numbers that were measured only once. It contains no quartiles."""
    return Row(measure, peer, theirs, ours, unit, ours / theirs if theirs else None, None, target, remark)


@dataclass(frozen=True, slots=True)
class Rounds:
    """The result of a measurement in rounds. In each round, each of the compared functions was measured once.

    :param by_name: The seconds per call in each round, by the name of the function.
    """

    by_name: Mapping[str, Sequence[float]]

    def row(self, measure: str, ours: str, peer: str, unit: str = "ms", target: Target | None = None) -> Row:
        """Return the row of the result table that compares two of the measured functions.

        :param measure: What was measured.
        :param ours: Name of the function that uses our provider.
        :param peer: Name of the function with which our function is compared.
        """
        scale = {"ms": 1e3, "µs": 1e6}[unit]
        mine, theirs = self.by_name[ours], self.by_name[peer]
        ratios = [one / other for one, other in zip(mine, theirs, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        return Row(
            measure,
            peer,
            statistics.median(theirs) * scale,
            statistics.median(mine) * scale,
            unit,
            middle,
            (low, high),
            target,
        )


def measure_rounds(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    calls: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Rounds:
    """Measure all candidates in rounds. Each round has another random order.

    With a fixed order, each candidate would always run after the same other candidate, and the state in which this one
    leaves the caches of the processor would change the ratios by some percent.

    :param candidates: The functions that are measured, by name.
    :param rounds: Number of measured rounds. One more round runs first as a warm-up and is not measured.
    :param calls: Number of calls of a candidate in one round.
    :param clock: The clock, in seconds. ``time.thread_time`` measures only the CPU time of this thread.
    """
    order = list(candidates)
    took: dict[str, list[float]] = {name: [] for name in order}
    chance = random.Random(0)  # noqa: S311 - no secret
    for number in range(rounds + 1):
        for name in order:
            call = candidates[name]
            began = clock()
            for _ in range(calls):
                call()
            if number:
                took[name].append((clock() - began) / calls)
        chance.shuffle(order)
    return Rounds(took)
