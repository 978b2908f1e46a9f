# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What does this FACEKI know: links, records, bills? Pure bookkeeping: no HTTP, no threads, time from a Clock."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from airflow_provider_faceki.sandbox.clock import Clock
from airflow_provider_faceki.sandbox.codes import REJECTIONS
from airflow_provider_faceki.sandbox.records import Record, new_record
from airflow_provider_faceki.sandbox.scenarios import ACCEPTED, DECLINED, REVIEW, Scenario, scenario_of
from airflow_provider_faceki.sandbox.settings import Settings
from airflow_provider_faceki.sandbox.tokens import Tokens
from airflow_provider_faceki.sandbox.workflows import DEFAULT_WORKFLOW, WORKFLOWS, Workflow


class Refused(Exception):
    """FACEKI says no, with a code of its table."""

    def __init__(self, code: int, status: int = 200, record: Record | None = None) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.status = status
        self.record = record


@dataclass
class Link:
    link: str
    workflow_id: str
    record_identifier: str
    redirect_url: str
    expires_at: float | None
    uses_left: int

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True)
class Bill:
    """One charge. `what`: verification, link (answered on the hosted page), face_match, analyze_face."""

    record_identifier: str
    what: str
    at: float


def _announce_to_nobody(record: Record) -> None:
    return None


