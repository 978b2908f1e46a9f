# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Measurements that hold on a busy machine: rounds of all candidates side by side, and their rows in the table.

Only what is measured side by side is compared: the candidates run one after another in each round, and a ratio is the
median of the ratios of the rounds, with its quartiles. Other load on the machine slows all candidates of a round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Target:
    """The limit that a number has to keep.

    :param of: Whether the limit is on our own number or on its ratio to the peer's.
    :param sign: Which side of the limit is good.
    :param limit: The limit, itself included.
    """

    of: Literal["ours", "ratio"]
    sign: Literal["≤", "≥"]
    limit: float

    def met(self, ours: float, ratio: float | None) -> bool:
        """Whether these numbers are good enough; a ratio that could not be taken is not."""
        value = ours if self.of == "ours" else ratio
        if value is None:
            return False
        return value <= self.limit if self.sign == "≤" else value >= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    :param measure: What was measured.
    :param peer: The peer or floor that was measured too; empty if there is none.
    :param theirs: Its number; ``None`` where it could not be taken.
    :param ours: Our number.
    :param unit: The unit of both.
    :param ratio: Ours over theirs, from the rounds' own ratios where there were rounds.
    :param quartiles: The middle half of those ratios.
    :param target: The limit to keep; ``None`` for a line that only informs.
    :param remark: A word on what was found.
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
        """Return it as JSON would have it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Row:
        """Read what :meth:`to_dict` wrote."""
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
    """Return the row of a number that was counted, not timed."""
    return Row(measure, peer, theirs, ours, unit, ours / theirs if theirs else None, None, target, remark)


@dataclass(frozen=True, slots=True)
class Rounds:
    """What each candidate took in each round, in seconds a call."""

    by_name: Mapping[str, Sequence[float]]

    def row(self, measure: str, ours: str, peer: str, unit: str = "ms", target: Target | None = None) -> Row:
        """Return the row that compares the candidate ``ours`` with another."""
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
    """Let the candidates take turns, each ``calls`` calls a turn; who begins moves on with every round.

    :param candidates: What to call, by name.
    :param rounds: How often each gets its turn, after one turn to warm up.
    :param calls: Calls a turn.
    :param clock: What is read before and after a turn; ``time.thread_time`` counts this thread's CPU only.
    """
    order = list(candidates)
    took: dict[str, list[float]] = {name: [] for name in order}
    for number in range(rounds + 1):
        for name in order:
            call = candidates[name]
            began = clock()
            for _ in range(calls):
                call()
            if number:
                took[name].append((clock() - began) / calls)
        order.append(order.pop(0))
    return Rounds(took)
