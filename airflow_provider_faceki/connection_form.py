# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What does a FACEKI Connection look like: its names, its fields, their limits and their help texts.

The one description. Airflow 3.2 and later read it as data through ``get_provider_info`` while Airflow itself
is being imported, so this module imports nothing that costs. Airflow 2.11 to 3.1 ask the hook, which answers with
``form_widgets`` and ``hook_field_behaviour``. ``settings`` takes names, defaults and limits from here, so
that form and check cannot disagree.
"""

# The form's libraries are there with Airflow 2.11 only.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

from typing import Any

CONN_TYPE = "faceki"
CONN_NAME_ATTR = "faceki_conn_id"
DEFAULT_CONN_ID = "faceki_default"
HOOK_NAME = "FACEKI"
HOOK_CLASS = "airflow_provider_faceki.hooks.faceki.FacekiHook"

AUTH_FLOWS = ("generate_token", "access_token_body", "access_token_headers", "access_token_query")
TOKEN_STORES = ("file", "memory")

#: What a field that is not set means. A field that is missing here then stays without a value.
DEFAULTS: dict[str, str | int | bool] = {
    "host": "https://sdk.faceki.com",
    "auth_flow": "generate_token",
    "timeout": 30,
    "upload_timeout": 120,
    "max_attempts": 4,
    "max_wait": 30,
    "token_store": "file",
    "verify": True,
    "records_path": "/api/v3/kyc_verification",
    "addon_url": "https://addon.faceki.com",
    "max_image_bytes": 10 * 1024 * 1024,
    "max_concurrency": 32,
}

#: Least and greatest value of the fields that are numbers.
LIMITS: dict[str, tuple[float, float]] = {
    "timeout": (0.1, 600),
    "upload_timeout": (0.1, 3600),
    "max_attempts": (1, 20),
    "max_wait": (0.1, 3600),
    "max_image_bytes": (1, 1024 * 1024 * 1024),
    "max_concurrency": (1, 256),
    "max_requests_per_second": (0.001, 10_000),
}

#: The standard fields of a Connection that are used, by Airflow's name; the others are hidden.
STANDARD_FIELDS: dict[str, dict[str, str]] = {
    "login": {"label": "Client ID", "placeholder": "from the FACEKI portal: Integrations, Client ID"},
    "password": {"label": "Client Secret", "placeholder": "shown beside the Client ID"},
    "host": {"label": "API base URL", "placeholder": f"{DEFAULTS['host']} (default)"},
}
HIDDEN_FIELDS = ("schema", "port")


class ExtraField:
    """One field that is kept in the Connection's extra."""

    def __init__(self, label: str, description: str, schema: dict[str, object]) -> None:
        self.label = label
        self.description = description
        self.schema = schema


def _text(**more: object) -> dict[str, object]:
    return {"type": ["string", "null"], **more}


def _secret() -> dict[str, object]:
    return _text(format="password")


def _number(key: str) -> dict[str, object]:
    return {"type": ["number", "null"], "minimum": LIMITS[key][0], "maximum": LIMITS[key][1]}


def _integer(key: str) -> dict[str, object]:
    return {"type": ["integer", "null"], "minimum": LIMITS[key][0], "maximum": LIMITS[key][1]}


