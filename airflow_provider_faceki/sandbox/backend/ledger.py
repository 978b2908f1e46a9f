# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What the sandbox counted: charges, requests by route, polls, webhooks."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass

MAX_POLLS_KEPT = 1000


@dataclass(frozen=True)
class Bill:
    """One charge. `what`: verification, link (answered on the hosted page), face_match, analyze_face."""

    record_identifier: str
    what: str
    at: float


@dataclass(frozen=True)
class Counts:
    """A snapshot. `requests` by route name, `webhooks` by the status they were answered with."""

    requests: Mapping[str, int]
    statuses: Mapping[str, int]
    tokens_issued: int
    tokens_by_form: Mapping[str, int]
    refused: int
    bills: int
    faults_fired: int
    webhooks: Mapping[str, int]
    in_flight: int
    in_flight_max: int

    @property
    def total(self) -> int:
        return sum(self.requests.values())

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "total": self.total}


class Ledger:
    """Charges and counters of one sandbox since its last reset."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything but the requests that are still being answered."""
        self.bills: list[Bill] = []
        self.requests: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.tokens_by_form: Counter[str] = Counter()
        self.refused = 0
        self.faults_fired = 0
        self.webhooks: Counter[str] = Counter()
        self.in_flight_max = self.in_flight
        self._polls: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=MAX_POLLS_KEPT))

    def charges(self) -> dict[str, int]:
        """Return the number of charges by record identifier."""
        return dict(Counter(bill.record_identifier for bill in self.bills))

    def request_begins(self, route: str) -> None:
        self.requests[route] += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)

    def request_ends(self, status: int) -> None:
        self.in_flight -= 1
        self.statuses[str(status)] += 1

    def add_poll(self, key: str, now: float) -> None:
        self._polls[key].append(now)

    def polls(self, key: str) -> tuple[float, ...]:
        return tuple(self._polls.get(key, ()))

    def counts(self) -> Counts:
        return Counts(
            requests=dict(self.requests),
            statuses=dict(self.statuses),
            tokens_issued=self.tokens_by_form.total(),
            tokens_by_form=dict(self.tokens_by_form),
            refused=self.refused,
            bills=len(self.bills),
            faults_fired=self.faults_fired,
            webhooks=dict(self.webhooks),
            in_flight=self.in_flight,
            in_flight_max=self.in_flight_max,
        )
