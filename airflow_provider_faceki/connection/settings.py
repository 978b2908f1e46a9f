# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Convert an Airflow Connection into checked settings.

Workers, triggerers and the API server share these functions. The functions send no request. They read no file, but they
check that the file of the CA bundle exists. If several fields are wrong, one error reports all of them. In every field,
``null`` and the empty text mean "not set".
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_faceki.api.errors import ConfigurationError
from airflow_provider_faceki.connection import field_checks
from airflow_provider_faceki.connection.schema import (
    CONN_TYPE,
    EXTRA_FIELDS,
    HIDDEN_FIELDS,
    SPECS,
    STANDARD_FIELDS,
    ConnectionSettings,
    FieldSpec,
)

log = logging.getLogger(__name__)

# Connection types that are accepted. An empty type is accepted, because a Connection in a secrets backend possibly has
# no type. The type "generic" is accepted, because a Connection of this type can belong to any service.
_OUR_TYPES = (CONN_TYPE, "generic", "", None)


@dataclass(frozen=True, repr=False)
class StoredConnection:
    """The stored fields of a Connection. ``repr`` shows none of them.

    This class is used in place of Airflow's own class, because the ``repr`` of Airflow's class shows the password. With
    Airflow's class, a traceback that prints local variables would reveal the password.
    """

    conn_type: str | None
    login: str | None
    password: str | None
    host: str | None
    port: int | None
    schema: str | None
    extra: str | None

    @classmethod
    def of(cls, conn: object) -> StoredConnection:
        """Copy the fields of ``conn``, which is an object of any of Airflow's Connection classes.

        This method does not block, so code on an event loop can call it. The method reads the stored text
        ``conn.extra``. It does not read ``conn.extra_dejson``, because that property makes a blocking call to Airflow's
        supervisor in order to mask secrets.
        """
        return cls(*(getattr(conn, each.name) for each in dataclasses.fields(cls)))


def is_faceki_type(conn_type: object) -> bool:
    """Return whether a Connection of the type ``conn_type`` is accepted as a FACEKI Connection."""
    return conn_type in _OUR_TYPES


def settings_from_connection(conn_id: str, conn: StoredConnection) -> ConnectionSettings:
    """Return the checked settings of a Connection.

    :raises ConfigurationError: if the type of the Connection is not accepted, or if any field is wrong. The error lists
        all wrong fields. The traceback reveals no secret, even if local variables are printed.
    """
    if not is_faceki_type(conn.conn_type):
        raise _wrong_type(conn_id, conn.conn_type)
    reader = _FieldReader(conn)
    reader.warn_of_unknown(conn_id)
    settings = reader.settings(conn_id)
    reader.raise_if_wrong(conn_id)
    return settings


def _wrong_type(conn_id: str, found: object) -> ConfigurationError:
    # A Connection of another type is refused, because it contains the secret of another service. This secret must not
    # be sent to FACEKI.
    plain = isinstance(found, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,40}", found)
    shown = repr(found) if plain else "another one"
    return ConfigurationError(
        f"This is not a FACEKI Connection: its type is {shown}; allowed are {CONN_TYPE!r}, 'generic' "
        "and an empty type. Nothing was sent.",
        conn_id=conn_id,
    )


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """The webhook settings of a Connection. ``repr`` shows no secret.

    Each attribute except ``tokens`` contains the value of one Connection field. The name of the field in ``schema.py``
    is ``webhook_`` followed by the name of the attribute.

    :param tokens: Tokens that are accepted at the end of the webhook path. These are the current token and, if it is
        set, the previous token.
    """

    tokens: tuple[str, ...] = field(repr=False)
    hmac_secret: str | None = field(repr=False)
    hmac_header: str | None
    request_id_field: str
    status_field: str
    hmac_timestamp_header: str | None
    statuses: tuple[str, ...] | None
    max_per_day: int


