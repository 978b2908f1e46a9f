# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Declare the fields of a FACEKI Connection.

Each field is declared only here, in ``ConnectionSettings``. The form of every Airflow version, the checks and the table
in ``docs/connection.md`` are generated from these declarations.

Airflow 3.2 and later read the form in every process while ``import airflow`` runs. Therefore this module imports only
the standard library and ``api/service.py``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from airflow_provider_faceki.api.service import (
    FACEKI,
    FILTER_PLACEHOLDERS,
    NULL_RESULTS,
    OTHER_RECORDS_PATH,
    AuthFlow,
    Service,
)

CONN_TYPE = "faceki"
CONN_NAME_ATTR = "faceki_conn_id"
DEFAULT_CONN_ID = "faceki_default"
HOOK_NAME = "FACEKI"
HOOK_CLASS = "airflow_provider_faceki.hooks.faceki.FacekiHook"

#: Names of token stores: ``file`` is shared by all processes of one machine, ``memory`` belongs to one process. Any
#: other value of the field ``token_store`` is the location of a token store that several machines share.
TOKEN_STORES = ("file", "memory")

#: Minimum length in characters of a webhook token and of a hash secret. 32 random base64 characters contain 192 bits,
#: which cannot be guessed.
MIN_KEY_LENGTH = 32

#: Default maximum number of stored webhooks in 24 hours. There is a limit, because each stored webhook starts a DAG
#: run. The limit stops an attack with a leaked token. A large batch can also reach the limit, if each row of the batch
#: causes one webhook.
DEFAULT_WEBHOOKS_PER_DAY = 10_000


class FieldSpec(NamedTuple):
    """Declaration of one Connection field for the form, the checks and the documentation.

    :param kind: Kind of the value: the name of the function in ``field_checks.py`` that checks the value.
    :param label: Label of the field in the form.
    :param help: Help text in the form. It must not contain the default or the limits, because the form adds them.
    :param default: Value that is used if the field is not set. ``None`` means that there is no default.
    :param limits: Smallest and largest allowed number.
    :param choices: The allowed values.
    :param secret: Whether the value is masked in the form, in errors and in logs.
    :param column: Standard field of the Connection that stores the value. ``None`` means that the value is stored in
        the Connection's extra.
    :param placeholder: Its meaning depends on the field:

        - A standard field of the Connection: text that the form shows while the field is empty.
        - A field of the kind ``record_filter``: name in braces, such as ``{link}``. If the field contains a path, this
          name stands in the path, and each request replaces it by an id.
    :param required: Whether the field must be set. A required field has no default.
    :param in_form: Whether the form has its own input for this field. If it has no input, the user writes the value
        under *Extra Fields JSON*.
    """

    kind: str
    label: str
    help: str
    default: str | int | bool | None = None
    limits: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False
    column: str | None = None
    placeholder: str = ""
    required: bool = False
    in_form: bool = True


#: Value of the field ``auth_scheme`` if the HTTP header contains the token without a scheme such as ``Bearer``. An
#: empty text cannot be used for this purpose, because an empty text means that the field is not set.
NO_AUTH_SCHEME = "none"


def _field(kind: str, label: str, help_text: str, **more: Any) -> Any:
    """Declare one Connection field. The return type is ``Any``, because the fields have different types."""
    spec = FieldSpec(kind, label, help_text, **more)
    hidden = spec.secret or kind == "proxies"  # a proxy URL can contain a password
    return dataclasses.field(repr=not hidden, metadata={"spec": spec})


def _filter(name: str, label: str) -> Any:
    return _field(
        "record_filter",
        f"Filter by {label}",
        f"Name of the query parameter that filters records by {label}. A path with "
        f"{FILTER_PLACEHOLDERS[name]}, such as /records/{FILTER_PLACEHOLDERS[name]}, is accepted too.",
        default=getattr(FACEKI, f"{name}_filter"),
        placeholder=FILTER_PLACEHOLDERS[name],
        in_form=False,
    )


