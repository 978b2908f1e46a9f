# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What is known of a person, a link, a request? And how does FACEKI say that it knows nothing (yet)?

https://docs.faceki.com/api-integration/verification-apis/fetch-records
"""

from __future__ import annotations

from airflow_provider_faceki.sandbox.answers import e2, e2_error
from airflow_provider_faceki.sandbox.desk import Desk
from airflow_provider_faceki.sandbox.messages import Answer, Ask

FILTERS = ("requestId", "face_id", "link", "record_identifier")


def records(desk: Desk, ask: Ask) -> Answer:
    return _answer(desk, ask, FILTERS)


def records_by_request(desk: Desk, ask: Ask) -> Answer:
    """The other URL of the same page; an official SDK sends it nothing but the request id."""
    return _answer(desk, ask, ("requestId",))


def _answer(desk: Desk, ask: Ask, allowed: tuple[str, ...]) -> Answer:
    filters = {name: ask.query[name] for name in allowed if ask.query.get(name)}
    if not filters:
        # Undocumented. A stand-in that lists everybody would teach a dangerous habit (assumption).
        return e2_error(5002, 422)
    for name, value in filters.items():
        desk.counters.poll(f"{name}={value}", desk.clock.now())
    found = desk.state.records(**filters)
    if found:
        return e2([record.document for record in found])
    return _link_trouble(desk, filters.get("link")) or nothing_found(desk)


def nothing_found(desk: Desk) -> Answer:
    """Four shapes are plausible, none is documented."""
    if desk.settings.not_found == "bare-404":
        return e2_error(404, 404)
    if desk.settings.not_found == "404":
        return e2_error(8013, 404)
    return e2_error(8013) if desk.settings.not_found == "8013" else e2([])


def _link_trouble(desk: Desk, link_id: str | None) -> Answer | None:
    """A link that can bring no record any more, where the settings have FACEKI say so."""
    if link_id is None:
        return None
    link = desk.state.links.get(link_id)
    told = desk.settings.link_errors
    if link is None:
        return e2_error(8014) if "unknown" in told else None
    if link.uses_left <= 0:
        return e2_error(5009) if "used_up" in told else None
    if link.expired(desk.clock.now()):
        return e2_error(8015) if "expired" in told else None
    return None
