# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The counters of the sandbox: charges, requests by route, polls and webhooks."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass

MAX_POLLS_KEPT = 1000


@dataclass(frozen=True)
class Bill:
    """One charge.

    :param record_identifier: the record identifier of the verification. If empty, the call names no identifier.
    :param what: the kind of the call: `verification`, `link` (a link that was answered on the hosted page),
        `face_match` or `analyze_face`.
    :param at: the time of the charge in seconds since the epoch.
    """

    record_identifier: str
    what: str
    at: float


@dataclass(frozen=True)
class Counts:
    """A snapshot of the counters.

    :param requests: the number of requests for each route name.
    :param statuses: the number of responses for each HTTP status.
    :param tokens_issued: the number of issued tokens.
    :param tokens_by_form: the number of issued tokens for each form of the token request.
    :param refused: the number of requests that were refused because of their token.
    :param bills: the number of charges.
    :param faults_fired: the number of requests to which a fault was applied.
    :param webhooks: the number of sent webhooks for each result: an HTTP status, or `no answer`.
    :param in_flight: the number of requests that are being answered now.
    :param in_flight_max: the maximum of `in_flight` since the last reset.
    """

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
    """The charges and counters of one sandbox since its last reset."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.clear()

    def clear(self) -> None:
        """Delete all charges and counters, except the number of requests that are being answered now."""
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
        """Return the number of charges for each record identifier."""
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
