# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Settings of a FACEKI installation, such as URLs, paths and field names.

These values are settings, because FACEKI's documentation of the values is incomplete or contradictory.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: Second path for fetching records in FACEKI's documentation; see :attr:`Service.records_path` for the first path.
OTHER_RECORDS_PATH = "/kycverify/api/kycverify/records"

#: Allowed values of the setting ``Service.null_result``.
NULL_RESULTS = ("error", "no_record")

#: Placeholder of each of the four record filters. In a path, the placeholder is replaced by the value of the filter.
FILTER_PLACEHOLDERS = {
    "request_id": "{requestId}",
    "link": "{link}",
    "record_identifier": "{record_identifier}",
    "face_id": "{face_id}",
}


class AuthFlow(StrEnum):
    """The six forms of the token request in FACEKI's documentation and SDKs. It is unknown which of them still work.

    The first four forms are from different versions of the page
    https://docs.faceki.com/api-integration/verification-apis/authentication . ``ACCESS_TOKEN_GET_HEADERS`` is from
    https://kycdocv2.faceki.com . ``ACCESS_TOKEN_QUERY`` is from FACEKI's SDKs.
    """

    GENERATE_TOKEN = "generate_token"  # noqa: S105 - the name of a form, not a password
    GENERATE_TOKEN_HEADERS = "generate_token_headers"  # noqa: S105
    ACCESS_TOKEN_BODY = "access_token_body"  # noqa: S105
    ACCESS_TOKEN_HEADERS = "access_token_headers"  # noqa: S105
    ACCESS_TOKEN_GET_HEADERS = "access_token_get_headers"  # noqa: S105
    ACCESS_TOKEN_QUERY = "access_token_query"  # noqa: S105

    @property
    def sends_headers(self) -> bool:
        """Whether the client id and secret are sent as HTTP headers, which can contain ASCII only."""
        return self in {
            AuthFlow.GENERATE_TOKEN_HEADERS,
            AuthFlow.ACCESS_TOKEN_HEADERS,
            AuthFlow.ACCESS_TOKEN_GET_HEADERS,
        }

    @property
    def sends_url(self) -> bool:
        """Whether the client id and secret are in the URL, which servers and proxies possibly log."""
        return self is AuthFlow.ACCESS_TOKEN_QUERY

    @property
    def path(self) -> str:
        """Path of the token request below the base URL."""
        is_new = self in {AuthFlow.GENERATE_TOKEN, AuthFlow.GENERATE_TOKEN_HEADERS}
        return "/auth/api/generate-token" if is_new else "/auth/api/access-token"

    @property
    def method(self) -> str:
        """HTTP method of the token request."""
        return "GET" if self in {AuthFlow.ACCESS_TOKEN_GET_HEADERS, AuthFlow.ACCESS_TOKEN_QUERY} else "POST"


@dataclass(frozen=True, slots=True)
class Service:
    """One installation of FACEKI. If no other source is named, the default values come from FACEKI's documentation.

    :param base_url: Base URL of all calls except the image check. Source: https://docs.faceki.com/api-integration .
    :param addon_url: Base URL of the image check, which needs no token. Source: FACEKI's SDKs.
    :param records_path: Path for fetching records. The default is the path in the heading of the page
        https://docs.faceki.com/api-integration/verification-apis/fetch-records . The same page also shows the path
        ``/kycverify/api/kycverify/records``. Each request for records has one filter, such as a request id. A filter
        with a path of its own does not use this path.
    :param request_id_filter: How records are filtered by FACEKI's request id. The value is the name of a query
        parameter, or a path. A path begins with ``/``, contains the placeholder ``{requestId}``, and is used for this
        filter only. Example: ``/kycverify/api/kycverify/records?requestId={requestId}``.
    :param link_filter: How records are filtered by link id. The format is that of ``request_id_filter``, with the
        placeholder ``{link}``.
    :param record_identifier_filter: How records are filtered by the caller's own identifier. The format is that of
        ``request_id_filter``, with the placeholder ``{record_identifier}``.
    :param face_id_filter: How records are filtered by FACEKI's id of a person. The format is that of
        ``request_id_filter``, with the placeholder ``{face_id}``.
    :param null_result: Meaning of an answer that reports success, but contains neither a record nor an empty list, such
        as ``{"status": true, "code": 200, "result": null}``. With ``error``, the answer has an unknown meaning, and an
        error is raised. With ``no_record``, the answer means that FACEKI has no record. FACEKI does not document its
        answer for "no record". The default is ``error``, because a wrong ``no_record`` would hide an existing record.
        The caller would then perform the verification again, and FACEKI would bill it twice.
    :param auth_header: Name of the HTTP header that carries the access token.
    :param auth_scheme: Prefix of the token in that header, without the space. If it is empty, the header contains only
        the token.
    :param pdf_report_path: Path of a PDF report, with the placeholder ``{requestId}``. No public source contains the
        path, so there is no default.
    :param pdf_report_method: HTTP method for PDF reports, ``GET`` or ``POST``. A POST request also sends
        ``{"requestId": …}`` as JSON.
    :param webhook_request_id_field: Name of the webhook field that contains the request id. The documented name and its
        other usual spellings are always accepted too.
    :param webhook_status_field: Name of the webhook field that contains the decision. The documented name ``status``
        and names such as ``decision`` are always accepted too.
    """

    base_url: str = "https://sdk.faceki.com"
    addon_url: str = "https://addon.faceki.com"
    records_path: str = "/api/v3/kyc_verification"
    pdf_report_path: str | None = None
    request_id_filter: str = "requestId"
    link_filter: str = "link"
    record_identifier_filter: str = "record_identifier"
    face_id_filter: str = "face_id"
    null_result: str = "error"
    auth_header: str = "authorization"
    auth_scheme: str = "Bearer"
    pdf_report_method: str = "GET"
    webhook_request_id_field: str = "requestId"
    webhook_status_field: str = "status"


#: The default settings, which describe the installation in FACEKI's documentation.
FACEKI = Service()
