# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Is this Connection right, and what does it say?

One function for workers and triggerers, without I/O but for looking whether the CA bundle exists. All that is
wrong with a Connection is told at once. ``null`` and the empty string mean "not set" in every field.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from airflow_provider_faceki import connection_form as form
from airflow_provider_faceki import connection_rules as rules
from airflow_provider_faceki.api.errors import ConfigurationError
from airflow_provider_faceki.api.protocol.auth import AuthFlow

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Longest wait in seconds for a connection to be made, however long a call as a whole may take.
CONNECT_TIMEOUT = 10.0
_OUR_TYPES = (form.CONN_TYPE, "generic", "", None)


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """A FACEKI Connection, checked. ``repr`` shows no secret.

    :param conn_id: The Connection's id.
    :param base_url: Scheme, host, port and path prefix of FACEKI, without a slash at the end.
    :param client_id: Client id.
    :param client_secret: Client secret.
    :param auth_flow: The form of the token request.
    :param timeout: Seconds for sending a request, and again for waiting for its answer.
    :param upload_timeout: The same for calls that send images.
    :param max_attempts: How often a repeatable call is sent at most.
    :param max_wait: Longest pause in seconds between two attempts.
    :param token_store: ``file`` or ``memory``.
    :param workflow_id: Workflow where a task names none.
    :param verify: Whether to check certificates, or the CA bundle to check them with.
    :param proxies: Pairs of ``http`` or ``https`` and a proxy's URL; empty: those of the environment.
    :param records_path: Path for fetching records.
    :param pdf_report_path: Path of the PDF report, with ``{requestId}`` in it.
    :param addon_url: Like ``base_url``, of the image check.
    :param max_image_bytes: Larger images are refused.
    :param max_concurrency: Most calls under way at once in one process.
    :param max_requests_per_second: Most calls begun per second in one process; ``None``: no such limit.
    :param webhook_token: Last part of the webhook's path.
    :param webhook_token_previous: The one before, still accepted.
    :param webhook_hmac_secret: Key of the signature over a webhook's body.
    :param webhook_hmac_header: HTTP header that carries that signature.
    :param pii_hash_key: Key for hashing personal data.
    """

    conn_id: str
    base_url: str
    client_id: str
    client_secret: str = field(repr=False)
    auth_flow: AuthFlow
    timeout: float
    upload_timeout: float
    max_attempts: int
    max_wait: float
    token_store: str
    workflow_id: str | None
    verify: bool | str
    proxies: tuple[tuple[str, str], ...] = field(repr=False)
    records_path: str
    pdf_report_path: str | None
    addon_url: str
    max_image_bytes: int
    max_concurrency: int
    max_requests_per_second: float | None
    webhook_token: str | None = field(repr=False)
    webhook_token_previous: str | None = field(repr=False)
    webhook_hmac_secret: str | None = field(repr=False)
    webhook_hmac_header: str | None
    pii_hash_key: str | None = field(repr=False)

    @property
    def connect_timeout(self) -> float:
        """Seconds after which connecting is given up."""
        return min(CONNECT_TIMEOUT, self.timeout)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text in here that must be masked wherever it turns up."""
        passwords = [urlsplit(url).password or "" for _, url in self.proxies]
        found = (
            self.client_secret,
            self.webhook_token,
            self.webhook_token_previous,
            self.webhook_hmac_secret,
            self.pii_hash_key,
            *passwords,
            *map(unquote, passwords),
        )
        return tuple(dict.fromkeys(secret for secret in found if secret))


class ConnectionFields(Protocol):
    """The part of an Airflow Connection, of whatever Airflow version, that is looked at."""

    @property
    def conn_type(self) -> str | None: ...
    @property
    def login(self) -> str | None: ...
    @property
    def password(self) -> str | None: ...
    @property
    def host(self) -> str | None: ...
    @property
    def port(self) -> int | None: ...
    @property
    def schema(self) -> str | None: ...
    @property
    def extra(self) -> str | None: ...


def settings_from_connection(conn_id: str, conn: ConnectionFields) -> ConnectionSettings:
    """Return the settings in an Airflow Connection, or raise one error with all that is wrong with it.

    Safe on an event loop too: ``conn.extra`` is the stored text, and taking it does nothing else.
    ``conn.extra_dejson`` would also mask what it finds, by a blocking call to Airflow's supervisor, so it is
    left alone; mask :attr:`ConnectionSettings.secrets` instead, in whatever way the caller may.
    """
    _check_type(conn_id, conn.conn_type)
    return connection_settings(
        conn_id=conn_id,
        login=conn.login,
        password=conn.password,
        host=conn.host,
        port=conn.port,
        schema=conn.schema,
        extra=_decoded(conn.extra),
    )


def _check_type(conn_id: str, found: object) -> None:
    # JSON of a secrets backend may have no type, and "generic" is nobody's; but what was made for another service is
    # not sent to its host as if that were FACEKI.
    if found in _OUR_TYPES:
        return
    plain = isinstance(found, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,40}", found)
    shown = repr(found) if plain else "another one"
    raise ConfigurationError(
        f"This is no FACEKI Connection: its type is {shown}; allowed is {form.CONN_TYPE!r}, generic, or none. "
        "Nothing was sent.",
        conn_id=conn_id,
    )


def connection_settings(
    *,
    conn_id: str,
    login: str | None,
    password: str | None,
    host: str | None,
    port: int | None = None,
    schema: str | None = None,
    extra: object = None,
) -> ConnectionSettings:
    """Return the settings in these fields of a Connection, or raise one error with all that is wrong."""
    read = _Reading(
        {"login": login, "password": password, "host": host, "port": port, "schema": schema}, extra
    )
    read.warn_of_unknown(conn_id)
    base_url = rules.base_url(read.optional("schema", rules.scheme), read.optional("port", rules.port))
    settings = ConnectionSettings(
        conn_id=conn_id,
        base_url=read.needed("host", base_url),
        client_id=read.required("login", rules.credential),
        client_secret=read.required("password", rules.credential),
        auth_flow=read.needed("auth_flow", rules.auth_flow),
        timeout=read.needed("timeout", rules.number("timeout")),
        upload_timeout=read.needed("upload_timeout", rules.number("upload_timeout")),
        max_attempts=read.needed("max_attempts", rules.integer("max_attempts")),
        max_wait=read.needed("max_wait", rules.number("max_wait")),
        token_store=read.needed("token_store", rules.one_of(form.TOKEN_STORES)),
        workflow_id=read.optional("workflow_id", rules.text),
        verify=read.needed("verify", rules.verify),
        proxies=read.optional("proxies", rules.proxies) or (),
        records_path=read.needed("records_path", rules.path),
        pdf_report_path=read.optional("pdf_report_path", rules.pdf_report_path),
        addon_url=read.needed("addon_url", rules.base_url()),
        max_image_bytes=read.needed("max_image_bytes", rules.integer("max_image_bytes")),
        max_concurrency=read.needed("max_concurrency", rules.integer("max_concurrency")),
        max_requests_per_second=read.optional(
            "max_requests_per_second", rules.number("max_requests_per_second")
        ),
        webhook_token=read.optional("webhook_token", rules.webhook_token),
        webhook_token_previous=read.optional("webhook_token_previous", rules.webhook_token),
        webhook_hmac_secret=read.optional("webhook_hmac_secret", rules.credential),
        webhook_hmac_header=read.optional("webhook_hmac_header", rules.header_name),
        pii_hash_key=read.optional("pii_hash_key", rules.key),
    )
    _check_together(settings, read)
    read.refuse(conn_id)
    return settings


def _check_together(settings: ConnectionSettings, read: _Reading) -> None:
    _check_webhook(read)
    plain = (settings.client_id + settings.client_secret).isascii()
    if settings.auth_flow is AuthFlow.ACCESS_TOKEN_HEADERS and not plain:
        read.problem("auth_flow", "a Client ID or Secret that no HTTP header can carry", "another form")


def _check_webhook(read: _Reading) -> None:
    read.needs("webhook_hmac_secret", "webhook_hmac_header")
    read.needs("webhook_hmac_header", "webhook_hmac_secret")
    read.needs("webhook_token_previous", "webhook_token")


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """The part of a Connection that the webhook receiver needs. ``repr`` shows no secret.

    :param tokens: What may stand at the end of the webhook's path: the token, and perhaps the one before it.
    :param hmac_secret: Key of the signature over a webhook's body; ``None``: none is asked for.
    :param hmac_header: HTTP header that carries that signature.
    """

    tokens: tuple[str, ...] = field(repr=False)
    hmac_secret: str | None = field(repr=False)
    hmac_header: str | None


def webhook_settings(conn_id: str, conn: ConnectionFields) -> WebhookSettings | None:
    """Return what a Connection says of webhooks, or ``None`` if it wants none.

    The other fields are not looked at: a CA bundle, for one, need not exist where the API server runs.

    :raises ConfigurationError: with all that is wrong with the webhook's fields.
    """
    read = _Reading({"password": conn.password}, _decoded(conn.extra))
    token = read.optional("webhook_token", rules.webhook_token)
    previous = read.optional("webhook_token_previous", rules.webhook_token)
    secret = read.optional("webhook_hmac_secret", rules.credential)
    header = read.optional("webhook_hmac_header", rules.header_name)
    _check_webhook(read)
    read.refuse(conn_id)
    if token is None:
        return None
    return WebhookSettings((token, previous) if previous else (token,), secret, header)


def token_directory() -> Path:
    """Return the directory for token files, in Airflow's home as Airflow itself finds that."""
    from airflow.configuration import AIRFLOW_HOME

    return Path(AIRFLOW_HOME) / "faceki_tokens"


