# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A request and a response as plain values, so that the routes do not depend on an HTTP library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Upload:
    """The size in bytes and the hash of an uploaded file.

    The hash is sufficient to recognise the same file again. The content is not stored, so no picture can leak.
    """

    size: int
    sha256: str


@dataclass(frozen=True)
class Request:
    """One HTTP request.

    :param base_url: scheme, host and port of the sandbox, as the client addressed it.
    :param headers: the headers, with names in lower case.
    :param query: the parameters of the query string.
    :param path: the values of the variable parts of the path.
    :param document: the parsed JSON body. If None, the request has no body, or the body is not valid JSON.
    :param parts: the fields of a form body.
    """

    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    path: Mapping[str, str] = field(default_factory=dict)
    document: object = None
    parts: Mapping[str, str | Upload] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Return the text of a form field. If the field is absent or is a file, return an empty text."""
        value = self.parts.get(name)
        return value if isinstance(value, str) else ""

    def upload(self, name: str) -> Upload | None:
        """Return an uploaded file. If the field is absent, is an empty file, or is text, return None."""
        value = self.parts.get(name)
        return value if isinstance(value, Upload) and value.size else None

    def member(self, name: str) -> object:
        """Return a member of the JSON body. If the body is not an object or lacks the member, return None."""
        return self.document.get(name) if isinstance(self.document, Mapping) else None


@dataclass(frozen=True)
class Response:
    """One HTTP response. A dialect or a fault possibly changes the response before it is sent."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