# No schema has a "default": Airflow's form stores defaults when it saves, which would freeze today's value in
# the Connection. Every type allows "null": Airflow's form takes a field without it for a required one.
#: The fields kept in the Connection's extra, by key, in the order in which the form shows them: first what most set.
EXTRA_FIELDS: dict[str, ExtraField] = {
    "workflow_id": ExtraField(
        "Default workflow",
        "Workflow id from the FACEKI portal, used where a task names none.",
        _text(),
    ),
    "auth_flow": ExtraField(
        "Token request",
        "How a token is asked for. Default: generate_token. Try another form only if the test of this "
        "Connection says that FACEKI does not know this one.",
        _text(enum=list(AUTH_FLOWS)),
    ),
    "timeout": ExtraField(
        "Timeout (s)",
        f"Seconds without a sign of life after which a call is given up. Default: {DEFAULTS['timeout']}. "
        "Connecting is given up after 10 seconds at the latest.",
        _number("timeout"),
    ),
    "upload_timeout": ExtraField(
        "Upload timeout (s)",
        f"The same for calls that send images. Default: {DEFAULTS['upload_timeout']}.",
        _number("upload_timeout"),
    ),
    "max_attempts": ExtraField(
        "Attempts",
        "How often a call that may be repeated is sent at most, the first time included. "
        f"Default: {DEFAULTS['max_attempts']}. Paid calls are never repeated once they may have left.",
        _integer("max_attempts"),
    ),
    "max_wait": ExtraField(
        "Longest wait (s)",
        f"Longest pause in seconds between two attempts. Default: {DEFAULTS['max_wait']}. "
        "A Retry-After of FACEKI is honoured up to this.",
        _number("max_wait"),
    ),
    "token_store": ExtraField(
        "Token store",
        "Where the access token is kept. file (default): encrypted, one for all tasks of this machine. "
        "memory: one for each process.",
        _text(enum=list(TOKEN_STORES)),
    ),
    "verify": ExtraField(
        "Verify TLS / CA bundle",
        "true (default), false, or the path of a CA bundle file or directory on the machines that run tasks.",
        _text(),
    ),
    "proxies": ExtraField(
        "Proxies",
        'A JSON object such as {"http": "http://proxy:3128", "https": "http://proxy:3128"}. When not set, '
        "HTTP_PROXY, HTTPS_PROXY and NO_PROXY of the environment count.",
        {"type": ["object", "null"]},
    ),
    "records_path": ExtraField(
        "Records path",
        f"Path for fetching records. Default: {DEFAULTS['records_path']}. FACEKI's documentation also names "
        "/kycverify/api/kycverify/records.",
        _text(),
    ),
    "pdf_report_path": ExtraField(
        "PDF report path",
        "Path of the PDF report with {requestId} where the request id belongs. Needed for PDF reports only; "
        "FACEKI does not publish it, so ask there.",
        _text(),
    ),
    "addon_url": ExtraField(
        "Image check URL",
        f"Base URL of the image check. Default: {DEFAULTS['addon_url']}. The token is never sent there.",
        _text(),
    ),
    "max_image_bytes": ExtraField(
        "Largest image (bytes)",
        f"Larger ones are refused before anything is sent. Default: {DEFAULTS['max_image_bytes']} (10 MiB).",
        _integer("max_image_bytes"),
    ),
    "max_concurrency": ExtraField(
        "Calls at a time",
        f"Most calls under way at once in one process. Default: {DEFAULTS['max_concurrency']}.",
        _integer("max_concurrency"),
    ),
    "max_requests_per_second": ExtraField(
        "Calls per second",
        "Most calls begun per second in one process, fractions allowed. Default: no such limit, only that on "
        "calls at a time. FACEKI publishes no rate, but charges extra for high volumes.",
        _number("max_requests_per_second"),
    ),
    "webhook_token": ExtraField(
        "Webhook token",
        "32 or more letters, digits and - . _ ~, made at random: the end of the webhook's URL in FACEKI's portal, "
        "https://YOUR_AIRFLOW/faceki/webhook/CONNECTION_ID/TOKEN. When not set, no webhook is let in.",
        _secret(),
    ),
    "webhook_token_previous": ExtraField(
        "Webhook token, previous",
        "Still accepted beside the webhook token while that is being changed.",
        _secret(),
    ),
    "webhook_hmac_secret": ExtraField(
        "Webhook HMAC secret",
        "Set it, and the header, only if a proxy of yours signs the body with HMAC-SHA256; FACEKI does not.",
        _secret(),
    ),
    "webhook_hmac_header": ExtraField(
        "Webhook HMAC header",
        "Name of the HTTP header that carries that signature.",
        _text(),
    ),
    "pii_hash_key": ExtraField(
        "Hash key for personal data",
        "32 or more characters, made at random. Columns of a batch's tables that are to be hashed become "
        "HMAC-SHA256 under this key. Needed for nothing else.",
        _secret(),
    ),
}

#: Extra fields that nobody may see: masked in the form, in errors and in logs.
SECRET_FIELDS = frozenset(
    key for key, field in EXTRA_FIELDS.items() if field.schema.get("format") == "password"
)


def conn_fields() -> dict[str, dict[str, object]]:
    """Return the extra fields as Airflow 3.2 and later take them from provider info."""
    return {
        key: {"label": field.label, "description": field.description, "schema": dict(field.schema)}
        for key, field in EXTRA_FIELDS.items()
    }


def ui_field_behaviour() -> dict[str, object]:
    """Return what becomes of the standard fields, for provider info."""
    return {
        "hidden-fields": list(HIDDEN_FIELDS),
        "relabeling": {name: field["label"] for name, field in STANDARD_FIELDS.items()},
        "placeholders": {name: field["placeholder"] for name, field in STANDARD_FIELDS.items()},
    }


def hook_field_behaviour() -> dict[str, object]:
    """Return the same for the hook, which Airflow 2.11 to 3.1 ask: they spell the keys with underscores."""
    return {key.replace("-", "_"): value for key, value in ui_field_behaviour().items()}


def form_widgets() -> dict[str, Any]:
    """Return the extra fields as Airflow 2.11 to 3.1 ask the hook for them.

    Only for ``get_connection_form_widgets``: Airflow 3.1 has stand-ins in place of these libraries then.
    """
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import IntegerField, PasswordField, StringField
    from wtforms.validators import Optional, any_of

    widgets = {}
    for key, field in EXTRA_FIELDS.items():
        kind, widget, validators = StringField, _as_json(BS3TextFieldWidget()), [Optional()]
        if key in SECRET_FIELDS:
            kind, widget = PasswordField, _keeping(BS3PasswordFieldWidget())
        elif field.schema["type"] == ["integer", "null"]:
            kind = IntegerField
        elif "enum" in field.schema:
            validators.append(any_of(field.schema["enum"]))
        widgets[key] = kind(
            lazy_gettext(field.label), validators=validators, description=field.description, widget=widget
        )
    return widgets


def _as_json(widget: Any) -> Any:
    """Make a text widget show an object as JSON; alone it shows Python's way of writing one."""

    def shown(field: Any, **attributes: Any) -> Any:
        if isinstance(field.data, dict | bool):
            import json

            field.data = json.dumps(field.data)
        return widget(field, **attributes)

    return shown


def _keeping(widget: Any) -> Any:
    """Make a password widget keep the stored secret; alone it shows nothing, and nothing is what Airflow saves."""

    def shown(field: Any, **attributes: Any) -> Any:
        widget.hide_value = False
        if field.data and not field.raw_data:  # stored, not just typed
            from airflow.www.views import SENSITIVE_FIELD_PLACEHOLDER

            attributes["value"] = SENSITIVE_FIELD_PLACEHOLDER
        return widget(field, **attributes)

    return shown
