# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Immutable classes for HTTP requests and responses, and functions that create requests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, TypeAlias
from urllib.parse import urlsplit

from airflow_provider_faceki.api.secrets import SecretText
from airflow_provider_faceki.api.uploads import File, Multipart
from airflow_provider_faceki.api.values import Json as Json


@dataclass(frozen=True, slots=True, repr=False)
class HttpRequest:
    """One HTTP request. The access token is added later by :meth:`with_token`.

    :param method: HTTP method in upper case.
    :param url: Absolute URL. If the URL itself contains a query, ``query`` is empty.
    :param query: Query parameters in order.
    :param headers: Headers with lower-case names.
    :param body: Body to send. ``headers`` contains its media type.
    :param authenticated: Whether the request needs an access token.
    :param idempotent: Whether the request can be sent a second time without harm and without further cost.
    :param upload: Whether the longer upload timeout of the Connection applies. This timeout is used for requests with
        files, and for downloads of reports.
    :param download: Whether the answer is possibly a PDF. A PDF is written to a temporary file, not to memory.
    :param endpoint: Name of the class that describes the call, such as ``FetchRecords``. Metrics use this name. It is
        empty for a token request. For any other request without a name, the function ``call_once`` sets the name.
    """

    method: str
    url: str
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | Multipart | None = None
    authenticated: bool = True
    idempotent: bool = False
    upload: bool = False
    download: bool = False
    endpoint: str = ""

    def with_token(self, token: str, header: str = "authorization", scheme: str = "Bearer") -> HttpRequest:
        """Return this request with an access token.

        :param header: Name of the header that carries the token.
        :param scheme: Prefix of the token, without the space. If it is empty, the header contains only the token.
        """
        value = SecretText(f"{scheme} {token}" if scheme else token)
        return replace(self, headers=(*self.headers, (header.lower(), value)))

    def __repr__(self) -> str:
        # The `repr` of a request omits the query, headers and body, because they contain links, secrets, tokens and
        # personal data.
        return f"<HttpRequest {self.method} {urlsplit(self.url).path}>"


@dataclass(frozen=True, slots=True, repr=False)
class HttpResponse:
    """One complete HTTP response.

    :param status: HTTP status.
    :param headers: Headers with lower-case names.
    :param body: The whole body, decompressed.
    :param file: A downloaded PDF, positioned at its first byte, or ``None``. If there is a file, ``body`` is empty.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: BinaryIO | None = None

    def __repr__(self) -> str:
        return f"<HttpResponse {self.status}, {len(self.body)} bytes>"


#: One header, which consists of the name in lower case and the value.
Header: TypeAlias = tuple[str, str]

ACCEPT_JSON: tuple[Header, ...] = (("accept", "application/json"),)
JSON_HEADERS: tuple[Header, ...] = (("content-type", "application/json"), *ACCEPT_JSON)


def image_request(
    url: str,
    fields: tuple[tuple[str, str], ...],
    images: Sequence[tuple[str, File]],
    *,
    authenticated: bool = True,
    idempotent: bool = False,
) -> HttpRequest:
    """Return a POST request that sends images and text fields.

    By default the request is not idempotent, because FACEKI charges most calls with images.
    """
    body = Multipart(fields, tuple(images))
    headers = (("content-type", body.media_type), *ACCEPT_JSON)
    return HttpRequest(
        "POST",
        url,
        headers=headers,
        body=body,
        authenticated=authenticated,
        idempotent=idempotent,
        upload=True,
    )


def json_body(document: Json) -> bytes:
    """Return ``document`` as JSON in UTF-8."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
