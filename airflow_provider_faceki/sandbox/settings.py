# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The settings of a sandbox, the local server that simulates FACEKI.

Each value is validated when it is set, both from Python and through the control API.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_faceki.sandbox.dialects import DIALECTS, DOCUMENTED, TOKEN_FORMS

DEFAULT_CLIENT_ID = "sandbox-client"
DEFAULT_CLIENT_SECRET = "sandbox-secret-made-up-for-loopback"

LINK_ERRORS = ("unknown", "expired", "used_up")

Check = Callable[[object], object]


def one_of(*allowed: object) -> Check:
    def check(value: object) -> object:
        # A value must also have the type of the allowed value, because 1 == True and 200 == 200.0 in Python.
        if not any(value == each and type(value) is type(each) for each in allowed):
            raise ValueError("one of " + ", ".join(repr(each) for each in allowed))
        return value

    return check


def number(low: float, high: float, whole: bool = False) -> Check:
    def check(value: object) -> object:
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            raise ValueError(f"a {'whole ' if whole else ''}number from {low} to {high}")
        return value

    return check


def or_none(inner: Check) -> Check:
    def check(value: object) -> object:
        if value is None:
            return None
        try:
            return inner(value)
        except ValueError as wrong:
            raise ValueError(f"{wrong}, or None") from None

    return check


def _some_of(*allowed: str) -> Check:
    def check(value: object) -> object:
        if not isinstance(value, list | tuple) or any(each not in allowed for each in value):
            raise ValueError("a list of " + ", ".join(repr(each) for each in allowed))
        return tuple(value)

    return check


def _text(value: object) -> object:
    if not isinstance(value, str) or not value:
        raise ValueError("text that is not empty")
    return value


def is_http_url(text: str) -> bool:
    with suppress(ValueError):  # `urlsplit` refuses some texts, for example `http://[`.
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    return False


def _http_url(value: object) -> object:
    if not isinstance(value, str) or not is_http_url(value):
        raise ValueError("an http or https URL")
    return value


def _report_path(value: object) -> object:
    if not isinstance(value, str) or not value.startswith("/") or value.count("{requestId}") != 1:
        raise ValueError("a path that begins with / and contains {requestId} once")
    return value


def _texts(value: object) -> object:
    if not isinstance(value, Mapping) or not all(
        isinstance(k, str) and isinstance(v, str) for k, v in value.items()
    ):
        raise ValueError("an object of texts")
    return dict(value)


def _dialects(value: object) -> object:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else [""]
    if not all(name in DIALECTS for name in names):
        raise ValueError("one, or several with commas between them, of " + ", ".join(DIALECTS))
    return ",".join(names)


_flag = one_of(True, False)


def checked_field(default: object, check: Check, *, secret: bool = False) -> Any:
    """Declare a field with a check. The return type is `Any`, because the fields have different types."""
    return field(default=default, repr=not secret, metadata={"check": check})


def checked(name: str, value: object, check: Check, *, secret: bool = False) -> object:
    """Return the value that the check returns. If the check fails, raise `ValueError` with the name and the value."""
    try:
        return check(value)
    except ValueError as allowed:
        found = type(value).__name__ if secret else repr(value)
        raise ValueError(f"{name}: found {found}, allowed is {allowed}") from None


@dataclass
class Settings:
    """The settings of a sandbox. `docs/sandbox.md` explains each setting."""

    client_id: str = checked_field(DEFAULT_CLIENT_ID, _text)
    client_secret: str = checked_field(DEFAULT_CLIENT_SECRET, _text, secret=True)
    dialect: str = checked_field(DOCUMENTED, _dialects)
    token_forms: tuple[str, ...] = checked_field(TOKEN_FORMS, _some_of(*TOKEN_FORMS))
    token_lifetime: float = checked_field(3600, number(0.05, 10_000_000))
    send_expires_in: bool = checked_field(True, _flag)
    token_status: int = checked_field(200, one_of(200, 201))
    missing_secret: str = checked_field("message", one_of("message", "field"))
    refusal_status: int = checked_field(401, one_of(401, 200))
    # An official SDK was changed to accept HTTP 201 for a new link, so FACEKI probably answers with 201.
    link_status: int = checked_field(201, one_of(201, 200))
    link_limit: int = checked_field(1, number(1, 1000, whole=True))
    link_errors: tuple[str, ...] = checked_field(LINK_ERRORS, _some_of(*LINK_ERRORS))
    not_found: str = checked_field("empty", one_of("empty", "8013", "404", "bare-404"))
    auto_answer: float | None = checked_field(None, or_none(number(0, 10_000_000)))
    credit: int | None = checked_field(1000, or_none(number(0, 1_000_000_000, whole=True)))
    bill_rejections: bool = checked_field(True, _flag)
    rejection_result: str = checked_field("object", one_of("object", "null", "missing"))
    max_upload_bytes: int = checked_field(64 * 1024 * 1024, number(1, 10_000_000_000, whole=True))
    person: dict[str, str] = field(default_factory=dict, repr=False, metadata={"check": _texts})
    # The path of the PDF report is only an assumption, because no public source contains FACEKI's path.
    pdf_path: str = checked_field("/sandbox/report/{requestId}", _report_path)
    pdf_form: str = checked_field("bytes", one_of("bytes", "json-url", "json-base64", "redirect"))
    pdf_size: int = checked_field(0, number(0, 1_000_000_000, whole=True))
    # The webhook URL is excluded from the repr, because the path of the URL possibly contains a token.
    webhook_url: str | None = checked_field(None, or_none(_http_url), secret=True)
    webhook_mode: str = checked_field("normal", one_of("normal", "late", "twice", "out-of-order", "never"))
    webhook_delay: float = checked_field(2.0, number(0, 3600))
    latency: float = checked_field(0.0, number(0, 600))

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, _checked(name, value))

    def update(self, values: Mapping[str, object]) -> None:
        """Set several values.

        :raises ValueError: if a name is unknown or a value is invalid. In this case no value is changed.
        """
        for name, value in {name: _checked(name, value) for name, value in values.items()}.items():
            setattr(self, name, value)

    def values(self) -> dict[str, object]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def shown(self) -> dict[str, object]:
        """Return the names and values of all settings except those in `SECRETS`, for the control API."""
        return {name: value for name, value in self.values().items() if name not in SECRETS}


_CHECKS: dict[str, Check] = {each.name: each.metadata["check"] for each in fields(Settings)}
SECRETS = frozenset(each.name for each in fields(Settings) if not each.repr)


def _checked(name: str, value: object) -> object:
    check = _CHECKS.get(name)
    if check is None:
        raise ValueError(f"sandbox setting {name!r} does not exist; there are {', '.join(sorted(_CHECKS))}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"sandbox setting {name}: found {value!r}, allowed is a finite number")
    return checked(f"sandbox setting {name}", value, check, secret=name in SECRETS)
