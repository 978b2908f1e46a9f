# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The API calls for tokens, links, rules, verifications, records, faces, images and PDF reports.

Source: https://docs.faceki.com/api-integration/verification-apis/ , one page for each topic: authentication,
generate-kyc-link, perform-kyc-verification, fetch-records, face-match-api.

Four calls are not on these pages but in official SDKs: the two calls that return the rules (required documents and
settings) of a workflow, the call `analyzeFace`, and the image check.

No public source contains the route of the PDF report, so the default of the setting `pdf_path` is only an assumption.
"""

from __future__ import annotations

import base64
import hmac
from typing import Final

from airflow_provider_faceki.sandbox.backend.actions import MAX_LINK_MINUTES, Backend
from airflow_provider_faceki.sandbox.backend.store import FILTERS, Link, Refused
from airflow_provider_faceki.sandbox.backend.workflows import DEFAULT_WORKFLOW, WORKFLOWS, Workflow
from airflow_provider_faceki.sandbox.messages import (
    ABSENT,
    Body,
    Envelope,
    Request,
    Response,
    Route,
    gateway_page,
    html,
    json_response,
    legacy,
    legacy_error,
    unauthorized,
    v3,
    v3_error,
    validation,
)

#: The value of `callbackURL` in the rules of a workflow, if no webhook URL is set. Official SDKs parse it as a URL,
#: so an empty text is invalid.
NO_CALLBACK_URL = "https://callback.example/none"


def generate_token(backend: Backend, request: Request) -> Response:
    return _by_headers(backend, request, "generate_token_headers") or _by_body(
        backend, request, "generate_token"
    )


def access_token(backend: Backend, request: Request) -> Response:
    return _by_headers(backend, request, "access_token_headers") or _by_body(
        backend, request, "access_token_body"
    )


def access_token_by_get(backend: Backend, request: Request) -> Response:
    query = request.query
    return _by_headers(backend, request, "access_token_get_headers") or _issue(
        backend, "access_token_query", query.get("clientId"), query.get("clientSecret")
    )


def _by_headers(backend: Backend, request: Request, form: str) -> Response | None:
    """Return the response to a token request that contains the client id or the client secret in a header.

    The response contains an access token, or an error if the credentials are wrong or incomplete. If the request has
    neither header, return None.
    """
    client_id, client_secret = request.headers.get("clientid"), request.headers.get("clientsecret")
    if client_id is None and client_secret is None:
        return None
    return _issue(backend, form, client_id, client_secret)


def _by_body(backend: Backend, request: Request, form: str) -> Response:
    return _issue(backend, form, request.member("clientId"), request.member("clientSecret"))


def _issue(backend: Backend, form: str, client_id: object, client_secret: object) -> Response:
    settings = backend.settings
    if form not in settings.token_forms or form not in backend.dialect.token_forms:
        return unauthorized(404)
    if not isinstance(client_id, str) or not client_id:
        return validation("client id is required")
    if not isinstance(client_secret, str) or not client_secret:
        missing_by_field = settings.missing_secret == "field"
        return json_response({"clientSecret": ""}, 422) if missing_by_field else validation("")
    if not (_equal(client_id, settings.client_id) and _equal(client_secret, settings.client_secret)):
        # FACEKI documents no response to wrong credentials. The code 1 and the HTTP status 401 are assumptions.
        return backend.dialect.wrong_credentials or legacy_error(1, 401)
    backend.accounts.counts.tokens_by_form[form] += 1
    lifetime = settings.token_lifetime
    data: dict[str, object] = {
        "access_token": backend.tokens.issue(backend.clock.now(), lifetime),
        "expires_in": int(lifetime) if lifetime >= 1 else lifetime,
        "token_type": "Bearer",
    }
    if not settings.send_expires_in:
        del data["expires_in"]
    return legacy(data, settings.token_status)


def _equal(given: str, expected: str) -> bool:
    # The texts are encoded with `surrogatepass`, because JSON can contain a lone surrogate, which UTF-8 cannot encode.
    return hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass")
    )


def create_link(backend: Backend, request: Request) -> Response:
    link = backend.create_link(
        _text(request.member("applicationId")),
        workflow_id=_workflow(backend, request.member("workflowId")).workflow_id,
        minutes=_minutes(request.member("expiryTime")),
        redirect_url=_text(request.member("redirect_url")),
    )
    return legacy(link, backend.settings.link_status, url=f"{request.base_url}/kycverify/{link}")


def _workflow(backend: Backend, workflow_id: object) -> Workflow:
    if workflow_id is None and not backend.dialect.needs_workflow:
        return WORKFLOWS[DEFAULT_WORKFLOW]
    return backend.workflow(workflow_id)


def _minutes(value: object) -> int | None:
    """Return the lifetime of a link in whole minutes. If the request contains no lifetime, return None.

    A number and a text are accepted, because FACEKI's documentation shows a number on one page and a text on another.
    """
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:12])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_LINK_MINUTES:
        raise Refused(5002, 422)
    return value


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refused(5002, 422)
    return value


def rules(backend: Backend, request: Request) -> Response:
    try:
        return v3(_rules_of(backend, backend.workflow(request.query.get("workflowId"))))
    except Refused as refused:
        return v3_error(refused.code, refused.status, None)


def rules_by_link(backend: Backend, request: Request) -> Response:
    """Return the rules of a link's workflow. No token is needed, because the link grants access to the rules."""
    try:
        link = backend.open_link(request.query.get("link", ""))
        return v3(_rules_of(backend, backend.workflow(link.workflow_id)))
    except Refused as refused:
        return v3_error(refused.code, refused.status, None)


