# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""HTTP requests and responses as frozen values."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, TypeAlias
from urllib.parse import urlsplit

from airflow_provider_faceki.api.secrets import SecretText
from airflow_provider_faceki.api.uploads import File, Multipart
from airflow_provider_faceki.api.values import Json as Json


@dataclass(frozen=True, slots=True, repr=False)
class HttpRequest:
    """One request, complete but for the bearer token.

    :param method: HTTP method, upper case.
    :param url: Absolute URL without a query.
    :param query: Query parameters in order.
    :param headers: Headers with lower-case names.
    :param body: Body to send; its media type is among ``headers``.
    :param authenticated: Whether an access token belongs to it.
    :param idempotent: Whether sending it twice does no harm and costs nothing.
    :param upload: Whether it carries files, for which the Connection's upload timeout holds.
    :param download: Whether a PDF is expected, which is put into a temporary file instead of memory.
    :param endpoint: Name of the endpoint's class, for metrics; empty for a token request.
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

        :param token: The token.
        :param header: Name of the header that carries it.
        :param scheme: Word before the token; empty for the token alone.
        """
        value = SecretText(f"{scheme} {token}" if scheme else token)
        return replace(self, headers=(*self.headers, (header.lower(), value)))

    def __repr__(self) -> str:
        # Query, headers and body carry links, secrets, tokens and people.
        return f"<HttpRequest {self.method} {urlsplit(self.url).path}>"


@dataclass(frozen=True, slots=True, repr=False)
class HttpResponse:
    """One response, read to its end.

    :param status: HTTP status.
    :param headers: Headers with lower-case names.
    :param body: The whole body, decompressed.
    :param file: A downloaded PDF, at its first byte; ``body`` is empty then.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: BinaryIO | None = None

    def __repr__(self) -> str:
        return f"<HttpResponse {self.status}, {len(self.body)} bytes>"


#: One header: its name in lower case, its value.
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
    """Return a request that carries images and texts. Calls that take images are charged, so not idempotent."""
    body = multipart_body(fields, images)
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


def multipart_body(fields: Sequence[tuple[str, str]], files: Sequence[tuple[str, File]]) -> Multipart:
    """Return a body of texts and files with a boundary of its own."""
    return Multipart(tuple(fields), tuple(files), boundary=secrets.token_hex(16))


def json_body(document: Json) -> bytes:
    """Encode ``document`` the way every JSON route of FACEKI takes it."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