def webhook_settings(conn_id: str, conn: StoredConnection) -> WebhookSettings | None:
    """Return the webhook settings of a Connection. If the Connection has no webhook token, return ``None``.

    Only the webhook fields are checked, because the API server does not use the other fields, and a check of the other
    fields could fail on the API server's machine. For example, the CA bundle can be missing on this machine.

    :raises ConfigurationError: if any webhook field is wrong. The error lists all wrong webhook fields.
    """
    reader = _FieldReader(conn)
    found = {name: reader.value(name) for name in SPECS if name.startswith("webhook_")}
    reader.check_webhook()
    reader.raise_if_wrong(conn_id)
    if found["webhook_token"] is None:
        return None
    tokens = tuple(found[name] for name in ("webhook_token", "webhook_token_previous") if found[name])
    return WebhookSettings(
        tokens=tokens,
        hmac_secret=found["webhook_hmac_secret"],
        hmac_header=found["webhook_hmac_header"],
        request_id_field=found["webhook_request_id_field"],
        status_field=found["webhook_status_field"],
        hmac_timestamp_header=found["webhook_hmac_timestamp_header"],
        statuses=found["webhook_statuses"],
        max_per_day=found["webhook_max_per_day"],
    )


def token_directory() -> Path:
    """Return the directory for token files. It is located in Airflow's home directory."""
    from airflow.configuration import AIRFLOW_HOME

    return Path(AIRFLOW_HOME) / "faceki_tokens"


def _decode(extra: object) -> object:
    """Return the decoded JSON of a Connection's extra.

    If the extra is blank text, return ``None``. Text that is not JSON is returned unchanged.
    """
    if not isinstance(extra, str):
        return extra
    if not extra.strip():
        return None
    try:
        return json.loads(extra)
    except (ValueError, RecursionError):
        return extra