def _rules_of(backend: Backend, workflow: Workflow) -> dict[str, object]:
    return workflow.rules(backend.settings.webhook_url or NO_CALLBACK_URL)


def verify(backend: Backend, request: Request) -> Response:
    try:
        workflow = backend.workflow(request.text("workflowId"))
        return _verify(backend, request, workflow, request.text("record_identifier"), None)
    except Refused as refused:
        return _refuse(backend, refused)


def verify_by_link(backend: Backend, request: Request) -> Response:
    try:
        link = backend.open_link(request.text("link"))
        workflow = backend.workflow(request.text("workflowId") or link.workflow_id)
        identifier = request.text("record_identifier") or link.record_identifier
        return _verify(backend, request, workflow, identifier, link)
    except Refused as refused:
        return _refuse(backend, refused)


def _verify(
    backend: Backend, request: Request, workflow: Workflow, record_identifier: str, link: Link | None
) -> Response:
    selfie = request.upload("selfie")
    if selfie is None:
        raise Refused(5002)
    sides = [[request.upload(f"document_{n}_{side}") for n in (1, 2, 3)] for side in ("front", "back")]
    fronts, backs = (sum(each is not None for each in side) for side in sides)
    # FACEKI recognises the kinds of the documents in the images. The sandbox cannot do this. It only checks that
    # the request contains at least as many images as the workflow needs.
    if fronts < workflow.documents_needed or backs < workflow.backs_needed:
        raise Refused(5006)
    record = backend.verify(workflow, record_identifier, link, selfie.sha256)
    return v3(record.answer())


def _refuse(backend: Backend, refused: Refused) -> Response:
    """Return the error answer for a refused verification.

    The HTTP status is 200, because official SDKs expect this status. The setting `rejection_result` selects whether the
    member `result` is an object, null or missing. If the refused call created no record, there is no such object. The
    member is then null instead of an object.
    """
    shape = backend.settings.rejection_result
    if refused.record is not None and shape == "object":
        return v3_error(refused.code, result=refused.record.answer())
    return v3_error(refused.code, result=ABSENT if shape == "missing" else None)


def records(backend: Backend, request: Request) -> Response:
    return _find(backend, request, FILTERS)


