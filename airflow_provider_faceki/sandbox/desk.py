# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Everything one sandbox is, without its server: what routes, control API and Python API all work on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from threading import RLock

from airflow_provider_faceki.sandbox.clock import Clock
from airflow_provider_faceki.sandbox.counters import Counters, Counts
from airflow_provider_faceki.sandbox.faults import ANY_ROUTE, Fault, Faults
from airflow_provider_faceki.sandbox.scenarios import ACCEPTED
from airflow_provider_faceki.sandbox.settings import Settings
from airflow_provider_faceki.sandbox.state import State
from airflow_provider_faceki.sandbox.workflows import DEFAULT_WORKFLOW


@dataclass(frozen=True)
class Forged:
    """A webhook for something that did not happen."""

    request_id: str
    status: str
    full_name: str = ""


def _forge_nothing(forged: Forged) -> None:
    return None


class Desk:
    """The lock is held while a request is decided on, never while anything is sent or waited for."""

    def __init__(self, settings: Settings, clock: Clock, route_names: tuple[str, ...]) -> None:
        self.route_names = route_names
        self.lock = RLock()
        self.settings = settings
        self._first = deepcopy(settings)
        self.clock = clock
        self.state = State(settings, clock)
        self.faults = Faults()
        self.counters = Counters()
        self.forge: Callable[[Forged], None] = _forge_nothing
        # What was begun before a reset must not end after it.
        self.generation = 0

    def reset(self) -> None:
        """As at the start: settings, tokens, links, records, bills, faults, counters. The clock stays."""
        with self.lock:
            self.generation += 1
            self.settings.restore(self._first)
            self.state.forget()
            self.faults.clear()
            self.counters.clear()

    def add_fault(self, fault: Fault) -> None:
        if fault.route != ANY_ROUTE and fault.route not in self.route_names:
            raise ValueError(
                f"fault route: found {fault.route!r}, allowed is * or one of {', '.join(self.route_names)}"
            )
        with self.lock:
            self.faults.add(fault)

    def create_link(
        self,
        record_identifier: str = "",
        workflow_id: str = DEFAULT_WORKFLOW,
        minutes: object = None,
        redirect_url: str = "",
    ) -> str:
        """A link without having to ask for it over HTTP."""
        _texts(record_identifier=record_identifier, workflow_id=workflow_id, redirect_url=redirect_url)
        if isinstance(minutes, bool) or not isinstance(minutes, int | float | None) or (minutes or 0) < 0:
            raise ValueError(f"minutes: found {minutes!r}, allowed is a number from 0, or None")
        with self.lock:
            return self.state.create_link(workflow_id, minutes, record_identifier, redirect_url).link

    def end_link(self, link: str, how: str) -> None:
        """Make a link `expired` or `used_up` at once."""
        if how not in ("expired", "used_up"):
            raise ValueError(f"how: found {how!r}, allowed is 'expired' or 'used_up'")
        with self.lock:
            found = self.state.links.get(link)
            if found is None:
                raise ValueError("link: there is no such link")
            if how == "expired":
                found.expires_at = self.clock.now()
            else:
                found.uses_left = 0

    def decide(self, key: str, decision: str) -> dict[str, object]:
        """Answer a link, or change what a record says. `key` is a link or a request id."""
        _texts(key=key, decision=decision)
        with self.lock:
            return deepcopy(self.state.decide(key, decision).document)

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
        """A record from before: not billed, not announced. `selfie` is what face search will find it by."""
        _texts(record_identifier=record_identifier, decision=decision, link=link)
        _check_seed(code, fields)
        digest = "" if selfie is None else sha256(selfie).hexdigest()
        with self.lock:
            record = self.state.add_record(
                record_identifier, decision, link=link, code=code, selfie=digest, fields=fields
            )
            return deepcopy(record.document)

    def counts(self) -> Counts:
        with self.lock:
            self.counters.bills = len(self.state.bills)
            return self.counters.counts()

    def opens(self, authorization: str | None) -> bool:
        """Whether this Authorization header holds a token that is good now."""
        scheme, _, token = (authorization or "").partition(" ")
        return scheme.lower() == "bearer" and self.state.tokens.good(token.strip(), self.clock.now())


def _check_seed(code: object, fields: object) -> None:
    if isinstance(code, bool) or not isinstance(code, int | None):
        raise ValueError(f"code: found {code!r}, allowed is a whole number, or None")
    if not isinstance(fields, Mapping | None):
        raise ValueError("fields: allowed is an object, or None")


def _texts(**values: object) -> None:
    for name, value in values.items():
        if not isinstance(value, str):
            raise ValueError(f"{name}: found {type(value).__name__}, allowed is text")
