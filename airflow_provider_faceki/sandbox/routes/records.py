# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The records call, and the possible answers if no record is found.

Source: https://docs.faceki.com/api-integration/verification-apis/fetch-records
"""

from __future__ import annotations

from airflow_provider_faceki.sandbox.backend.actions import Backend
from airflow_provider_faceki.sandbox.envelopes import v3, v3_error
from airflow_provider_faceki.sandbox.messages import Request, Response

FILTERS = ("requestId", "face_id", "link", "record_identifier")


def records(backend: Backend, request: Request) -> Response:
    return _find(backend, request, FILTERS)


def records_by_request(backend: Backend, request: Request) -> Response:
    """Answer the second records URL on the same documentation page.

    It accepts only the filter `requestId`, because an official SDK sends only this filter to the URL.
    """
    return _find(backend, request, ("requestId",))


def _find(backend: Backend, request: Request, allowed: tuple[str, ...]) -> Response:
    filters = {name: request.query[name] for name in allowed if request.query.get(name)}
    if not filters:
        # FACEKI does not document the answer without a filter (assumption). If the sandbox returned all records, a
        # client could be written that reads the personal data of all customers by mistake.
        return v3_error(5002, 422)
    for name, value in filters.items():
        backend.accounts.add_poll(f"{name}={value}", backend.clock.now())
    found = backend.store.find(**filters)
    if found:
        return v3([record.document for record in found])
    return _link_error(backend, filters.get("link")) or nothing_found(backend)


def nothing_found(backend: Backend) -> Response:
    """Return the answer for "no record found". The setting `not_found` selects one of four plausible forms.

    FACEKI documents none of them.
    """
    if backend.settings.not_found == "bare-404":
        return v3_error(404, 404)
    if backend.settings.not_found == "404":
        return v3_error(8013, 404)
    return v3_error(8013) if backend.settings.not_found == "8013" else v3([])


def _link_error(backend: Backend, link_id: str | None) -> Response | None:
    """Return an error if a link can no longer lead to a record. Otherwise return None.

    The setting `link_errors` selects the errors that are reported.
    """
    if link_id is None:
        return None
    link = backend.store.links.get(link_id)
    reported = backend.settings.link_errors
    if link is None:
        return v3_error(8014) if "unknown" in reported else None
    if link.uses_left <= 0:
        return v3_error(5009) if "used_up" in reported else None
    if link.expired(backend.clock.now()):
        return v3_error(8015) if "expired" in reported else None
    return None
