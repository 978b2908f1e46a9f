# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What goes over the wire and what comes back, as frozen values that no one can send by accident."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from urllib.parse import urlsplit

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True, slots=True, repr=False)
class HttpRequest:
    """One request, complete but for the bearer token.

    :param method: HTTP method, upper case.
    :param url: Absolute URL without a query.
    :param query: Query parameters in order.
    :param headers: Headers with lower-case names.
    :param body: Body to send; its media type is among ``headers``.
    :param authenticated: Whether a bearer token belongs to it.
    :param repeatable: Whether sending it twice does no harm and costs nothing.
    :param upload: Whether it carries images, which take longer (see the Connection's upload timeout).
    """

    method: str
    url: str
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    authenticated: bool = True
    repeatable: bool = False
    upload: bool = False

    def bearing(self, token: str) -> HttpRequest:
        """Return this request with the bearer token on it."""
        return replace(self, headers=(*self.headers, ("authorization", f"Bearer {token}")))

    def __repr__(self) -> str:
        # Query, headers and body carry links, secrets, tokens and people.
        return f"<HttpRequest {self.method} {urlsplit(self.url).path}>"


@dataclass(frozen=True, slots=True, repr=False)
class HttpResponse:
    """One answer, read to its end.

    :param status: HTTP status.
    :param headers: Headers with lower-case names.
    :param body: The whole body, decompressed.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def __repr__(self) -> str:
        return f"<HttpResponse {self.status}, {len(self.body)} bytes>"


#: One header: its name in lower case, its value.
Header: TypeAlias = tuple[str, str]

JSON_HEADERS: tuple[Header, ...] = (("content-type", "application/json"), ("accept", "application/json"))


def json_body(document: Json) -> bytes:
    """Encode ``document`` the way every JSON route of FACEKI takes it."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
