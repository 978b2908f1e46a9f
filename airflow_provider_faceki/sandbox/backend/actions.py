# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Everything that can be done to a sandbox, each action once.

The routes, the control API and `FacekiSandbox` call these methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from hashlib import sha256
from threading import RLock
from uuid import uuid4

from airflow_provider_faceki.sandbox.backend.clock import Clock
from airflow_provider_faceki.sandbox.backend.codes import REJECTIONS
from airflow_provider_faceki.sandbox.backend.ledger import Bill, Counts, Ledger
from airflow_provider_faceki.sandbox.backend.records import Record, new_record
from airflow_provider_faceki.sandbox.backend.scenarios import (
    ACCEPTED,
    DECISIONS,
    Scenario,
    is_decision,
    scenario_of,
)
from airflow_provider_faceki.sandbox.backend.store import Link, Refused, Store
from airflow_provider_faceki.sandbox.backend.tokens import Tokens
from airflow_provider_faceki.sandbox.backend.webhooks import WebhookSender
from airflow_provider_faceki.sandbox.backend.workflows import DEFAULT_WORKFLOW, WORKFLOWS, Workflow
from airflow_provider_faceki.sandbox.dialects import Dialect, dialect_of
from airflow_provider_faceki.sandbox.faults import ANY_ROUTE, Fault, Faults, fault_from
from airflow_provider_faceki.sandbox.settings import Settings

LINK_ENDS = ("expired", "used_up")


