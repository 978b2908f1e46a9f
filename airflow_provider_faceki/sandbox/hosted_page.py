# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The page that a person opens with a link. In the sandbox the developer decides there, or uploads any images.

Plain HTML that needs no script. Its address is a capability, so it is not cached and not sent on as a referrer.
"""

from __future__ import annotations

from html import escape
from urllib.parse import urlsplit

from airflow_provider_faceki.sandbox.backend.actions import Backend
from airflow_provider_faceki.sandbox.backend.records import Record
from airflow_provider_faceki.sandbox.backend.scenarios import ACCEPTED, DECISIONS, DECLINED, REVIEW
from airflow_provider_faceki.sandbox.backend.store import Link, Refused
from airflow_provider_faceki.sandbox.envelopes import html
from airflow_provider_faceki.sandbox.messages import Request, Response

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'",
}
_STYLE = """
body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 38rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; background: #fff }
button { font: inherit; padding: .5rem 1rem; margin: .25rem .5rem .25rem 0; border: 2px solid #1a1a1a;
         border-radius: .4rem; background: #fff; color: #1a1a1a; cursor: pointer }
button:focus-visible, a:focus-visible, input:focus-visible { outline: 3px solid #0b57d0; outline-offset: 2px }
fieldset { margin: 1.5rem 0; border: 1px solid #767676; border-radius: .4rem; padding: 1rem }
label { display: block; margin: .5rem 0 } input { font: inherit; max-width: 100% }
.toy { border-left: .3rem solid #b35900; padding-left: .8rem }
"""
_MEANING = {ACCEPTED: "Accept this person", DECLINED: "Decline this person", REVIEW: "Leave it to a reviewer"}


def show(backend: Backend, request: Request) -> Response:
    link = backend.store.links.get(request.path["link"])
    if link is None:
        return _page(404, "Unknown link", "<p>No verification belongs to this link.</p>")
    record, just_now, closed = _latest(backend, link), "done" in request.query, None
    try:
        backend.open_link(link.link)
    except Refused as refused:
        closed = refused
    # A link that may be used several times shows its form again, after showing what it led to.
    if record is not None and (closed or just_now or record.decision == REVIEW):
        return _result(link, record, just_now)
    if closed:
        return _closed(closed)
    return _page(
        200, "Identity verification", _decision_form(DECISIONS, "You are the person and FACEKI") + _UPLOAD
    )


def decide(backend: Backend, request: Request) -> Response:
    link = backend.store.links.get(request.path["link"])
    if link is None:
        return show(backend, request)
    decision, selfie = request.text("decision"), request.upload("selfie")
    record = _latest(backend, link)
    try:
        if record is not None and record.decision == REVIEW and decision in (ACCEPTED, DECLINED):
            backend.decide(record.request_id, decision, by="reviewer@sandbox.example")
        elif decision in DECISIONS:
            backend.answer_link(link.link, decision)
        elif selfie is not None:
            backend.answer_link(link.link, selfie=selfie.sha256)
        else:
            return _page(
                422, "Nothing to decide on", "<p>Press one of the buttons, or choose a selfie.</p>" + _BACK
            )
    except Refused as refused:
        return _closed(refused)
    # See Other, so that reloading the page that follows does not decide again.
    return html(303, "", {**_HEADERS, "Location": f"/kycverify/{link.link}?done=1"})


def _latest(backend: Backend, link: Link) -> Record | None:
    return next(reversed(backend.store.find(link=link.link)), None)


def _result(link: Link, record: Record, just_now: bool) -> Response:
    parts = [f'<p role="status">Decision: <strong id="decision">{escape(record.decision)}</strong></p>']
    refresh = ""
    if record.decision == REVIEW:
        parts.append(
            "<p>A reviewer has not decided yet.</p>"
            + _decision_form((ACCEPTED, DECLINED), "You are the reviewer")
        )
    elif _browsable(link.redirect_url):
        target = escape(link.redirect_url, quote=True)
        parts.append(f'<p><a id="continue" href="{target}" rel="noreferrer">Continue</a></p>')
        refresh = f'<meta http-equiv="refresh" content="2; url={target}">' if just_now else ""
    else:
        parts.append("<p>You can close this page.</p>")
    return _page(
        200, "Verification finished" if record.decision != REVIEW else "In review", "".join(parts), refresh
    )


def _browsable(url: str) -> bool:
    """Anything else (javascript:, data:, file:) came from somebody who should not choose where a browser goes."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def _closed(refused: Refused) -> Response:
    title, status, text = {
        8014: ("Unknown link", 404, "No verification belongs to this link."),
        8015: ("Link expired", 410, "This link was not used in time. Ask for a new one."),
        5009: ("Link used up", 410, "This link has been used as often as it may be."),
        5003: ("No credit", 402, "The wallet of this account is empty, so nothing was verified."),
    }.get(refused.code, ("Not possible", 409, "This cannot be verified now."))
    return _page(status, title, f'<p role="alert">{text} (code {refused.code})</p>')


def _decision_form(decisions: tuple[str, ...], legend: str) -> str:
    buttons = "".join(
        f'<p><button type="submit" name="decision" value="{each}">{each}</button> {_MEANING[each]}</p>'
        for each in decisions
    )
    return f'<form method="post"><fieldset><legend>{legend}: decide</legend>{buttons}</fieldset></form>'


_FILES = "".join(
    f'<label>{label} <input type="file" name="{name}" accept="image/*"{more}></label>'
    for name, label, more in (
        ("selfie", "Selfie", " required"),
        ("document_1_front", "Document, front", ""),
        ("document_1_back", "Document, back (not for a passport)", ""),
    )
)
_UPLOAD = (
    '<form method="post" enctype="multipart/form-data"><fieldset><legend>Or upload images</legend>'
    "<p>Nobody looks at them; the record identifier of the link decides.</p>"
    f'{_FILES}<button type="submit">Send images</button></fieldset></form>'
)
_BACK = '<p><a href="">Back</a></p>'


def _page(status: int, title: str, body: str, head: str = "") -> Response:
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} - FACEKI sandbox</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{head}<style>{_STYLE}</style></head>'
        f'<body><main><h1>{title}</h1><p class="toy">This is a stand-in on a developer\'s machine, not FACEKI.</p>'
        f"{body}</main></body></html>"
    )
    return html(status, text, _HEADERS)
