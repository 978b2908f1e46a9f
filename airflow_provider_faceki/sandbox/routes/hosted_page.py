# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The hosted page: the web page that a person opens with a verification link.

In the sandbox, the developer selects the decision on this page or uploads any images. The page is plain HTML without
scripts.

The URL of the page is a secret, because anyone who knows the URL can use the link. The response headers therefore
forbid caching, and forbid the browser to send the URL to other sites as a referrer.
"""

from __future__ import annotations

from html import escape
from typing import Final

from airflow_provider_faceki.sandbox.backend.actions import Backend
from airflow_provider_faceki.sandbox.backend.clock import iso
from airflow_provider_faceki.sandbox.backend.outcomes import (
    ACCEPTED,
    DECISIONS,
    DECLINED,
    REVIEW,
    scenario_of,
)
from airflow_provider_faceki.sandbox.backend.records import Record
from airflow_provider_faceki.sandbox.backend.store import Link, Refused
from airflow_provider_faceki.sandbox.messages import Body, Request, Response, Route, html
from airflow_provider_faceki.sandbox.settings import is_http_url

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'",
}
_STYLE = """
* { box-sizing: border-box }
body { font: 1rem/1.5 system-ui, "DejaVu Sans", sans-serif; margin: 0; padding: 1rem; color: #1f2937;
       background: #eef2f7 }
main { max-width: 34rem; margin: 1rem auto; padding: 1.5rem; background: #fff; border-radius: 1rem;
       box-shadow: 0 1px 3px rgb(0 0 0 / .12), 0 8px 24px rgb(0 0 0 / .06) }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem } h2 { font-size: 1.1rem; margin: 1.75rem 0 .5rem }