@dataclass(frozen=True)
class ConnectionSettings:
    """The checked settings of a FACEKI Connection. ``repr`` shows no secret.

    The fields have the order of the form. The fields that most users set come first.
    """

    conn_id: str
    client_id: str = _field(
        "credential",
        "Client ID",
        "As FACEKI shows it, without white space around it.",
        column="login",
        placeholder="from the FACEKI portal: Integrations, Client ID",
        required=True,
    )
    client_secret: str = _field(
        "credential",
        "Client Secret",
        "As FACEKI shows it. No log and no error contains it.",
        column="password",
        placeholder="shown beside the Client ID",
        required=True,
        secret=True,
    )
    base_url: str = _field(
        "base_url",
        "API base URL",
        "If the URL has no scheme, the Connection's field schema is used, or https if schema is empty. A path is "
        "allowed. http is allowed only for localhost, 127.x.x.x and [::1].",
        default=FACEKI.base_url,
        column="host",
        placeholder=f"{FACEKI.base_url} (default)",
    )
    workflow_id: str | None = _field(
        "text", "Default workflow", "Workflow id from the FACEKI portal, for tasks that name no workflow."
    )
    auth_flow: AuthFlow = _field(  # noqa: RUF009 - it declares a field, like dataclasses.field
        "auth_flow",
        "Token request",
        "How a token is requested. Set another value only if the test of this Connection says that FACEKI does not "
        "know this form of the request.",
        default=AuthFlow.GENERATE_TOKEN.value,
        choices=tuple(flow.value for flow in AuthFlow),
    )
    timeout: float = _field(
        "number",
        "Timeout (s)",
        "Seconds for each phase of a call: sending the request, waiting for the headers of the answer, reading the "
        "body of the answer. Connecting takes at most 10 seconds.",
        default=30,
        limits=(0.1, 600),
    )
    upload_timeout: float = _field(
        "number",
        "Upload timeout (s)",
        "Seconds for each phase of a call that sends images. If the request is not sent completely in this time, the "
        "attempt ends. Waiting for the answer can take the same time again.",
        default=120,
        limits=(0.1, 3600),
    )
    max_attempts: int = _field(
        "integer",
        "Attempts",
        "Maximum number of times that a request is sent, including the first time. If FACEKI possibly received a "
        "charged call, the call is not repeated.",
        default=4,
        limits=(1, 20),
    )
    max_wait: float = _field(
        "number",
        "Longest wait (s)",
        "Longest pause in seconds between two attempts. It also limits the pause that FACEKI requests by Retry-After.",
        default=30,
        limits=(0.1, 3600),
    )
    token_store: str = _field(
        "token_store",
        "Token store",
        "Where the access token is stored. With file, all tasks of this machine share one token in an encrypted file. "
        "With memory, each process has its own token. With the URI of a folder, such as s3://aws_default@bucket/tokens,"
        " or the absolute path of a directory on a shared volume, all machines share one encrypted token there.",
        default=TOKEN_STORES[0],
    )
    verify: bool | str = _field(
        "verify",
        "Verify TLS / CA bundle",
        "Whether the server's certificate is checked: true, false, or the path of a CA bundle file or directory on the "
        "machines that run tasks.",
        default=True,
    )
    proxies: tuple[tuple[str, str], ...] | None = _field(
        "proxies",
        "Proxies",
        'A JSON object such as {"http": "http://proxy:3128", "https": "http://proxy:3128"}, or {} for no proxy. If it '
        "is not set, HTTP_PROXY, HTTPS_PROXY and NO_PROXY of the environment apply.",
    )
    max_image_bytes: int = _field(
        "integer",
        "Largest image (bytes)",
        "Larger images are refused before anything is sent.",
        default=10 * 1024 * 1024,
        limits=(1, 1024 * 1024 * 1024),
    )
    max_concurrency: int = _field(
        "integer",
        "Calls at a time",
        "Maximum number of requests at the same time in one process.",
        default=32,
        limits=(1, 256),
    )
    max_requests_per_second: float | None = _field(
        "number",
        "Calls per second",
        "Maximum number of requests that one process begins per second. Fractions are allowed. FACEKI publishes no "
        "limit, but it charges extra for high volumes. If it is not set, there is no limit.",
        limits=(0.001, 10_000),
    )
    max_charged_calls: int | None = _field(
        "integer",
        "Charged calls per try",
        "Maximum number of charged calls in one try of a task. A call above the limit is not sent, and the task fails. "
        "To continue, raise the limit and clear the task. A batch then sends the rows that were not sent. If it is not "
        "set, there is no limit.",
        limits=(1, 100_000_000),
    )
    webhook_token: str | None = _field(
        "webhook_token",
        "Webhook token",
        f"{MIN_KEY_LENGTH} or more random characters: letters, digits and - . _ ~. The token is the end of the "
        "webhook's URL in FACEKI's portal, https://YOUR_AIRFLOW/faceki/webhook/CONNECTION_ID/TOKEN. If it is not set, "
        "every webhook is refused.",
        secret=True,
    )
    webhook_token_previous: str | None = _field(
        "webhook_token",
        "Webhook token, previous",
        "The old webhook token. It is still accepted while you change the webhook token. It needs the webhook token.",
        secret=True,
    )
    webhook_hmac_secret: str | None = _field(
        "key",
        "Webhook HMAC secret",
        f"{MIN_KEY_LENGTH} or more random characters. Set this secret and the webhook HMAC header only if your own "
        "proxy signs the body with HMAC-SHA256. FACEKI does not sign the body.",
        secret=True,
    )
    webhook_hmac_header: str | None = _field(
        "header_name", "Webhook HMAC header", "Name of the HTTP header that contains your proxy's signature."
    )
    pii_hash_secret: str | None = _field(
        "key",
        "Hash secret for personal data",
        f"{MIN_KEY_LENGTH} or more random characters. It is the HMAC-SHA256 key for the hashed columns of a batch's "
        "tables. Nothing else needs it.",
        secret=True,
    )
    records_path: str = _field(
        "records_path",
        "Records path",
        f"Path for fetching records. FACEKI's documentation also names {OTHER_RECORDS_PATH}.",
        default=FACEKI.records_path,
    )
    pdf_report_path: str | None = _field(
        "pdf_report_path",
        "PDF report path",
        "Path of the PDF report, with {requestId} in the place of the request id, such as /reports/{requestId}. Only "
        "PDF reports need it. The upload timeout applies to them. FACEKI does not publish the path, so ask FACEKI.",
    )
    addon_url: str = _field(
        "base_url",
        "Image check URL",
        "Base URL of the image check. The token is never sent there.",
        default=FACEKI.addon_url,
    )
    # The fields below are not in the form, because they would make the common fields hard to find. Most of them correct
    # an assumption about FACEKI. A user sets such a field only if the assumption is wrong. If `airflow faceki check`
    # finds that an assumption is wrong, its output contains the JSON for the Connection's extra.
    auth_header: str = _field(
        "header_name",
        "Token header",
        "Name of the HTTP header that contains the access token.",
        default=FACEKI.auth_header,
        in_form=False,
    )
    auth_scheme: str = _field(
        "auth_scheme",
        "Token scheme",
        "Word before the access token in the HTTP header. "
        f"With the value {NO_AUTH_SCHEME}, the header contains only the token.",
        default=FACEKI.auth_scheme,
        in_form=False,
    )
    request_id_filter: str = _filter("request_id", "FACEKI's request id")
    link_filter: str = _filter("link", "link id")
    record_identifier_filter: str = _filter("record_identifier", "your own identifier")
    face_id_filter: str = _filter("face_id", "FACEKI's id of a person")
    null_result: str = _field(
        "choice",
        "Null in place of records",
        "Meaning of an answer with null in the place of records. With error, the meaning is unknown, so the task fails "
        "and sends no charged call. With no_record, null means that there is no record.",
        default=FACEKI.null_result,
        choices=NULL_RESULTS,
        in_form=False,
    )
    pdf_report_method: str = _field(
        "choice",
        "PDF report method",
        "HTTP method of the PDF report. POST also sends the request id as JSON.",
        default=FACEKI.pdf_report_method,
        choices=("GET", "POST"),
        in_form=False,
    )
    portal_record_url: str | None = _field(
        "portal_url",
        "Record page",
        "URL of a record's page in FACEKI's portal, with {requestId} in the place of the request id, such as "
        "https://portal.example/records/{requestId}. Tasks then show a link to the page. FACEKI does not publish it.",
        in_form=False,
    )
    webhook_hmac_timestamp_header: str | None = _field(
        "header_name",
        "Webhook HMAC timestamp header",
        "Name of the HTTP header with the time of the signature, in seconds since 1970. It needs the webhook HMAC "
        "secret and the webhook HMAC header. If it is set, your proxy "
        "must sign the time, a dot and the body, joined in this order. A signature older than five minutes is refused.",
        in_form=False,
    )
    webhook_statuses: tuple[str, ...] | None = _field(
        "words",
        "Webhook statuses",
        "List of statuses, or text with commas between them. Only webhooks with a status in this list are stored. If "
        "it is not set, all webhooks are stored.",
        choices=("ACCEPTED", "DECLINED", "REVIEW", "OTHER"),
        in_form=False,
    )
    webhook_max_per_day: int = _field(
        "integer",
        "Webhooks per day",
        "Maximum number of webhooks that are stored in 24 hours. Each of them starts a DAG run. Further webhooks are "
        "answered with HTTP 429.",
        default=DEFAULT_WEBHOOKS_PER_DAY,
        limits=(1, 10_000_000),
        in_form=False,
    )
    webhook_request_id_field: str = _field(
        "json_name",
        "Webhook request id",
        "Name of the webhook's field with the request id. requestId and request_id are always accepted too.",
        default=FACEKI.webhook_request_id_field,
        in_form=False,
    )
    webhook_status_field: str = _field(
        "json_name",
        "Webhook status",
        "Name of the webhook's field with the decision. status and decision are always accepted too.",
        default=FACEKI.webhook_status_field,
        in_form=False,
    )

    @property
    def service(self) -> Service:
        """The addresses, field names and request forms of the FACEKI service that the Connection describes."""
        return Service(**{each.name: getattr(self, each.name) for each in dataclasses.fields(Service)})

    def record_url(self, request_id: str | None) -> str | None:
        """Return the address of a record's page in FACEKI's portal. If the address is not known, return ``None``."""
        if not request_id or self.portal_record_url is None:
            return None
        return self.portal_record_url.replace("{requestId}", quote(request_id, safe=""))

    @property
    def secrets(self) -> tuple[str, ...]:
        """All secrets of this Connection, including proxy passwords. Logs must mask them."""
        passwords = [urlsplit(url).password or "" for _, url in self.proxies or ()]
        found = [getattr(self, name) for name, spec in SPECS.items() if spec.secret]
        found += [*passwords, *map(unquote, passwords)]
        return tuple(dict.fromkeys(secret for secret in found if secret))


#: The declarations of all Connection fields, by attribute name of ``ConnectionSettings``.
SPECS: dict[str, FieldSpec] = {
    each.name: each.metadata["spec"]
    for each in dataclasses.fields(ConnectionSettings)
    if "spec" in each.metadata
}
#: ``STANDARD_FIELDS`` contains the fields that are stored in a standard column of the Connection, by column name.
#: ``EXTRA_FIELDS`` contains the fields that are stored in the Connection's extra, by key.
STANDARD_FIELDS = {spec.column: spec for spec in SPECS.values() if spec.column}
EXTRA_FIELDS = {name: spec for name, spec in SPECS.items() if not spec.column}
#: Standard fields of a Connection whose values are used only if the base URL has no scheme or no port. Before Airflow
#: 3.2, the form hides ``schema`` and ``port``. From 3.2 on, it hides only ``schema``.
HIDDEN_FIELDS = ("schema", "port")
