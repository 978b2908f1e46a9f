# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""All actions on the simulated FACEKI service, as methods of `Backend`.

Three callers use these methods, so that each action is implemented only once:

- The routes, which serve the calls of the FACEKI API.
- The control API, with which tests control a running sandbox by HTTP.
- `FacekiSandbox`, with which tests control a sandbox from Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from hashlib import sha256
from threading import RLock
from uuid import uuid4

from airflow_provider_faceki.sandbox.backend.clock import Clock
from airflow_provider_faceki.sandbox.backend.outcomes import (
    ACCEPTED,
    DECISIONS,
    REJECTIONS,
    Scenario,
    is_decision,
    scenario_of,
)
from airflow_provider_faceki.sandbox.backend.records import Record, new_record
from airflow_provider_faceki.sandbox.backend.store import (
    FILTERS,
    Bill,
    Counts,
    Ledger,
    Link,
    Refused,
    Store,
    Tokens,
)
from airflow_provider_faceki.sandbox.backend.webhooks import WebhookSender
from airflow_provider_faceki.sandbox.backend.workflows import DEFAULT_WORKFLOW, WORKFLOWS, Workflow
from airflow_provider_faceki.sandbox.dialects import Dialect, dialect_of
from airflow_provider_faceki.sandbox.faults import ANY_ROUTE, Fault, Faults, fault_from
from airflow_provider_faceki.sandbox.messages import Request, Response, Route, unauthorized
from airflow_provider_faceki.sandbox.settings import Settings

LINK_ENDS = ("expired", "used_up")
MAX_LINK_MINUTES = 10 * 365 * 24 * 60


