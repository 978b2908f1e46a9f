# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How is a running sandbox steered from outside? JSON under `/_sandbox/`, the same acts as the Python API.

Only what says it is JSON is obeyed: a web page that is open in the developer's browser cannot send that to
another origin unasked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

from airflow_provider_faceki.sandbox.desk import Desk, Forged
from airflow_provider_faceki.sandbox.faults import fault_from
from airflow_provider_faceki.sandbox.routes import NAMES
from airflow_provider_faceki.sandbox.state import Refused
from airflow_provider_faceki.sandbox.workflows import WORKFLOWS

Act = Callable[[Desk, Mapping[str, object]], object]


def act(desk: Desk, method: str, name: str, document: Mapping[str, object]) -> tuple[int, object]:
    """An HTTP status and what to say. Wrong input is a 422 that tells what is allowed."""
    known = ACTS.get((method, name))
    if known is None:
        return 404, {"error": "no such control call", "there are": [f"{m} /_sandbox/{n}" for m, n in ACTS]}
    try:
        with desk.lock:
            desk.state.tick()
            return 200, known(desk, document)
    except ValueError as wrong:
        return 422, {"error": str(wrong)}
    except Refused as refused:
        return 409, {"error": f"FACEKI would refuse this with code {refused.code}", "code": refused.code}


def _state(desk: Desk, document: Mapping[str, object]) -> object:
    state = desk.state
    return {
        "links": [
            {**asdict(link), "expired": link.expired(desk.clock.now())} for link in state.links.values()
        ],
        "decisions": state.summary(),
        "ledger": state.ledger(),
        "bills": [asdict(bill) for bill in state.bills],
        "credit": desk.settings.credit,
        "tokens": state.tokens.count(desk.clock.now()),
        "now": desk.clock.now(),
        "workflows": {key: list(workflow.documents) for key, workflow in WORKFLOWS.items()},
        "routes": list(NAMES),
    }


def _counters(desk: Desk, document: Mapping[str, object]) -> object:
    return desk.counts().as_dict()


def _polls(desk: Desk, document: Mapping[str, object]) -> object:
    """`key` is a filter of the records call, as in `link=<id>`."""
    return list(desk.counters.polls(_text(document, "key")))


def _faults(desk: Desk, document: Mapping[str, object]) -> object:
    return desk.faults.waiting()


def _add_fault(desk: Desk, document: Mapping[str, object]) -> object:
    desk.add_fault(fault_from(document))
    return desk.faults.waiting()


def _clear_faults(desk: Desk, document: Mapping[str, object]) -> object:
    desk.faults.clear()
    return []


def _settings(desk: Desk, document: Mapping[str, object]) -> object:
    return desk.settings.shown()


def _change_settings(desk: Desk, document: Mapping[str, object]) -> object:
    desk.settings.update(document)
    return desk.settings.shown()


def _create_link(desk: Desk, document: Mapping[str, object]) -> object:
    return desk.create_link(**_only(document, "record_identifier", "workflow_id", "minutes", "redirect_url"))  # type: ignore[arg-type]


def _decide(desk: Desk, document: Mapping[str, object]) -> object:
    return desk.decide(_text(document, "link", "request_id"), _text(document, "decision"))


def _add_record(desk: Desk, document: Mapping[str, object]) -> object:
    return desk.add_record(**_only(document, "record_identifier", "decision", "link", "code", "fields"))  # type: ignore[arg-type]


def _end_link(desk: Desk, document: Mapping[str, object]) -> object:
    desk.end_link(_text(document, "link"), _text(document, "how"))
    return {}


def _revoke(desk: Desk, document: Mapping[str, object]) -> object:
    return {"revoked": desk.state.tokens.revoke_all()}


def _clock(desk: Desk, document: Mapping[str, object]) -> object:
    desk.clock.advance(document.get("advance", 0))
    desk.state.tick()
    return {"now": desk.clock.now()}


def _credit(desk: Desk, document: Mapping[str, object]) -> object:
    desk.settings.update(_only(document, "credit"))
    return {"credit": desk.settings.credit}


def _forge(desk: Desk, document: Mapping[str, object]) -> object:
    given = _only(document, "request_id", "status", "full_name")
    name = given.get("full_name", "")
    if not isinstance(name, str):
        raise ValueError("full_name: allowed is text")
    desk.forge(Forged(_text(given, "request_id"), _text(given, "status"), name))
    return {}


def _reset(desk: Desk, document: Mapping[str, object]) -> object:
    desk.reset()
    return {}


ACTS: dict[tuple[str, str], Act] = {
    ("GET", "state"): _state,
    ("GET", "counters"): _counters,
    ("GET", "polls"): _polls,
    ("GET", "faults"): _faults,
    ("POST", "faults"): _add_fault,
    ("DELETE", "faults"): _clear_faults,
    ("GET", "settings"): _settings,
    ("POST", "settings"): _change_settings,
    ("POST", "links"): _create_link,
    ("POST", "end-link"): _end_link,
    ("POST", "decide"): _decide,
    ("POST", "records"): _add_record,
    ("POST", "revoke-tokens"): _revoke,
    ("POST", "clock"): _clock,
    ("POST", "credit"): _credit,
    ("POST", "forge-webhook"): _forge,
    ("POST", "reset"): _reset,
}


def _text(document: Mapping[str, object], *names: str) -> str:
    for name in names:
        value = document.get(name)
        if isinstance(value, str) and value:
            return value
    raise ValueError(f"{' or '.join(names)}: missing, allowed is text")


def _only(document: Mapping[str, object], *names: str) -> dict[str, object]:
    for name in document:
        if name not in names:
            raise ValueError(f"{name!r}: no such member; there are {', '.join(names)}")
    return dict(document)
