# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A request and a response as plain values, so that routes do no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Upload:
    """What is kept of an uploaded file: enough to recognise it again, too little to show a person."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Request:
    """One request. `document` is the JSON body (None: none, or not JSON); `parts` are a form's fields."""

    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    path: Mapping[str, str] = field(default_factory=dict)
    document: object = None
    parts: Mapping[str, str | Upload] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Return a form field's text; empty when it is absent or a file."""
        value = self.parts.get(name)
        return value if isinstance(value, str) else ""

    def upload(self, name: str) -> Upload | None:
        """Return a form's file; None when it is absent, empty or text."""
        value = self.parts.get(name)
        return value if isinstance(value, Upload) and value.size else None

    def member(self, name: str) -> object:
        """Return a member of the JSON body; None when there is no such object."""
        return self.document.get(name) if isinstance(self.document, Mapping) else None


@dataclass(frozen=True)
class Response:
    """One response, to be sent as it is or to be changed by a dialect or a fault."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
