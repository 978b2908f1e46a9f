# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Which calls does FACEKI have? One table: name, method, path, who may call, which envelope its errors wear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from airflow_provider_faceki.sandbox import (
    hosted_page,
    routes_checks,
    routes_link,
    routes_records,
    routes_token,
    routes_v2,
    routes_verification,
)
from airflow_provider_faceki.sandbox.answers import Envelope
from airflow_provider_faceki.sandbox.desk import Desk
from airflow_provider_faceki.sandbox.messages import Answer, Ask

E1, E2 = Envelope.E1, Envelope.E2


class Body(Enum):
    NONE = "none"
    JSON = "json"
    FORM = "form"


@dataclass(frozen=True)
class Route:
    """`name` is what faults and counters know it by."""

    name: str
    method: str
    path: str
    answer: Callable[[Desk, Ask], Answer]
    body: Body = Body.NONE
    bearer: bool = True
    envelope: Envelope = E2
    takes_time: bool = False


_V3: Final = "/api/v3/kyc_verification"
_V2: Final = "/kycverify/api/kycverify"

ROUTES: Final = (
    Route("token", "POST", "/auth/api/generate-token", routes_token.generate, Body.JSON, False, E1),
    Route("token", "POST", "/auth/api/access-token", routes_token.access, Body.JSON, False, E1),
    Route("token", "GET", "/auth/api/access-token", routes_token.access_by_query, Body.NONE, False, E1),
    Route("link", "POST", f"{_V2}/kyc-verify-link", routes_link.create, Body.JSON, True, E1),
    Route("rules", "GET", "/api/v3/workflows/rules", routes_link.rules),
    Route("rules_by_link", "GET", "/api/v3/workflows/rulesbylink", routes_link.rules_by_link, bearer=False),
    Route("records", "GET", _V3, routes_records.records),
    Route("records_by_request", "GET", f"{_V2}/records", routes_records.records_by_request),
    Route("verify", "POST", _V3, routes_verification.verify, Body.FORM, takes_time=True),
    Route(
        "verify_by_link",
        "POST",
        f"{_V3}/requestbylink",
        routes_verification.verify_by_link,
        Body.FORM,
        bearer=False,
        takes_time=True,
    ),
    Route("search_by_face", "POST", f"{_V3}/search-by-face", routes_checks.search_by_face, Body.FORM),
    Route("analyze_face", "POST", f"{_V3}/analyzeFace", routes_checks.analyze_face, Body.FORM),
    Route("detect", "POST", "/detect", routes_checks.detect, Body.FORM, bearer=False),
    Route("detect_advanced", "POST", "/advance/detect", routes_checks.detect, Body.FORM, bearer=False),
    Route("pdf_file", "GET", "/sandbox/report-file/{key}", routes_checks.pdf_file, bearer=False),
    Route("hosted_page", "GET", "/kycverify/{link}", hosted_page.show, bearer=False),
    Route("hosted_decision", "POST", "/kycverify/{link}", hosted_page.answer, Body.FORM, bearer=False),
    Route("v2_rules", "GET", "/kycrules/api/kycrules", routes_v2.rules, envelope=E1),
    Route("v2_link", "GET", f"{_V2}/link", routes_v2.by_link, envelope=E1),
    Route("v2_reference", "GET", f"{_V2}/reference", routes_v2.by_reference, envelope=E1),
    Route("v2_summary", "GET", f"{_V2}/kyc-verify-summary", routes_v2.summary, envelope=E1),
    Route("v2_validate_link", "GET", f"{_V2}/validate-kyc-verify-link", routes_v2.validate_link, envelope=E1),
)

# These two have no fixed path: the report's is a setting, the rest is everything else.
PDF: Final = Route("pdf", "GET", "", routes_checks.pdf)
UNKNOWN: Final = Route("unknown", "", "", routes_checks.unknown, bearer=False)

NAMES: Final = tuple(dict.fromkeys(route.name for route in (*ROUTES, PDF, UNKNOWN)))