def records_by_request(backend: Backend, request: Request) -> Response:
    """Answer the records call at its second URL, which FACEKI's documentation also lists.

    This URL accepts only the filter `requestId`, because an official SDK sends only this filter to the URL.
    """
    return _find(backend, request, ("requestId",))


def _find(backend: Backend, request: Request, allowed: tuple[str, ...]) -> Response:
    filters = {name: request.query[name] for name in allowed if request.query.get(name)}
    if not filters:
        # A request without a filter is answered with an error. This is an assumption, because FACEKI does not document
        # this case. If the sandbox returned all records, a client that forgets the filter would pass its tests. With
        # the real FACEKI, this client would possibly read the personal data of all persons.
        return v3_error(5002, 422)
    for name, value in filters.items():
        backend.accounts.add_poll(f"{name}={value}", backend.clock.now())
    found = backend.store.find(**filters)
    if found:
        return v3([record.document for record in found])
    return _link_error(backend, filters.get("link")) or _nothing_found(backend)


def _nothing_found(backend: Backend) -> Response:
    """Return the answer to a records call or face search that finds no record.

    The setting `not_found` selects one of four plausible answers, because FACEKI does not document this answer.
    """
    if backend.settings.not_found == "bare-404":
        return v3_error(404, 404)
    if backend.settings.not_found == "404":
        return v3_error(8013, 404)
    return v3_error(8013) if backend.settings.not_found == "8013" else v3([])


def _link_error(backend: Backend, link_id: str | None) -> Response | None:
    """Return the error of a link that is unknown, used up or expired.

    The setting `link_errors` contains the errors that the sandbox reports, for example `expired`. If none of them
    applies to the link, or if `link_id` is None, return None.
    """
    if link_id is None:
        return None
    link = backend.store.links.get(link_id)
    reported = backend.settings.link_errors
    if link is None:
        return v3_error(8014) if "unknown" in reported else None
    if link.uses_left <= 0 and "used_up" in reported:
        return v3_error(5009)
    if link.expired(backend.clock.now()) and "expired" in reported:
        return v3_error(8015)
    return None


def search_by_face(backend: Backend, request: Request) -> Response:
    selfie = request.upload("selfie")
    found = backend.search_face(selfie.sha256 if selfie else None, missing=5002)
    return v3([record.document for record in found]) if found else _nothing_found(backend)


def analyze_face(backend: Backend, request: Request) -> Response:
    if request.upload("selfie") is None:
        raise Refused(5002)
    backend.charge("", "analyze_face")
    return v3(
        {
            "minAge": 25,
            "maxAge": 33,
            "gender": "Female",
            "genderConfidence": 100,
            "faceDetectionConfidence": 99.999,
            "livenessScore": 0.999,
        }
    )


def detect(backend: Backend, request: Request) -> Response:
    """Return the result of an image check.

    FACEKI's image check runs on a separate host (addon.faceki.com). Its answer is JSON without an envelope. The member
    `quality` is a text that contains a number.
    """
    image = request.upload("image")
    if image is None:
        return json_response({"error": "image is required", "message": "image is required"}, 400)
    return json_response(
        {
            "objects_detected": ["face"],
            "quality": "123.4",
            "liveness": {"actual": True, "livenessScore": 0.91, "message": "live"},
        }
    )


def pdf(backend: Backend, request: Request) -> Response:
    record = backend.store.get(request.path.get("requestId", ""))
    if record is None:
        return v3_error(8013, 404)
    if backend.settings.pdf_form == "json-url":
        return v3({"url": f"{request.base_url}/sandbox/report-file/{record.report_key}"})
    if backend.settings.pdf_form == "redirect":
        return html(302, "", {"Location": f"{request.base_url}/sandbox/report-file/{record.report_key}"})
    content = _report(record.request_id, record.decision, backend.settings.pdf_size)
    if backend.settings.pdf_form == "json-base64":
        return v3({"pdf": base64.b64encode(content).decode()})
    return Response(200, content, "application/pdf")