class State:
    """`announce` is told of every decision that is made or changed (the webhook hangs there)."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.announce: Callable[[Record], None] = _announce_to_nobody
        self.forget()

    def forget(self) -> None:
        self.tokens = Tokens()
        self.links: dict[str, Link] = {}
        self.bills: list[Bill] = []
        self._records: dict[str, Record] = {}
        self._index: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
        self._due: list[tuple[float, str]] = []

    # Workflows and links

    def workflow(self, workflow_id: object) -> Workflow:
        if not isinstance(workflow_id, str) or not workflow_id:
            raise Refused(5002, 422)
        if workflow_id not in WORKFLOWS:
            raise Refused(5001)
        return WORKFLOWS[workflow_id]

    def create_link(
        self, workflow_id: object, minutes: float | None, record_identifier: str = "", redirect_url: str = ""
    ) -> Link:
        """`minutes` None or 0: a link without an end (undocumented; assumption)."""
        now = self.clock.now()
        link = Link(
            link=str(uuid4()),
            workflow_id=self.workflow(workflow_id).workflow_id,
            record_identifier=record_identifier,
            redirect_url=redirect_url,
            expires_at=now + minutes * 60 if minutes else None,
            uses_left=self.settings.link_limit,
        )
        self.links[link.link] = link
        if self.settings.auto_answer is not None:
            heapq.heappush(self._due, (now + self.settings.auto_answer, link.link))
        return link

    def open_link(self, link_id: str) -> Link:
        """The link, provided that somebody may still verify with it."""
        link = self.links.get(link_id)
        if link is None:
            raise Refused(8014)
        if link.uses_left <= 0:
            raise Refused(5009)
        if link.expired(self.clock.now()):
            raise Refused(8015)
        return link

    def tick(self) -> None:
        """Answer the links whose time for answering by themselves has come."""
        while self._due and self._due[0][0] <= self.clock.now():
            link_id = heapq.heappop(self._due)[1]
            # Somebody was quicker, the link has expired, the wallet is empty: then it stays as it is.
            with suppress(Refused):
                self.answer_link(link_id)

    def answer_link(self, link_id: str, decision: str | None = None, selfie: str = "") -> Record:
        """Somebody verified on the hosted page, or a script did. No decision: the record identifier decides."""
        link = self.open_link(link_id)
        scenario = scenario_of(link.record_identifier) if decision is None else Scenario(decision)
        return self._look(scenario, link.workflow_id, link.record_identifier, link, selfie, "link")

    # Records

    def _file(self, record: Record) -> None:
        """Thousands may wait and poll at once, so nothing is found by looking through all records."""
        self._records[record.request_id] = record
        for name in ("requestId", "face_id", "link", "record_identifier"):
            # What a record does not have is nothing to find it by.
            if value := record.document[name]:
                self._index[name, str(value)].append(record)

    def verify(self, workflow_id: str, record_identifier: str, link: Link | None, selfie: str) -> Record:
        """Images came in by a call. A code is raised, with the record where one was made."""
        scenario = scenario_of(record_identifier)
        record = self._look(scenario, workflow_id, record_identifier, link, selfie, "verification")
        if scenario.code is not None:
            raise Refused(scenario.code, record=record)
        return record

    def _look(
        self,
        scenario: Scenario,
        workflow_id: str,
        record_identifier: str,
        link: Link | None,
        selfie: str,
        what: str,
    ) -> Record:
        if scenario.code is not None and scenario.code not in REJECTIONS:
            raise Refused(scenario.code)
        if scenario.code is None or self.settings.bill_rejections:
            self.charge(record_identifier, what)
        if link is not None:
            link.uses_left -= 1
        record = self._new_record(scenario, workflow_id, record_identifier, link.link if link else "", selfie)
        self._file(record)
        self.announce(record)
        return record

    def _new_record(
        self, scenario: Scenario, workflow_id: str, record_identifier: str, link_id: str, selfie: str
    ) -> Record:
        return new_record(
            self.settings,
            self.clock.now(),
            workflow_id=workflow_id,
            record_identifier=record_identifier,
            link=link_id,
            decision=scenario.decision,
            code=scenario.code,
            selfie=selfie,
        )

    def records(self, **filters: str) -> list[Record]:
        """Those that match every filter, oldest first."""
        (name, value), *others = filters.items()
        return [
            record
            for record in self._index.get((name, value), ())
            if all(record.document[other] == wanted for other, wanted in others)
        ]

    def record(self, request_id: str) -> Record | None:
        return self._records.get(request_id)

    def record_of_report(self, key: str) -> Record | None:
        return next((record for record in self._records.values() if record.report_key == key), None)

    def faces(self, selfie: str) -> list[Record]:
        return [record for record in self._records.values() if record.selfie == selfie]

    def decide(self, key: str, decision: str, by: str = "sandbox") -> Record:
        """`key`: a link (answers it, or changes its latest record) or a request id. Changes are allowed any time:
        records are mutable, as `updatedAt` and `updateBy` show."""
        found = self._records.get(key) or next(reversed(self.records(link=key)), None)
        if found is None:
            return self.answer_link(key, decision)
        found.decide(decision, self.clock.now(), by)
        self.announce(found)
        return found

    # Money

    def charge(self, record_identifier: str, what: str) -> None:
        if self.settings.credit is not None:
            if self.settings.credit <= 0:
                raise Refused(5003)
            self.settings.credit -= 1
        self.bills.append(Bill(record_identifier, what, self.clock.now()))

    def ledger(self) -> dict[str, int]:
        """How often each record identifier was charged for."""
        return dict(Counter(bill.record_identifier for bill in self.bills))

    def summary(self) -> dict[str, int]:
        decisions = Counter(str(record.document["decision"]) for record in self._records.values())
        return {each: decisions.get(each, 0) for each in (ACCEPTED, DECLINED, REVIEW)} | dict(decisions)

    def add_record(
        self,
        record_identifier: str = "",
        decision: str = ACCEPTED,
        *,
        link: str = "",
        code: int | None = None,
        selfie: str = "",
        fields: Mapping[str, object] | None = None,
    ) -> Record:
        """A record from before: not billed, not announced. `fields` replace or add top-level fields."""
        record = self._new_record(Scenario(decision, code), DEFAULT_WORKFLOW, record_identifier, link, selfie)
        record.document.update(fields or {})
        record.request_id = str(record.document["requestId"])
        self._file(record)
        return record
