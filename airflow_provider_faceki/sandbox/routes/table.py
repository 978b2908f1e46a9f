# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The table of all routes of the sandbox: API calls and web pages. `Route` explains the columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from airflow_provider_faceki.sandbox.backend.actions import Backend
from airflow_provider_faceki.sandbox.messages import Envelope, Request, Response
from airflow_provider_faceki.sandbox.routes import hosted_page, v2, v3

LEGACY, V3 = Envelope.LEGACY, Envelope.V3


class Body(Enum):
    NONE = "none"
    JSON = "json"
    FORM = "form"


@dataclass(frozen=True)
class Route:
    """The definition of one route of the simulated FACEKI API.

    :param name: the name of the route, which faults (injected errors) and counters use. Several routes can have the
        same name.
    :param method: the HTTP method.
    :param path: the path, with variable parts in braces. The paths come from FACEKI's documentation or from official
        SDKs. Only the path of the route `pdf_file` is invented.
    :param handler: the function that computes the answer. If it raises `Refused`, the answer is an error in `envelope`.
    :param body: the kind of the request body.
    :param bearer: whether a token is required.
    :param envelope: the envelope (JSON object around the content) of refusals and of the errors that faults inject.
    :param takes_time: whether a record identifier with the prefix `slow-` delays the answer.
    """

    name: str
    method: str
    path: str
    handler: Callable[[Backend, Request], Response]
    body: Body = Body.NONE
    bearer: bool = True
    envelope: Envelope = V3
    takes_time: bool = False


_V3_KYC: Final = "/api/v3/kyc_verification"
_V2_KYC: Final = "/kycverify/api/kycverify"

# Arguments of `Route` that several routes of the V2 API share. Each tuple contains the values of `body`, `bearer`,
# `envelope` and `takes_time`.
_V2_UPLOAD: Final = (Body.FORM, True, LEGACY, True)
_V2_UPLOAD_BY_LINK: Final = (Body.FORM, False, LEGACY, True)

ROUTES: Final = (
    Route("token", "POST", "/auth/api/generate-token", v3.generate_token, Body.JSON, False, LEGACY),
    Route("token", "POST", "/auth/api/access-token", v3.access_token, Body.JSON, False, LEGACY),
    Route("token", "GET", "/auth/api/access-token", v3.access_token_by_get, Body.NONE, False, LEGACY),
    Route("link", "POST", f"{_V2_KYC}/kyc-verify-link", v3.create_link, Body.JSON, True, LEGACY),
    Route("rules", "GET", "/api/v3/workflows/rules", v3.rules),
    Route("rules_by_link", "GET", "/api/v3/workflows/rulesbylink", v3.rules_by_link, bearer=False),
    Route("records", "GET", _V3_KYC, v3.records),
    Route("records_by_request", "GET", f"{_V2_KYC}/records", v3.records_by_request),
    Route("verify", "POST", _V3_KYC, v3.verify, Body.FORM, takes_time=True),
    Route(
        "verify_by_link",
        "POST",
        f"{_V3_KYC}/requestbylink",
        v3.verify_by_link,
        Body.FORM,
        bearer=False,
        takes_time=True,
    ),
    Route("search_by_face", "POST", f"{_V3_KYC}/search-by-face", v3.search_by_face, Body.FORM),
    Route("analyze_face", "POST", f"{_V3_KYC}/analyzeFace", v3.analyze_face, Body.FORM),
    Route("detect", "POST", "/detect", v3.detect, Body.FORM, bearer=False),
    Route("detect_advanced", "POST", "/advance/detect", v3.detect, Body.FORM, bearer=False),
    Route("pdf_file", "GET", "/sandbox/report-file/{key}", v3.pdf_file, bearer=False),
    Route("hosted_page", "GET", "/kycverify/{link}", hosted_page.show, bearer=False),
    Route("hosted_decision", "POST", "/kycverify/{link}", hosted_page.decide, Body.FORM, bearer=False),
    Route("v2_rules", "GET", "/kycrules/api/kycrules", v2.rules, envelope=LEGACY),
    Route("v2_link", "GET", f"{_V2_KYC}/link", v2.by_link, envelope=LEGACY),
    Route("v2_reference", "GET", f"{_V2_KYC}/reference", v2.by_reference, envelope=LEGACY),
    Route("v2_summary", "GET", f"{_V2_KYC}/kyc-verify-summary", v2.summary, envelope=LEGACY),
    Route(
        "v2_validate_link",
        "GET",
        f"{_V2_KYC}/validate-kyc-verify-link",
        v2.validate_link,
        bearer=False,
        envelope=LEGACY,
    ),
    Route("v2_verify", "POST", f"{_V2_KYC}/kyc-verification", v2.verify, *_V2_UPLOAD),
    Route("v2_verify_several", "POST", f"{_V2_KYC}/multi-kyc-verification", v2.verify_several, *_V2_UPLOAD),
    Route("v2_verify_by_link", "POST", f"{_V2_KYC}/request-kyc", v2.verify_by_link, *_V2_UPLOAD_BY_LINK),
    Route(
        "v2_verify_several_by_link",
        "POST",
        f"{_V2_KYC}/multiple-kyc-verification",
        v2.verify_several_by_link,
        *_V2_UPLOAD_BY_LINK,
    ),
    Route("v2_face_check", "POST", "/facelink/api/face-check", v2.face_check, Body.FORM, True, LEGACY),
)

# These routes have no fixed path:
#
# - `PDF`: its path is the setting `pdf_path`.
# - `MOVED` answers requests to a documented path that a dialect has replaced. A dialect is a simulated difference from
#   FACEKI's documentation.
# - `UNKNOWN` answers a request whose path and method belong to no route.
#
# Logs and counters show `MOVED` and `UNKNOWN` under the same name, `unknown`.
PDF: Final = Route("pdf", "GET", "", v3.pdf)
UNKNOWN: Final = Route("unknown", "", "", v3.unknown, bearer=False)
MOVED: Final = Route("unknown", "", "", v3.moved, bearer=False)

ROUTE_NAMES: Final = tuple(dict.fromkeys(route.name for route in (*ROUTES, PDF, UNKNOWN)))
