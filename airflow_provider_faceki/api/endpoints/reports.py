# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The call that fetches the PDF report of a verification.

The menu of FACEKI's documentation mentions the report, but its URL and its format are in no public source.
"""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

from airflow_provider_faceki.api.arguments import check_not_link, path_segment
from airflow_provider_faceki.api.errors import (
    ConfigurationError,
    FacekiError,
    ResponseError,
    UnexpectedResponseError,
)
from airflow_provider_faceki.api.models import VerificationRecord
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.fields import texts
from airflow_provider_faceki.api.protocol.messages import Header, HttpRequest, json_body
from airflow_provider_faceki.api.protocol.session import AuthSession, Steps, call_once
from airflow_provider_faceki.api.secrets import SecretText
from airflow_provider_faceki.api.service import FACEKI, Service
from airflow_provider_faceki.api.values import check_identifier

#: If FACEKI's answer contains URLs instead of the report, at most this number of URLs is requested. One URL is not
#: enough, because the first URL is possibly the URL of a logo.
MAX_FOLLOWED_URLS = 3

_ANYTHING: tuple[Header, ...] = (("accept", "application/pdf, application/json"),)


@dataclass(frozen=True, slots=True, repr=False)
class PdfReport:
    """A PDF report. Its content begins with ``%PDF``.

    :param file: Content of the report, positioned at its first byte: an unnamed temporary file, or a file in memory if
        FACEKI sent the PDF as base64. Closing the file deletes the content.
    """

    file: BinaryIO


@dataclass(frozen=True, slots=True)
class FetchPdfReport:
    """Fetch the PDF report of a verification.

    The format of FACEKI's answer is undocumented, so the usual formats are accepted. These are the PDF itself, a
    redirect to the PDF, JSON with the PDF in base64, and JSON with the URL of the PDF.

    :param request_id: FACEKI's id of the verification.
    :raises ValidationError: if ``request_id`` is not a valid id.
    """

    request_id: str

    def __post_init__(self) -> None:
        check_not_link("request_id", self.request_id)
        check_identifier("request_id", self.request_id)
        path_segment("request_id", self.request_id)

    def request(self, service: Service = FACEKI) -> HttpRequest:
        """Return the HTTP request for the report.

        :raises ConfigurationError: if the setting ``pdf_report_path`` is missing.
        """
        if service.pdf_report_path is None:
            raise ConfigurationError(
                "FACEKI does not publish the path of its PDF reports: ask FACEKI for it, and set "
                "pdf_report_path in the Connection's extra, such as '/…/{requestId}'"
            )
        path = service.pdf_report_path.replace("{requestId}", path_segment("request_id", self.request_id))
        url = f"{service.base_url}{path}"
        return _request(
            url, authenticated=True, post=self.request_id if service.pdf_report_method == "POST" else None
        )

    def read(self, answer: Payload) -> PdfReport:
        """Return the PDF report that the answer contains directly or in base64.

        :raises UnexpectedResponseError: if the answer contains no report, or the report of another verification.
        """
        self._check_is_own(answer)
        report = _content(answer)
        if report is None:
            raise answer.unexpected("FACEKI's answer contains no PDF")
        return report

    def steps(self, session: AuthSession) -> Steps[PdfReport]:
        """Request the report. If the answer is a redirect, request the target of the redirect.

        If the answer contains URLs, request one URL after the other until one of them returns the report. At most
        :data:`MAX_FOLLOWED_URLS` URLs are requested. The access token is sent to FACEKI's host only.
        """
        try:
            found = yield from call_once(session, _Locate(self))
        except ResponseError as error:
            if error.location is None:
                raise
            # One redirect is followed. The request to the target of the redirect contains no access token, because the
            # target is possibly not a host of FACEKI.
            found = (_Followed(error.location, self, redirected_from=self.request(session.service).url),)
        if isinstance(found, PdfReport):
            return found
        failures: list[FacekiError] = []
        for followed in found:
            try:
                return (yield from call_once(session, followed))
            except FacekiError as error:
                failures.append(error)
        raise _gone(failures[0])

    def _check_is_own(self, answer: Payload) -> None:
        inner = answer.document.values() if isinstance(answer.document, dict) else ()
        records = (VerificationRecord(item) for item in inner if isinstance(item, dict))
        if any(record.matches("request_id", self.request_id) is False for record in records):
            raise UnexpectedResponseError(
                "FACEKI returned the report of another verification", http_status=answer.status
            )


def _gone(failure: FacekiError) -> FacekiError:
    """Return the error to raise after no URL has returned the report.

    :param failure: Error of the request to the first URL.
    """
    if (
        not isinstance(failure, ResponseError)
        or isinstance(failure, UnexpectedResponseError)
        or failure.is_transient
    ):
        return failure
    # FACEKI's answer contained the URL of a report, but the file server at this URL refused the request. Usually the
    # URL has expired. The FACEKI credentials are not the cause, so an AuthenticationError would be misleading. A new
    # request to FACEKI returns a new URL, so a retry can help. Therefore the returned error is transient.
    return UnexpectedResponseError(
        "the report could not be downloaded from the URL that FACEKI returned",
        http_status=failure.http_status,
    )


@dataclass(frozen=True, slots=True, repr=False)
class _Locate:
    """The first request for a report. FACEKI's answer contains the report itself or URLs."""

    report: FetchPdfReport

    def request(self, service: Service = FACEKI) -> HttpRequest:
        return self.report.request(service)

    def read(self, answer: Payload) -> PdfReport | tuple[_Followed, ...]:
        self.report._check_is_own(answer)
        content = _content(answer)
        if content is not None:
            return content
        urls = tuple(_Followed(SecretText(url), self.report) for url in _urls(answer))
        if not urls:
            raise answer.unexpected(
                "FACEKI's answer is neither a PDF nor JSON that contains a PDF or its URL",
                "Check pdf_report_path and pdf_report_method in the Connection's extra",
            )
        return urls[:MAX_FOLLOWED_URLS]