def pdf_file(backend: Backend, request: Request) -> Response:
    """Return a PDF report. No token is needed, because the URL contains a secret, as in a signed storage URL."""
    record = backend.store.find_report(request.path.get("key", ""))
    if record is None:
        return v3_error(8013, 404)
    return Response(
        200, _report(record.request_id, record.decision, backend.settings.pdf_size), "application/pdf"
    )


def _report(request_id: str, decision: str, padding: int = 0) -> bytes:
    """Return a valid PDF file of one page, which contains no personal data.

    :param padding: the number of zeros in a comment that makes the file larger. If 0, there is no comment.
    """
    lines = f"BT /F1 14 Tf 50 780 Td (FACEKI sandbox report {request_id}) Tj 0 -24 Td (Decision: {decision}) Tj ET"
    objects = (
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        " /Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(lines)} >>\nstream\n{lines}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    out = bytearray(b"%PDF-1.4\n")
    if padding:
        out += b"%" + b"0" * padding + b"\n"
    places = []
    for number, each in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{each}\nendobj\n".encode("latin-1", "replace")
    table = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += "".join(f"{place:010} 00000 n \n" for place in places).encode()
    out += f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n".encode()
    return bytes(out)


def unknown(backend: Backend, request: Request) -> Response:
    return unauthorized(404)


def moved(backend: Backend, request: Request) -> Response:
    """Return HTTP 404 with a web page.

    This is the answer at a documented path if the setting `dialect` simulates that FACEKI uses another path instead.
    """
    return gateway_page(404, "Not Found")


_KYC: Final = "/api/v3/kyc_verification"

ROUTES: Final = (
    Route("token", "POST", "/auth/api/generate-token", generate_token, Body.JSON, False, Envelope.LEGACY),
    Route("token", "POST", "/auth/api/access-token", access_token, Body.JSON, False, Envelope.LEGACY),
    Route("token", "GET", "/auth/api/access-token", access_token_by_get, Body.NONE, False, Envelope.LEGACY),
    Route(
        "link",
        "POST",
        "/kycverify/api/kycverify/kyc-verify-link",
        create_link,
        Body.JSON,
        True,
        Envelope.LEGACY,
    ),
    Route("rules", "GET", "/api/v3/workflows/rules", rules),
    Route("rules_by_link", "GET", "/api/v3/workflows/rulesbylink", rules_by_link, bearer=False),
    Route("records", "GET", _KYC, records),
    Route("records_by_request", "GET", "/kycverify/api/kycverify/records", records_by_request),
    Route("verify", "POST", _KYC, verify, Body.FORM, takes_time=True),
    Route(
        "verify_by_link",
        "POST",
        f"{_KYC}/requestbylink",
        verify_by_link,
        Body.FORM,
        bearer=False,
        takes_time=True,
    ),
    Route("search_by_face", "POST", f"{_KYC}/search-by-face", search_by_face, Body.FORM),
    Route("analyze_face", "POST", f"{_KYC}/analyzeFace", analyze_face, Body.FORM),
    Route("detect", "POST", "/detect", detect, Body.FORM, bearer=False),
    Route("detect_advanced", "POST", "/advance/detect", detect, Body.FORM, bearer=False),
    Route("pdf_file", "GET", "/sandbox/report-file/{key}", pdf_file, bearer=False),
)

# These routes have no fixed path:
#
# - `PDF`: its path is the setting `pdf_path`.
# - `MOVED` answers requests to a documented path that a dialect has replaced. A dialect is a simulated difference from
#   FACEKI's documentation.
# - `UNKNOWN` answers a request whose path and method belong to no route.
#
# Logs and counters show `MOVED` and `UNKNOWN` under the same name, `unknown`.
PDF: Final = Route("pdf", "GET", "", pdf)
UNKNOWN: Final = Route("unknown", "", "", unknown, bearer=False)
MOVED: Final = Route("unknown", "", "", moved, bearer=False)