class _FieldReader:
    """Reader for the fields of one Connection. It collects the problems of all fields. ``repr`` shows no value."""

    def __init__(self, conn: StoredConnection) -> None:
        self.problems: list[str] = []
        extra = _decode(conn.extra)
        keys = extra if isinstance(extra, Mapping) else {}
        self._unknown = sorted(str(key) for key in keys if key not in EXTRA_FIELDS)
        self._stored = {name: getattr(conn, name) for name in (*STANDARD_FIELDS, *HIDDEN_FIELDS)}
        self._stored |= {key: keys.get(key) for key in EXTRA_FIELDS}
        if extra is not None and not isinstance(extra, Mapping):
            self.problem("extra", "something else", "a JSON object")

    def settings(self, conn_id: str) -> ConnectionSettings:
        """Return the settings from all fields. A wrong field gets its default, and ``problems`` reports it."""
        values: dict[str, Any] = {name: self.value(name) for name in SPECS}
        settings = ConnectionSettings(conn_id=conn_id, **values)
        self.check_webhook()
        plain = (settings.client_id + settings.client_secret).isascii()
        if settings.auth_flow.sends_headers and not plain:
            found = "a Client ID or Secret with characters that are not allowed in an HTTP header"
            self.problem("auth_flow", found, "another form")
        return settings

    def value(self, name: str) -> Any:
        """Return the checked value of a field, or its default if the field is not set or is wrong."""
        spec = SPECS[name]
        key = spec.column or name
        if spec.required and _unset(self._stored[key]):
            self.problem(key, "nothing", "what the FACEKI portal shows; it is required")
        found = self._checked(key, self._check_of(name, spec))
        if found is not None:
            return found
        if spec.default is not None:
            return self._check_of(name, spec)(spec.default)
        return "" if spec.required else None

    def _check_of(self, name: str, spec: FieldSpec) -> Callable[[object], object]:
        if name == "base_url":
            scheme, port = (
                self._checked("schema", field_checks.scheme),
                self._checked("port", field_checks.port),
            )
            return lambda value: field_checks.url_with_defaults(value, scheme, port)
        check = getattr(field_checks, spec.kind)
        return lambda value: check(value, spec)

    def _checked(self, key: str, check: Callable[[object], Any]) -> Any:
        value = self._stored[key]
        if _unset(value):
            return None
        try:
            return check(value)
        except field_checks.InvalidValue as error:
            because = f" ({error.because})" if error.because else ""
            self.problem(key, f"{self._shown(key)}{because}", error.allowed)
            return None

    def check_webhook(self) -> None:
        """Check that the webhook fields are consistent with each other."""
        self._needs("webhook_hmac_secret", "webhook_hmac_header")
        self._needs("webhook_hmac_header", "webhook_hmac_secret")
        self._needs("webhook_hmac_timestamp_header", "webhook_hmac_secret")
        self._needs("webhook_hmac_timestamp_header", "webhook_hmac_header")
        self._needs("webhook_token_previous", "webhook_token")

    def _needs(self, key: str, other: str) -> None:
        if not _unset(self._stored[key]) and _unset(self._stored[other]):
            self.problem(other, "nothing", f"a value, since {_name(key)} is set")

    def problem(self, key: str, found: str, allowed: str) -> None:
        """Add a problem of one field to the list. If the list already contains the problem, do nothing.

        :param key: Name of the field.
        :param found: Description of the wrong value.
        :param allowed: Description of the allowed values.
        """
        text = f"{_name(key)}: found {found}; allowed is {allowed}"
        if text not in self.problems:
            self.problems.append(text)

    def raise_if_wrong(self, conn_id: str) -> None:
        """If there are problems, raise one error that lists all of them."""
        if self.problems:
            lines = "".join(f"\n  {problem}" for problem in self.problems)
            raise ConfigurationError(
                f"This FACEKI Connection cannot be used as it is:{lines}\nNothing was sent.", conn_id=conn_id
            )

    def warn_of_unknown(self, conn_id: str) -> None:
        """Log a warning that lists the unknown keys of the extra. A process logs the same warning only once."""
        warning = (conn_id, tuple(self._unknown))
        if not self._unknown or warning in _WARNED:
            return
        _WARNED.add(warning)
        log.warning(
            "Connection %r: unknown keys in extra are ignored: %s",
            conn_id,
            ", ".join(self._with_suggestion(key) for key in self._unknown),
        )

    def _with_suggestion(self, key: str) -> str:
        near = difflib.get_close_matches(key, EXTRA_FIELDS, n=1)
        return f"{self._safe_repr(key)} (did you mean {near[0]}?)" if near else self._safe_repr(key)

    def _shown(self, key: str) -> str:
        value = self._stored[key]
        if isinstance(value, str):
            hidden = key in _NEVER_SHOWN or any(mark in value for mark in "@?#")
            return f"text of {len(value)} characters" if hidden else self._safe_repr(value)
        if key in _NEVER_SHOWN or not isinstance(value, bool | int | float) or abs(value) >= 1e15:
            return f"a value of type {type(value).__name__}"
        return f"{self._safe_repr(value)} ({type(value).__name__})"

    def _safe_repr(self, value: object) -> str:
        """Return the first 80 characters of ``repr(value)``.

        If the value contains a secret of a field, return only the length of the value.
        """
        shown = repr(value)
        secrets = (self._stored[key] for key in _SECRET_KEYS)
        if any(isinstance(secret, str) and len(secret) > 3 and secret in str(value) for secret in secrets):
            return f"text of {len(str(value))} characters"
        return shown if len(shown) <= 80 else f"{shown[:80]}…"


#: Warnings about unknown keys that this process has already logged, as pairs of Connection id and keys.
_WARNED: set[tuple[str, tuple[str, ...]]] = set()
_SECRET_KEYS = frozenset(spec.column or name for name, spec in SPECS.items() if spec.secret)
_NEVER_SHOWN = frozenset({"login", "proxies", *_SECRET_KEYS})


def _unset(value: object) -> bool:
    return value is None or value == ""


def _name(key: str) -> str:
    if key in EXTRA_FIELDS:
        return f"{EXTRA_FIELDS[key].label} (extra {key!r})"
    label = STANDARD_FIELDS[key].label if key in STANDARD_FIELDS else key.capitalize()
    return f"{label} (field {key!r})"