class Backend:
    """The state of one sandbox, and the actions on this state. It contains no HTTP server.

    `lock` protects the state. The lock is held while the answer to a request is computed. It is never held during
    network I/O or a sleep.

    :param settings: the settings of the sandbox. They can be changed at any time. `reset` restores their initial
        values.
    :param clock: the clock that measures the lifetimes of tokens and links.
    :param route_names: the names of the API calls (routes) of the sandbox. A test can queue a fault, which is a
        simulated error, for one of these names.
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
        #: The number of resets. A request stores this number when it begins. If this number is different when the
        #: request is processed, the sandbox was reset in between. The request must then not change the new state.
        self.generation = 0

    def reset(self) -> None:
        """Restore the initial settings, and delete all other state except the clock.

        The deleted state is: tokens, links, records, charges, counters, queued faults (simulated errors) and webhooks
        that are not sent yet.
        """
        with self.lock:
            self.generation += 1
            self.settings.update(self._initial_settings.values())
            self.store.clear()
            self.tokens = Tokens()
            self.faults.clear()
            self.accounts = Ledger()
            self.webhooks.clear()

    @property
    def dialect(self) -> Dialect:
        return dialect_of(self.settings.dialect)

    # Methods that queue faults (simulated errors) for the simulated FACEKI service, and methods that revoke and check
    # its access tokens.

    def add_fault(self, kind: str | Fault, **options: object) -> None:
        """Queue a fault, for example `add_fault("status", route="records", status=503)`.

        :param kind: a `Fault`, or the name of a fault kind. `Fault` lists the kinds.
        :param options: the options of the fault. They are allowed only if `kind` is a name. `Fault` lists the options.
        :raises ValueError: if the kind, an option or the route is invalid.
        """
        if isinstance(kind, Fault) and options:
            raise ValueError(
                f"fault {', '.join(options)}: allowed only if the kind is a name and not a Fault"
            )
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
        """Revoke every token and return the number of revoked tokens. An expired token is not counted."""
        with self.lock:
            return self.tokens.revoke_all(self.clock.now())

    def is_authorized(self, route: Route, request: Request) -> bool:
        """Return whether the route needs no token, or the headers of the request contain a valid token."""
        if not route.bearer:
            return True
        with self.lock:
            value = request.headers.get(self.dialect.token_header, "").strip()
            if self.dialect.token_scheme:
                scheme, _, value = value.partition(" ")
                if scheme.lower() != self.dialect.token_scheme:
                    return False
            return self.tokens.is_valid(value.strip(), self.clock.now())

    def refuse_token(self, route: Route) -> Response:
        """Count a request without a valid token, and return the answer to it."""
        self.accounts.counts.refused += 1
        if self.dialect.dead_token is not None:
            return self.dialect.dead_token
        return self.dialect.change(route.name, unauthorized(self.settings.refusal_status))

    # The methods that handle links in the simulated FACEKI service. A link leads to the page on which a person is
    # verified.

    def workflow(self, workflow_id: object) -> Workflow:
        """Return the workflow with this id.

        :raises Refused: if the id is missing or unknown.
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
        """Create a link and return its id.

        :param record_identifier: the caller's own id of the verification. The beginning of this text selects the
            outcome of the verification, as `outcomes.py` explains.
        :param workflow_id: the id of the workflow for the verification.
        :param minutes: the lifetime of the link in minutes. If None or 0, the link never expires. This is an
            assumption, because FACEKI does not document this case.
        :param redirect_url: the URL to which the person's browser is sent after the verification. If empty, there is
            no redirect.
        :raises Refused: if `workflow_id` is empty or unknown.
        :raises ValueError: if `record_identifier` or `redirect_url` is not a text, or if `minutes` is not a number from
            0 to `MAX_LINK_MINUTES`.
        """
        _require_texts(record_identifier=record_identifier, redirect_url=redirect_url)
        if minutes is not None and not _is_number(minutes, MAX_LINK_MINUTES):
            raise ValueError(
                f"minutes: found {minutes!r}, allowed is a number from 0 to {MAX_LINK_MINUTES}, or None"
            )
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
        """Change the state of a link to `expired` or `used_up` at once.

        :param how: the new state, `expired` or `used_up`.
        :raises ValueError: if the link is unknown, or `how` is another text.
        """
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
        """Return the link with this id.

        :raises Refused: if the link is unknown, used up or expired.
        """
        return self.store.open_link(link_id, self.clock.now())

    def answer_link(self, link_id: str, decision: str | None = None, selfie: str = "") -> Record:
        """Verify a person through a link, as the web page of the link does, and return the new record.

        :param decision: the decision of the record. If None, the record identifier of the link selects the outcome: a
            decision or an error code. An error code in `REJECTIONS` means that the images were examined and rejected.
            The new record then has the decision DECLINED. Every other error code raises `Refused`.
        :param selfie: the SHA-256 digest of the selfie. If empty, no selfie was uploaded.
        :raises Refused: if the link cannot be used, if the credit is used up, or if the outcome is an error code that
            is not in `REJECTIONS`.
        """
        with self.lock:
            link = self.open_link(link_id)
            scenario = scenario_of(link.record_identifier) if decision is None else Scenario(decision)
            return self._verify(scenario, link.workflow_id, link.record_identifier, link, selfie, "link")

    def answer_due_links(self) -> None:
        """Simulate the use of a link by a person, for each link that is due.

        A link is due `auto_answer` seconds after its creation. The value that this setting had at the creation of the
        link is used. If this value was None, the link never becomes due.
        """
        with self.lock:
            while (link := self.store.pop_due(self.clock.now())) is not None:
                # `answer_link` raises `Refused`, for example if the link has expired or there is no credit. Then there
                # is no verification, and the sandbox does not try this link again.
                with suppress(Refused):
                    self.answer_link(link)

    # Methods of the simulated FACEKI service for verifications and their records.

    def verify(self, workflow: Workflow, record_identifier: str, link: Link | None, selfie: str) -> Record:
        """Verify a person with the images of an API call, and return the new record.

        The record identifier selects the outcome: a decision or an error code.

        :param link: the link of the call. If None, the call uses no link.
        :param selfie: the SHA-256 digest of the selfie.
        :raises Refused: if the credit is used up, or the outcome is an error code. If this code is in `REJECTIONS`, a
            record is created nevertheless, and the exception contains this record.
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
        """Add a record without a verification, and return the document of the record.

        The record is not billed, and no webhook is sent.

        :param record_identifier: the caller's own id of the verification.
        :param decision: the decision of the record.
        :param link: the id of the link of the record. If empty, the record belongs to no link.
        :param code: the error code in the record. If None, a record with the decision DECLINED contains the code 5008,
            and every other record contains no code.
        :param selfie: the content of the selfie. The face search finds the record by this selfie. If None, the face
            search does not find the record.
        :param fields: top-level fields to replace in the document or to add to it.
        :raises ValueError: if a value has a wrong type.
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
        """Decide about a link or a record, and return the record as a JSON object.

        The effect depends on `key`:

        - Request id of a record: the decision of this record is changed.
        - Id of a link with records: the decision of the newest record of the link is changed.
        - Id of a link without records: a person is verified through the link, and a new record is created.

        In each case a webhook is sent, unless the setting `webhook_url` is None or `webhook_mode` is `never`.

        :param key: the request id of a record, or the id of a link.
        :param decision: ACCEPTED, DECLINED, REVIEW, or another word in capital letters.
        :param by: the name of the reviewer. It is stored in the record if the decision of an existing record is
            changed.
        :raises ValueError: if the key is unknown, or the decision is not a word in capital letters.
        :raises Refused: if a link without records cannot be used, or if there is no credit for the new verification.
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
        """Send a forged webhook: a webhook for a verification that did not happen.

        The setting `webhook_mode`, which can delay, repeat or drop webhooks, has no effect on this webhook.
        """
        _require_texts(request_id=request_id, status=status, full_name=full_name)
        body = {"requestId": request_id, "fullName": full_name, "status": status, "kycData": {}}
        self.webhooks.send(request_id, body, "normal")

    def _webhook_sent(self, outcome: str) -> None:
        with self.lock:
            self.accounts.counts.webhooks[outcome] += 1

    # Methods of the simulated FACEKI service for charges, counters and the face search.

    def charge(self, record_identifier: str, what: str) -> None:
        """Charge the account for a call.

        :param what: the kind of the call. The docstring of `Bill` lists the kinds.
        :raises Refused: if the credit is used up.
        """
        if self.settings.credit is not None:
            if self.settings.credit <= 0:
                raise Refused(5003)
            self.settings.credit -= 1
        self.accounts.bills.append(Bill(record_identifier, what, self.clock.now()))
        self.accounts.counts.bills += 1

    def search_face(self, selfie: str | None, *, missing: int) -> list[Record]:
        """Charge the account for a face search, and return the records that were made with exactly this selfie file.

        The search is billed even if no record is found. This is an assumption, because FACEKI does not document this
        case.

        :param selfie: the SHA-256 digest of the selfie in the request. If None, the request contains no selfie.
        :param missing: the error code that `Refused` contains if `selfie` is None.
        :raises Refused: if the selfie is missing or the credit is used up.
        """
        if selfie is None:
            raise Refused(missing)
        self.charge("", "face_match")
        return self.store.find_face(selfie)

    @property
    def counters(self) -> Counts:
        """A snapshot of all counters since the last reset."""
        with self.lock:
            return deepcopy(self.accounts.counts)

    @property
    def ledger(self) -> dict[str, int]:
        """The number of charges for each record identifier."""
        with self.lock:
            return self.accounts.charges()

    @property
    def bills(self) -> tuple[Bill, ...]:
        """All charges, oldest first."""
        with self.lock:
            return tuple(self.accounts.bills)

    def polls(self, /, **by: str) -> tuple[float, ...]:
        """Return the times at which clients searched for records, for example for the records of a given link.

        The times are seconds since the epoch, by the clock of the sandbox. For each filter and value, only the last
        `MAX_POLLS_KEPT` times are stored. Calls of the V2 API are not included.

        :param by: exactly one search filter and its value, for example `link="<id>"`. `FILTERS` contains the filters.
        :raises ValueError: if there is not exactly one filter, or if the filter is unknown.
        """
        if len(by) != 1 or not by.keys() <= set(FILTERS):
            raise ValueError(f"polls: found {sorted(by)}, allowed is one of {', '.join(FILTERS)}")
        ((name, value),) = by.items()
        with self.lock:
            return self.accounts.polls(f"{name}={value}")


def _is_number(value: object, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= high


def _require_texts(**values: object) -> None:
    for name, value in values.items():
        if not isinstance(value, str):
            raise ValueError(f"{name}: found {type(value).__name__}, allowed is text")


def _either(words: tuple[str, ...]) -> str:
    return " or ".join(map(repr, words)) if len(words) < 3 else "one of " + ", ".join(words)
