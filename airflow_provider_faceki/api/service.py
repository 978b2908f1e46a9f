# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The addresses, names and forms of one FACEKI installation that the documents leave open or contradict."""

from __future__ import annotations

from dataclasses import dataclass

#: Placeholders of the four record filters in a path.
FILTER_PLACEHOLDERS = {
    "request_id": "{requestId}",
    "link": "{link}",
    "record_identifier": "{record_identifier}",
    "face_id": "{face_id}",
}


@dataclass(frozen=True, slots=True)
class Service:
    """One installation of FACEKI. The defaults are FACEKI as documented.

    :param base_url: Base URL of all calls but the image check: https://docs.faceki.com/api-integration .
    :param addon_url: Base URL of the image check, which takes no token. Seen in FACEKI's SDKs.
    :param records_path: Path for fetching records. The documentation prints this one as the page's heading and
        ``/kycverify/api/kycverify/records`` in its parameter block:
        https://docs.faceki.com/api-integration/verification-apis/fetch-records .
        It may hold the placeholders ``{requestId}``, ``{link}``, ``{record_identifier}`` and ``{face_id}``, as in
        ``/records/{requestId}``; a filter without a placeholder goes into the query of the path before the first
        placeholder.
    :param request_id_filter: How records are filtered by FACEKI's request id: the name of a query parameter; or,
        beginning with ``/``, a path for this filter alone with its placeholder in it, such as
        ``/kycverify/api/kycverify/records?requestId={requestId}``.
    :param link_filter: The same for the link id, with ``{link}``.
    :param record_identifier_filter: The same for the caller's own identifier, with ``{record_identifier}``.
    :param face_id_filter: The same for FACEKI's id of a person, with ``{face_id}``.
    :param auth_header: Name of the HTTP header that carries the access token.
    :param auth_scheme: Word before the token in that header; empty for the token alone.
    :param pdf_report_path: Path of a PDF report with ``{requestId}`` in it. It is in no public source, so there is no
        default.
    :param pdf_report_method: ``GET``; or ``POST``, which also sends ``{"requestId": …}`` as JSON.
    :param webhook_request_id_field: Name of the webhook's field with the request id. The documented name and its usual
        spellings are understood in any case.
    :param webhook_status_field: The same for the decision.
    """

    base_url: str = "https://sdk.faceki.com"
    addon_url: str = "https://addon.faceki.com"
    records_path: str = "/api/v3/kyc_verification"
    pdf_report_path: str | None = None
    request_id_filter: str = "requestId"
    link_filter: str = "link"
    record_identifier_filter: str = "record_identifier"
    face_id_filter: str = "face_id"
    auth_header: str = "authorization"
    auth_scheme: str = "Bearer"
    pdf_report_method: str = "GET"
    webhook_request_id_field: str = "requestId"
    webhook_status_field: str = "status"


#: FACEKI as documented.
FACEKI = Service()