@dataclass(frozen=True, slots=True, repr=False)
class _Followed:
    """A request for the report at a URL that FACEKI's first answer contained.

    :param url: Absolute URL, or the target of a redirect, which is possibly relative.
    :param redirected_from: URL of the request whose answer was a redirect to ``url``. It is empty if ``url`` comes from
        a JSON document. A request after a redirect contains no access token. A request to a URL from a JSON document
        contains the token only if the URL belongs to FACEKI's host.
    """

    url: SecretText
    report: FetchPdfReport
    redirected_from: str = ""

    def request(self, service: Service = FACEKI) -> HttpRequest:
        try:
            url = SecretText(urljoin(self.redirected_from, self.url))
            ours, theirs = urlsplit(service.base_url), urlsplit(url)
        except ValueError:
            raise UnexpectedResponseError("the URL of the report that FACEKI returned is invalid") from None
        same = (ours.scheme, ours.netloc) == (theirs.scheme, theirs.netloc)
        if theirs.scheme != "https" and not same:
            raise UnexpectedResponseError(
                "the URL of the report that FACEKI returned does not begin with https://"
            )
        return _request(url, authenticated=same and not self.redirected_from)

    def read(self, answer: Payload) -> PdfReport:
        return self.report.read(answer)


def _request(url: str, *, authenticated: bool, post: str | None = None) -> HttpRequest:
    headers = _ANYTHING if post is None else (("content-type", "application/json"), *_ANYTHING)
    return HttpRequest(
        "GET" if post is None else "POST",
        url,
        headers=headers,
        body=None if post is None else json_body({"requestId": post}),
        authenticated=authenticated,
        # The request only reads a report, even if its method is POST, so it is idempotent.
        idempotent=True,
        upload=True,
        download=True,
        endpoint=FetchPdfReport.__name__,
    )


def _content(answer: Payload) -> PdfReport | None:
    if answer.file is not None:
        return PdfReport(answer.file)
    decoded = (_decoded(text) for _, text in texts(answer.document))
    content = next((content for content in decoded if content is not None), None)
    return PdfReport(io.BytesIO(content)) if content is not None else None


def _urls(answer: Payload) -> list[str]:
    """Return the URLs in an answer. URLs that contain ``.pdf`` are first."""
    found = [text for _, text in texts(answer.document) if text.startswith(("https://", "http://"))]
    return sorted(dict.fromkeys(found), key=lambda url: ".pdf" not in url.lower())


def _decoded(text: str) -> bytes | None:
    encoded = text.partition("base64,")[2] or text
    # A PDF in base64 begins with "JVBER", so other texts are skipped without decoding.
    if not encoded.startswith("JVBER"):
        return None
    try:
        # The MIME form of base64 has line breaks, so all white space is removed.
        content = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return content if content.startswith(b"%PDF") else None