p { margin: .5rem 0 } a { color: #1d4ed8 }
.toy { display: inline-block; margin: 0 0 1rem; padding: .1rem .6rem; border-radius: 1rem; font-size: .85rem;
       color: #7c2d12; background: #ffedd5 }
.hint { color: #4b5563; font-size: .9rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: 1rem 0; padding: .75rem 1rem;
     border-radius: .6rem; background: #f3f4f6 }
dt { color: #4b5563 } dd { margin: 0; font-weight: 600; overflow-wrap: anywhere }
button { display: block; width: 100%; margin: .6rem 0; padding: .7rem 1rem; border: 2px solid transparent;
         border-radius: .6rem; font: inherit; text-align: left; cursor: pointer; color: #1f2937; background: #e5e7eb }
button b { display: block; font-size: 1.1rem } button small { font-size: .875rem }
button:hover { filter: brightness(.95) }
button.ACCEPTED { color: #fff; background: #166534 }
button.DECLINED { color: #991b1b; background: #fff; border-color: #b91c1c }
button.REVIEW { color: #713f12; background: #fef3c7; border: 2px dashed #b45309 }
button:focus-visible, a:focus-visible, input:focus-visible { outline: 3px solid #1d4ed8; outline-offset: 2px }
label { display: block; margin: .75rem 0; font-weight: 600 }
input { display: block; width: 100%; margin-top: .25rem; font: inherit; font-weight: 400 }
.result { padding: .75rem 1rem; border-radius: .6rem; background: #f3f4f6 }
.result.ACCEPTED { color: #14532d; background: #dcfce7 } .result.DECLINED { color: #7f1d1d; background: #fee2e2 }
.result.REVIEW { color: #713f12; background: #fef3c7 }
@media (max-width: 30rem) { body { padding: .5rem } main { padding: 1rem; margin: .5rem auto } }
"""


# Maps each decision to the label of its button and a description of its effect.
_PERSON = {
    ACCEPTED: ("✓ Accept", "The person is verified. The decision is ACCEPTED."),
    DECLINED: ("✕ Decline", "The person is not verified. The decision is DECLINED."),
    REVIEW: ("… Send to review", "A reviewer has to decide later. The decision is REVIEW until then."),
}
_REVIEWER = {
    ACCEPTED: ("✓ Accept", "The review ends. The decision becomes ACCEPTED."),
    DECLINED: ("✕ Decline", "The review ends. The decision becomes DECLINED."),
}


def show(backend: Backend, request: Request) -> Response:
    link = backend.store.links.get(request.path["link"])
    if link is None:
        return _page(404, "Unknown link", "<p>No verification belongs to this link.</p>")
    record, just_now, closed = backend.store.latest(link.link), "done" in request.query, None
    try:
        backend.open_link(link.link)
    except Refused as refused:
        closed = refused
    # If the link has a record, the page shows the result in three cases: the link cannot be used again, the person has
    # just sent the form (the query contains `done`), or a reviewer has to decide. In all other cases, a link
    # that can be used shows the form for a new verification.
    if record is not None and (closed or just_now or record.decision == REVIEW):
        return _result(backend, link, record, just_now)
    if closed:
        return _closed(closed)
    body = (
        f"{_case(backend, link)}<h2>Decide in the person's place</h2>{_decision_form(_PERSON)}{_upload(link)}"
    )
    return _page(200, "Identity verification", body)


def decide(backend: Backend, request: Request) -> Response:
    link = backend.store.links.get(request.path["link"])
    if link is None:
        return show(backend, request)
    decision, selfie = request.text("decision"), request.upload("selfie")
    record = backend.store.latest(link.link)
    try:
        if record is not None and record.decision == REVIEW and decision in _REVIEWER:
            backend.decide(record.request_id, decision, by="reviewer@sandbox.example")
        elif decision in DECISIONS:
            backend.answer_link(link.link, decision)
        elif selfie is not None:
            backend.answer_link(link.link, selfie=selfie.sha256)
        else:
            text = '<p>Press one of the buttons, or choose a selfie.</p><p><a href="">Back</a></p>'
            return _page(422, "Nothing to decide on", text)
    except Refused as refused:
        return _closed(refused)
    # The redirect has the status 303 See Other, so that a reload of the result page does not send the form again.
    return html(303, "", {**_HEADERS, "Location": f"/kycverify/{link.link}?done=1"})


def _case(backend: Backend, link: Link) -> str:
    """Return HTML that shows the record identifier, the required documents and the expiry time of a link."""
    workflow = backend.workflow(link.workflow_id)
    documents = (" or " if workflow.optional else ", ").join(workflow.documents)
    expiry = "never" if link.expires_at is None else f"{iso(link.expires_at)[:16].replace('T', ' ')} UTC"
    rows = {
        "Case": link.record_identifier or "(without an identifier)",
        "Documents": documents,
        "Link expires": expiry,
    }
    items = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in rows.items())
    return f'<dl id="case">{items}</dl>'


def _result(backend: Backend, link: Link, record: Record, just_now: bool) -> Response:
    decision = escape(record.decision)
    parts = [
        _case(backend, link),
        f'<p role="status" class="result {decision}">Decision: <strong id="decision">{decision}</strong></p>',
    ]
    refresh = ""
    if record.decision == REVIEW:
        parts.append(f"<h2>Decide as the reviewer</h2>{_decision_form(_REVIEWER)}")
    # Only http and https are safe, because a URL with another scheme (javascript:, data:, file:) is possibly an attack.
    elif is_http_url(link.redirect_url):
        target = escape(link.redirect_url, quote=True)
        parts.append(f'<p><a id="continue" href="{target}" rel="noreferrer">Continue</a></p>')
        refresh = f'<meta http-equiv="refresh" content="2; url={target}">' if just_now else ""
    else:
        parts.append("<p>You can close this page.</p>")
    title = "In review" if record.decision == REVIEW else "Verification finished"
    return _page(200, title, "".join(parts), refresh)


def _closed(refused: Refused) -> Response:
    title, status, text = {
        8014: ("Unknown link", 404, "No verification belongs to this link."),
        8015: ("Link expired", 410, "This link was not used in time. Ask for a new one."),
        5009: ("Link used up", 410, "This link has been used as often as it may be."),
        5003: ("No credit", 402, "The wallet of this account is empty, so nothing was verified."),
    }.get(refused.code, ("Not possible", 409, "This cannot be verified now."))
    return _page(status, title, f'<p role="alert">{text} (code {refused.code})</p>')


def _decision_form(buttons: dict[str, tuple[str, str]]) -> str:
    made = "".join(
        f'<button type="submit" name="decision" value="{decision}" class="{decision}">'
        f"<b>{label}</b><small>{effect}</small></button>"
        for decision, (label, effect) in buttons.items()
    )
    return f'<form method="post">{made}</form>'


_FILES = "".join(
    f'<label>{label} <input type="file" name="{name}" accept="image/*"{more}></label>'
    for name, label, more in (
        ("selfie", "Selfie", " required"),
        ("document_1_front", "Document, front", ""),
        ("document_1_back", "Document, back (not for a passport)", ""),
    )
)


def _upload(link: Link) -> str:
    scenario = scenario_of(link.record_identifier)
    outcome = scenario.decision if scenario.code is None else f"code {scenario.code}"
    return (
        "<h2>Or upload images</h2>"
        f'<p class="hint">The sandbox does not look at them. The identifier of the case decides: {escape(outcome)}.</p>'
        f'<form method="post" enctype="multipart/form-data">{_FILES}'
        '<button type="submit"><b>Send images</b></button></form>'
    )


def _page(status: int, title: str, body: str, head: str = "") -> Response:
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} - FACEKI sandbox</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{head}<style>{_STYLE}</style></head>'
        f'<body><main><p class="toy">Sandbox on a developer\'s machine, not FACEKI</p><h1>{title}</h1>'
        f"{body}</main></body></html>"
    )
    return html(status, text, _HEADERS)


ROUTES: Final = (
    Route("hosted_page", "GET", "/kycverify/{link}", show, bearer=False),
    Route("hosted_decision", "POST", "/kycverify/{link}", decide, Body.FORM, bearer=False),
)
