# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The in-memory store of links and records. It uses no HTTP, no threads and no clock."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass

from airflow_provider_faceki.sandbox.backend.codes import name_of
from airflow_provider_faceki.sandbox.backend.records import Record
from airflow_provider_faceki.sandbox.backend.scenarios import DECISIONS


class Refused(Exception):
    """A call is refused with one of FACEKI's error codes.

    :param code: the error code.
    :param status: the HTTP status of the answer.
    :param record: the record, if the call created a record although it was refused. Otherwise None.
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
    """All links and records of one sandbox.

    The records are indexed by each filter of the records call, because thousands of clients possibly poll at once.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.links: dict[str, Link] = {}
        self._records: dict[str, Record] = {}
        self._index: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
        self._due: list[tuple[float, str]] = []

    def open_link(self, link_id: str, now: float) -> Link:
        """Return a link that can still be used.

        :param now: the current time in seconds since the epoch.
        :raises Refused: If the link is unknown, used up or expired.
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
        """Schedule the automatic answer of a link.

        :param due: the time of the answer in seconds since the epoch.
        """
        heapq.heappush(self._due, (due, link_id))

    def pop_due(self, now: float) -> str | None:
        """Remove and return the id of a link with an automatic answer that is due. If no answer is due, return None."""
        if self._due and self._due[0][0] <= now:
            return heapq.heappop(self._due)[1]
        return None

    def add(self, record: Record) -> None:
        self._records[record.request_id] = record
        for name in ("requestId", "face_id", "link", "record_identifier"):
            # An empty value is not indexed, because the records call ignores an empty filter.
            if value := record.document[name]:
                self._index[name, str(value)].append(record)

    def find(self, **filters: str) -> list[Record]:
        """Return the records that match all filters, oldest first."""
        (name, value), *others = filters.items()
        return [
            record
            for record in self._index.get((name, value), ())
            if all(record.document[other] == wanted for other, wanted in others)
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
