# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The state of a sandbox in memory: links, records, tokens and counters.

This module does not use HTTP, threads or a clock.
"""

from __future__ import annotations

import heapq
import secrets
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

from airflow_provider_faceki.sandbox.backend.outcomes import DECISIONS, name_of
from airflow_provider_faceki.sandbox.backend.records import Record

#: The names of the filters with which a client can search for records. The JSON document of each record has a field
#: with each of these names.
FILTERS = ("requestId", "face_id", "link", "record_identifier")
MAX_POLLS_KEPT = 1000


class Refused(Exception):
    """Error: the sandbox refuses a call. The answer to the call contains one of FACEKI's error codes.

    :param code: the error code in the answer.
    :param status: the HTTP status of the answer. The verification calls of the v3 API, the web page of a link and the
        control API ignore this status and use their own status.
    :param record: the record that the refused call created. If None, the call created no record.
    """

    def __init__(self, code: int, status: int = 200, record: Record | None = None) -> None:
        super().__init__(f"FACEKI would refuse this with code {code} {name_of(code)}")
        self.code = code
        self.status = status
        self.record = record


@dataclass
class Link:
    """A verification link.

    :param link: the id of the link.
    :param expires_at: the time of expiry in seconds since the epoch. If None, the link never expires.
    :param uses_left: the number of verifications that the link still allows.
    """

    link: str
    workflow_id: str
    record_identifier: str
    redirect_url: str
    expires_at: float | None
    uses_left: int

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class Store:
    """All links and records of one sandbox, and the times at which the sandbox simulates that a person uses a link.

    The records are indexed by each search filter, so that a search is fast even if thousands of clients poll at the
    same time.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.links: dict[str, Link] = {}
        self._records: dict[str, Record] = {}
        self._index: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
        self._due: list[tuple[float, str]] = []

    def open_link(self, link_id: str, now: float) -> Link:
        """Return the link with this id.

        :param now: the current time in seconds since the epoch.
        :raises Refused: if the link is unknown, used up or expired.
        """
        link = self.links.get(link_id)
        if link is None:
            raise Refused(8014)
        if link.uses_left <= 0:
            raise Refused(5009)
        if link.expired(now):
            raise Refused(8015)
        return link

    def answer_at(self, due: float, link_id: str) -> None:
        """Store the time at which the sandbox will simulate that a person uses the link.

        :param due: the time in seconds since the epoch.
        """
        heapq.heappush(self._due, (due, link_id))

    def pop_due(self, now: float) -> str | None:
        """Return the id of a link whose simulated use is due. If no use is due, return None.

        For each simulated use of a link by a person, `answer_at` has stored a time. A use is due if its time has come.
        The stored time of the returned link is removed.

        :param now: the current time in seconds since the epoch.
        """
        if self._due and self._due[0][0] <= now:
            return heapq.heappop(self._due)[1]
        return None

    def add(self, record: Record) -> None:
        self._records[record.request_id] = record
        for name in FILTERS:
            # An empty field is not indexed, because a search for an empty value must find no record.
            if value := record.document[name]:
                self._index[name, str(value)].append(record)

    def find(self, **filters: str) -> list[Record]:
        """Return the records that match all filters, oldest first."""
        (name, value), *others = filters.items()
        return [
            record
            for record in self._index.get((name, value), ())
            if all(str(record.document[other]) == wanted for other, wanted in others)
        ]

    def latest(self, link: str) -> Record | None:
        """Return the newest record of a link. If the link has no record, return None."""
        return next(reversed(self.find(link=link)), None)

    def get(self, request_id: str) -> Record | None:
        return self._records.get(request_id)

    def find_report(self, key: str) -> Record | None:
        return next((record for record in self._records.values() if record.report_key == key), None)

    def find_face(self, selfie: str) -> list[Record]:
        """Return the records with this selfie.

        :param selfie: the SHA-256 digest of the selfie.
        """
        return [record for record in self._records.values() if record.selfie == selfie]

    def decisions(self) -> dict[str, int]:
        """Return the number of records for each decision."""
        counted = Counter(record.decision for record in self._records.values())
        return dict.fromkeys(DECISIONS, 0) | dict(counted)


class Tokens:
    """The tokens of one sandbox.

    FACEKI does not document the format of its tokens, so a client must not parse a token. To make the tests of such a
    client fail, each token of the sandbox is a random text and not a JWT.
    """

    def __init__(self) -> None:
        self._valid_until: dict[str, float] = {}

    def issue(self, now: float, lifetime: float) -> str:
        # Expired tokens are removed, so that the memory of a sandbox that runs for days does not grow.
        self._valid_until = {token: end for token, end in self._valid_until.items() if end > now}
        token = "sbx-" + secrets.token_urlsafe(48)
        self._valid_until[token] = now + lifetime
        return token

    def is_valid(self, token: str, now: float) -> bool:
        return self._valid_until.get(token, 0.0) > now

    def revoke_all(self, now: float) -> int:
        """Revoke every token and return the number of revoked tokens. An expired token is not counted."""
        revoked = self.count(now)
        self._valid_until.clear()
        return revoked

    def count(self, now: float) -> int:
        return sum(end > now for end in self._valid_until.values())


@dataclass(frozen=True)
class Bill:
    """One charge.

    :param record_identifier: the record identifier of the verification. It is empty for a face search, for a face
        analysis, and for a verification without a record identifier.
    :param what: the kind of the call. The kinds are `verification`, `link` (a link that was answered on the hosted
        page), `face_match` and `analyze_face`.
    :param at: the time of the charge in seconds since the epoch.
    """

    record_identifier: str
    what: str
    at: float


@dataclass
class Counts:
    """The counters of one sandbox since its last reset. Calls of the control API are not counted.

    :param requests: the number of requests for each route name.
    :param statuses: the number of requests for each HTTP status, counted before the answer is sent. The status 499
        means that the client received no response.
    :param tokens_by_form: the number of issued tokens for each form of the token request. The forms differ in the path
        and in the place of the credentials, for example JSON body or headers.
    :param refused: the number of requests that were refused because of a missing or invalid token.
    :param bills: the number of charges.
    :param faults_fired: the number of requests to which a fault (a simulated error) was applied.
    :param webhooks: the number of sent webhooks for each result: an HTTP status, or `no answer` (see `post`).
    :param in_flight: the number of requests whose response is not ready to be sent yet.
    :param in_flight_max: the maximum of `in_flight` since the last reset.
    """

    requests: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    tokens_by_form: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    bills: int = 0
    faults_fired: int = 0
    webhooks: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    in_flight_max: int = 0

    @property
    def tokens_issued(self) -> int:
        """The number of issued tokens."""
        return self.tokens_by_form.total()

    @property
    def total(self) -> int:
        return self.requests.total()

    def as_dict(self) -> dict[str, object]:
        return {**vars(self), "tokens_issued": self.tokens_issued, "total": self.total}

    def request_begins(self, route: str) -> None:
        self.requests[route] += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)

    def request_ends(self, status: int) -> None:
        self.in_flight -= 1
        self.statuses[str(status)] += 1


class Ledger:
    """The charges and counters of one sandbox since its last reset."""

    def __init__(self) -> None:
        self.bills: list[Bill] = []
        self.counts = Counts()
        self._polls: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=MAX_POLLS_KEPT))

    def charges(self) -> dict[str, int]:
        """Return the number of charges for each record identifier."""
        return dict(Counter(bill.record_identifier for bill in self.bills))

    def add_poll(self, key: str, now: float) -> None:
        self._polls[key].append(now)

    def polls(self, key: str) -> tuple[float, ...]:
        return tuple(self._polls.get(key, ()))
