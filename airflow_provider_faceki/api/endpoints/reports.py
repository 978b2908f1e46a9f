# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The PDF report of a verification. FACEKI's menu names it; its address and form are in no public source."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from airflow_provider_faceki.api.errors import ConfigurationError, ResponseError, UnexpectedResponseError
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.http import Header, HttpRequest, Json
from airflow_provider_faceki.api.protocol.session import AuthSession, Steps, call_once
from airflow_provider_faceki.api.service import FACEKI, Service
from airflow_provider_faceki.api.values import check_identifier

_ANYTHING: tuple[Header, ...] = (("accept", "application/pdf, application/json"),)


@dataclass(frozen=True, slots=True, repr=False)
class PdfReport:
    """A report that begins with ``%PDF``.

    :param file: Its content, at its first byte; closing it throws it away.
    """

    file: BinaryIO


@dataclass(frozen=True, slots=True, repr=False)
class _Elsewhere:
    """The answer says that the report lies at this URL."""

    url: str


@dataclass(frozen=True, slots=True)
class FetchPdfReport:
    """Fetch the PDF report of a verification, in any of the forms in which services like this one answer: the
    PDF itself, JSON with it in base64, or JSON with a URL.

    :param request_id: FACEKI's id of the verification.
    :raises ValidationError: it cannot be an id.
    """

    request_id: str

    def __post_init__(self) -> None:
        check_identifier("request_id", self.request_id)

    def request(self, service: Service = FACEKI) -> HttpRequest:
        """Return the request.

        :raises ConfigurationError: nobody has said where FACEKI keeps its reports.
        """
        if service.pdf_report_path is None:
            raise ConfigurationError(
                "the path of FACEKI's PDF reports is in no public source: ask FACEKI for it and set "
                "pdf_report_path in the Connection's extra, such as '/…/{requestId}'"
            )
        path = service.pdf_report_path.replace("{requestId}", quote(self.request_id, safe=""))
        return _get(f"{service.base_url}{path}", authenticated=True)

    def read(self, answer: Payload) -> PdfReport:
        """Return the report that the answer itself holds.

        :raises UnexpectedResponseError: it holds none.
        """
        found = _located(answer)
        if isinstance(found, _Elsewhere):
            raise UnexpectedResponseError("FACEKI's answer holds no PDF but another URL")
        return found

    def steps(self, account: AuthSession) -> Steps[PdfReport]:
        """Ask, and follow one URL. The token goes along only if that is FACEKI's own."""
        found = yield from call_once(account, _Locate(self))
        if isinstance(found, PdfReport):
            return found
        try:
            return (yield from call_once(account, _Follow(found.url, self)))
        except ResponseError as error:
            if isinstance(error, UnexpectedResponseError) or error.is_transient:
                raise
            # Said by whoever keeps the file, most often because the address has expired: it says nothing about
            # our credentials, and the next answer names a new address.
            raise UnexpectedResponseError(
                "the report is not to be had at the URL that FACEKI gave", http_status=error.http_status
            ) from None


@dataclass(frozen=True, slots=True, repr=False)
class _Locate:
    report: FetchPdfReport

    def request(self, service: Service = FACEKI) -> HttpRequest:
        return self.report.request(service)

    def read(self, answer: Payload) -> PdfReport | _Elsewhere:
        return _located(answer)


@dataclass(frozen=True, slots=True, repr=False)
class _Follow:
    url: str
    report: FetchPdfReport

    def request(self, service: Service = FACEKI) -> HttpRequest:
        try:
            ours, theirs = urlsplit(service.base_url), urlsplit(self.url)
        except ValueError:
            raise UnexpectedResponseError("the URL that FACEKI gave for the report is none") from None
        same = (ours.scheme, ours.netloc) == (theirs.scheme, theirs.netloc)
        if theirs.scheme != "https" and not same:
            raise UnexpectedResponseError("the URL that FACEKI gave for the report is not https")
        return _get(self.url, authenticated=same)

    def read(self, answer: Payload) -> PdfReport:
        return self.report.read(answer)


def _get(url: str, *, authenticated: bool) -> HttpRequest:
    return HttpRequest(
        "GET",
        url,
        headers=_ANYTHING,
        authenticated=authenticated,
        idempotent=True,
        upload=True,
        download=True,
    )


def _located(answer: Payload) -> PdfReport | _Elsewhere:
    if answer.file is not None:
        return PdfReport(answer.file)
    for text in _texts(answer.result):
        if text.startswith(("https://", "http://")):
            return _Elsewhere(text)
        content = _decoded(text)
        if content is not None:
            return PdfReport(io.BytesIO(content))
    raise UnexpectedResponseError("FACEKI's answer is neither a PDF nor JSON with one or with a URL")


def _texts(value: Json, depth: int = 3) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list) and depth:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item, depth - 1)


def _decoded(text: str) -> bytes | None:
    encoded = text.partition("base64,")[2] or text
    # "JVBER" is how "%PDF" begins in base64: most texts need no decoding to be told apart.
    if not encoded.startswith("JVBER"):
        return None
    try:
        # MIME breaks base64 into lines.
        content = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return content if content.startswith(b"%PDF") else None