class Backend:
    """One sandbox without its server.

    The lock is held while a request is decided on, never while anything is sent or waited for.

    :param settings: how it behaves; may be changed at any time.
    :param clock: measures token and link lifetimes.
    :param route_names: the routes that a fault may name.
    """

    def __init__(self, settings: Settings, clock: Clock, route_names: tuple[str, ...]) -> None:
        self.route_names = route_names
        self.lock = RLock()
        self.settings = settings
        self._initial_settings = deepcopy(settings)
        self.clock = clock
        self.store = Store()
        self.tokens = Tokens()
        self.faults = Faults()
        self.accounts = Ledger()
        self.webhooks = WebhookSender(settings, self._webhook_sent)
        #: Grows with each reset: work that began before a reset must not end after it.
        self.generation = 0

    def reset(self) -> None:
        """Restore the initial settings and forget tokens, links, records, bills, faults, counters. The clock stays."""
        with self.lock:
            self.generation += 1
            self.settings.update(self._initial_settings.values())
            self.store.clear()
            self.tokens = Tokens()
            self.faults.clear()
            self.accounts.clear()
            self.webhooks.clear()

    @property
    def dialect(self) -> Dialect:
        return dialect_of(self.settings.dialect)

    # Faults and tokens

    def add_fault(self, kind: str | Fault, **options: object) -> None:
        """Queue a fault, as in `add_fault("status", route="records", status=503)`. `Fault` lists kinds and options."""
        fault = kind if isinstance(kind, Fault) else fault_from({"kind": kind, **options})
        if fault.route != ANY_ROUTE and fault.route not in self.route_names:
            raise ValueError(
                f"fault route: found {fault.route!r}, allowed is * or one of {', '.join(self.route_names)}"
            )
        with self.lock:
            self.faults.add(fault)

    def clear_faults(self) -> None:
        with self.lock:
            self.faults.clear()

    def revoke_tokens(self) -> int:
        """Revoke every token. Returns how many there were."""
        with self.lock:
            return self.tokens.revoke_all()

    def is_authorized(self, headers: Mapping[str, str]) -> bool:
        """Whether these headers, named in lower case, hold a valid token."""
        value = headers.get(self.dialect.token_header, "").strip()
        if self.dialect.token_scheme:
            scheme, _, value = value.partition(" ")
            if scheme.lower() != self.dialect.token_scheme:
                return False
        return self.tokens.is_valid(value.strip(), self.clock.now())

    # Links

    def workflow(self, workflow_id: object) -> Workflow:
        """Return a workflow.

        :raises Refused: it has no id, or an unknown one.
        """
        if not isinstance(workflow_id, str) or not workflow_id:
            raise Refused(5002, 422)
        if workflow_id not in WORKFLOWS:
            raise Refused(5001)
        return WORKFLOWS[workflow_id]

    def create_link(
        self,
        record_identifier: str = "",
        *,
        workflow_id: str = DEFAULT_WORKFLOW,
        minutes: float | None = None,
        redirect_url: str = "",
    ) -> str:
        """Make a link, and return its id.

        :param minutes: its lifetime; None or 0: without an end (undocumented; assumption).
        :raises Refused: the workflow does not exist.
        """
        _require_texts(record_identifier=record_identifier, redirect_url=redirect_url)
        if minutes is not None and (isinstance(minutes, bool) or not _is_number(minutes) or minutes < 0):
            raise ValueError(f"minutes: found {minutes!r}, allowed is a number from 0, or None")
        with self.lock:
            now = self.clock.now()
            link = Link(
                link=str(uuid4()),
                workflow_id=self.workflow(workflow_id).workflow_id,
                record_identifier=record_identifier,
                redirect_url=redirect_url,
                expires_at=now + minutes * 60 if minutes else None,
                uses_left=self.settings.link_limit,
            )
            self.store.links[link.link] = link
            if self.settings.auto_answer is not None:
                self.store.answer_at(now + self.settings.auto_answer, link.link)
            return link.link

    def end_link(self, link: str, how: str) -> None:
        """Make a link `expired` or `used_up` at once."""
        _require_texts(link=link)
        if how not in LINK_ENDS:
            raise ValueError(f"how: found {how!r}, allowed is {_either(LINK_ENDS)}")
        with self.lock:
            found = self.store.links.get(link)
            if found is None:
                raise ValueError(f"link: found {link!r}, allowed is a link of this sandbox")
            if how == "expired":
                found.expires_at = self.clock.now()
            else:
                found.uses_left = 0

    def open_link(self, link_id: str) -> Link:
        """Return a link that can still be used.

        :raises Refused: it is unknown, used up or expired.
        """
        return self.store.open_link(link_id, self.clock.now())

    def answer_link(self, link_id: str, decision: str | None = None, selfie: str = "") -> Record:
        """Verify a person as the hosted page does.

        :param decision: None: the record identifier decides.
        :raises Refused: the link cannot be used, the credit is used up, or the scenario says so.
        """
        with self.lock:
            link = self.open_link(link_id)
            scenario = scenario_of(link.record_identifier) if decision is None else Scenario(decision)
            return self._verify(scenario, link.workflow_id, link.record_identifier, link, selfie, "link")

    def answer_due_links(self) -> None:
        """Answer the links that answer themselves by now."""
        with self.lock:
            while (link := self.store.pop_due(self.clock.now())) is not None:
                # It was answered already, has expired, or the credit is used up: then it stays as it is.
                with suppress(Refused):
                    self.answer_link(link)

    # Verifications and records

    def verify(self, workflow: Workflow, record_identifier: str, link: Link | None, selfie: str) -> Record:
        """Verify images that came in by a call; the record identifier decides.

        :raises Refused: the scenario is a code, with the record where one was made.
        """
        scenario = scenario_of(record_identifier)
        record = self._verify(scenario, workflow.workflow_id, record_identifier, link, selfie, "verification")
        if scenario.code is not None:
            raise Refused(scenario.code, record=record)
        return record

    def _verify(
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
        self.store.add(record)
        self.webhooks.send(record.request_id, record.webhook())
        return record

    def _new_record(
        self, scenario: Scenario, workflow_id: str, record_identifier: str, link_id: str, selfie: str
    ) -> Record:
        return new_record(
            WORKFLOWS[workflow_id],
            self.clock.now(),
            record_identifier=record_identifier,
            link=link_id,
            scenario=scenario,
            selfie=selfie,
            person=self.settings.person,
        )

    def add_record(
        self,
        record_identifier: str = "",
        decision: str = ACCEPTED,
        *,
        link: str = "",
        code: int | None = None,
        selfie: bytes | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> dict[str, object]:
        """Add a record from earlier: neither billed nor sent as a webhook. Returns it.

        :param code: an error code of the record.
        :param selfie: what face search finds the record by.
        :param fields: replace or add top-level fields.
        """
        _require_texts(record_identifier=record_identifier, decision=decision, link=link)
        if isinstance(code, bool) or not isinstance(code, int | None):
            raise ValueError(f"code: found {code!r}, allowed is a whole number, or None")
        if not isinstance(fields, Mapping | None):
            raise ValueError("fields: allowed is an object, or None")
        if not isinstance(selfie, bytes | None):
            raise ValueError(f"selfie: found {type(selfie).__name__}, allowed is bytes, or None")
        digest = "" if selfie is None else sha256(selfie).hexdigest()
        with self.lock:
            record = self._new_record(
                Scenario(decision, code), DEFAULT_WORKFLOW, record_identifier, link, digest
            )
            record.document.update(fields or {})
            record.request_id = str(record.document["requestId"])
            self.store.add(record)
            return deepcopy(record.document)

    def decide(self, key: str, decision: str, by: str = "sandbox") -> dict[str, object]:
        """Answer a link, or change what a record says, at any time. Returns the record.

        :param key: a link (answers it, or changes its newest record) or a request id.
        :param decision: ACCEPTED, DECLINED, REVIEW, or another word in capitals.
        :param by: who decided; stands in the record.
        :raises Refused: the link cannot be used.
        """
        _require_texts(key=key, decision=decision)
        if not is_decision(decision):
            raise ValueError(
                f"decision: found {decision!r}, allowed is {_either(DECISIONS)}, or another word in capitals"
            )
        with self.lock:
            record = self.store.get(key) or self.store.latest(key)
            if record is None:
                if key not in self.store.links:
                    raise ValueError(
                        f"decide: found {key!r}, allowed is the id of a link or a requestId of this sandbox"
                    )
                return deepcopy(self.answer_link(key, decision).document)
            record.decide(decision, self.clock.now(), by)
            self.webhooks.send(record.request_id, record.webhook())
            return deepcopy(record.document)

    def send_fake_webhook(self, request_id: str, status: str, full_name: str = "") -> None:
        """Send a webhook about something that did not happen."""
        _require_texts(request_id=request_id, status=status, full_name=full_name)
        body = {"requestId": request_id, "fullName": full_name, "status": status, "kycData": {}}
        self.webhooks.send(request_id, body, "normal")

    def _webhook_sent(self, outcome: str) -> None:
        with self.lock:
            self.accounts.webhooks[outcome] += 1

    # Charges and counters

    def charge(self, record_identifier: str, what: str) -> None:
        """Charge for a call.

        :raises Refused: the credit is used up.
        """
        if self.settings.credit is not None:
            if self.settings.credit <= 0:
                raise Refused(5003)
            self.settings.credit -= 1
        self.accounts.bills.append(Bill(record_identifier, what, self.clock.now()))

    @property
    def counters(self) -> Counts:
        """A snapshot of what was counted since the last reset."""
        with self.lock:
            return self.accounts.counts()

    @property
    def ledger(self) -> dict[str, int]:
        """The number of charges by record identifier."""
        with self.lock:
            return self.accounts.charges()

    @property
    def bills(self) -> tuple[Bill, ...]:
        """Each charge, with its time."""
        with self.lock:
            return tuple(self.accounts.bills)

    def polls(self, **by: str) -> tuple[float, ...]:
        """Return when records were asked for by `link=`, `requestId=`, `record_identifier=` or `face_id=`."""
        ((name, value),) = by.items()
        with self.lock:
            return self.accounts.polls(f"{name}={value}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _require_texts(**values: object) -> None:
    for name, value in values.items():
        if not isinstance(value, str):
            raise ValueError(f"{name}: found {type(value).__name__}, allowed is text")


def _either(words: tuple[str, ...]) -> str:
    return " or ".join(map(repr, words)) if len(words) < 3 else "one of " + ", ".join(words)