def _decoded(extra: object) -> object:
    """Return the object that an extra holds, or the extra itself where it holds none."""
    if not isinstance(extra, str):
        return extra
    if not extra.strip():
        return None
    try:
        return json.loads(extra)
    except (ValueError, RecursionError):
        return extra


class _Reading:
    """One look at one Connection: fetches values, applies rules, and gathers what is wrong."""

    def __init__(self, standard: Mapping[str, object], extra: object) -> None:
        self.problems: list[str] = []
        keys = extra if isinstance(extra, Mapping) else {}
        self._unknown = sorted(str(key) for key in keys if key not in form.EXTRA_FIELDS)
        self._values = {**standard, **{key: keys.get(key) for key in form.EXTRA_FIELDS}}
        if extra is not None and not isinstance(extra, Mapping):
            self.problem("extra", "something else", "a JSON object")

    def optional(self, key: str, rule: Callable[[object], T]) -> T | None:
        """Return what ``key`` means, or ``None`` when it is not set or wrong."""
        value = self._values[key]
        if _unset(value):
            return None
        try:
            return rule(value)
        except rules.Wrong as wrong:
            because = f" ({wrong.because})" if wrong.because else ""
            self.problem(key, f"{self._shown(key)}{because}", wrong.allowed)
            return None

    def needed(self, key: str, rule: Callable[[object], T]) -> T:
        """Return what ``key`` means, or what its default means when it is not set or wrong."""
        found = self.optional(key, rule)
        return rule(form.DEFAULTS[key]) if found is None else found

    def required(self, key: str, rule: Callable[[object], str]) -> str:
        """Return what ``key`` means; it has no default, so nothing is a problem too."""
        if _unset(self._values[key]):
            self.problem(key, "nothing", "what the FACEKI portal shows; it is required")
        return self.optional(key, rule) or ""

    def needs(self, key: str, other: str) -> None:
        """Say so if ``key`` is set without the ``other`` that it is useless without."""
        if not _unset(self._values[key]) and _unset(self._values[other]):
            self.problem(other, "nothing", f"a value, since {_name(key)} is set")

    def problem(self, key: str, found: str, allowed: str) -> None:
        """Note what is wrong with a field."""
        self.problems.append(f"{_name(key)}: found {found}; allowed is {allowed}")

    def refuse(self, conn_id: str) -> None:
        """Raise one error with all that was noted, if anything was."""
        if self.problems:
            lines = "".join(f"\n  {problem}" for problem in self.problems)
            raise ConfigurationError(
                f"This FACEKI Connection cannot be used as it is:{lines}\nNothing was sent.", conn_id=conn_id
            )

    def warn_of_unknown(self, conn_id: str) -> None:
        """Name the extra keys that mean nothing, once in a process."""
        told = (conn_id, tuple(self._unknown))
        if not self._unknown or told in _TOLD:
            return
        _TOLD.add(told)
        log.warning(
            "Connection %r: unknown keys in extra are ignored: %s",
            conn_id,
            ", ".join(self._with_hint(key) for key in self._unknown),
        )

    def _with_hint(self, key: str) -> str:
        near = difflib.get_close_matches(key, form.EXTRA_FIELDS, n=1)
        return f"{self._harmless(key)} (did you mean {near[0]}?)" if near else self._harmless(key)

    def _shown(self, key: str) -> str:
        value = self._values[key]
        if isinstance(value, str):
            hidden = key in _NEVER_SHOWN or any(mark in value for mark in "@?#")
            return f"text of {len(value)} characters" if hidden else self._harmless(value)
        if key in _NEVER_SHOWN or not isinstance(value, bool | int | float) or abs(value) >= 1e15:
            return f"a value of type {type(value).__name__}"
        return f"{self._harmless(value)} ({type(value).__name__})"

    def _harmless(self, value: object) -> str:
        """Show a value, unless somebody put a secret where it does not belong."""
        shown = repr(value)
        secrets = (self._values[key] for key in ("password", *form.SECRET_FIELDS))
        if any(isinstance(secret, str) and len(secret) > 3 and secret in str(value) for secret in secrets):
            return f"text of {len(str(value))} characters"
        return shown if len(shown) <= 80 else f"{shown[:80]}…"


#: What was already warned of, by connection id and keys.
_TOLD: set[tuple[str, tuple[str, ...]]] = set()
_NEVER_SHOWN = frozenset({"login", "password", "proxies", *form.SECRET_FIELDS})


def _unset(value: object) -> bool:
    return value is None or value == ""


def _name(key: str) -> str:
    if key in form.EXTRA_FIELDS:
        return f"{form.EXTRA_FIELDS[key].label} (extra {key!r})"
    label = form.STANDARD_FIELDS[key]["label"] if key in form.STANDARD_FIELDS else key.capitalize()
    return f"{label} (field {key!r})"
