# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The Connection form of each Airflow version, made from the schema.

Airflow 3.2 and later read it as data through ``get_provider_info`` while Airflow itself is being imported, so this
module imports nothing that costs. Airflow 2.11 to 3.1 ask the hook, which answers with ``form_widgets`` and
``hook_field_behaviour``.
"""

# The form's libraries are there with Airflow 2.11 only.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

from typing import Any

from airflow_provider_faceki.connection.schema import (
    EXTRA_FIELDS,
    HIDDEN_FIELDS,
    STANDARD_FIELDS,
    FieldSpec,
    Kind,
)

#: Shown from Airflow 3.2 on. The Test button of Airflow 3.3.1 and 3.3.2 sends port 0 for none and then compares it with
#: the stored port, so a Connection without one cannot be tested there: https://github.com/apache/airflow/pull/73298
_PORT = {
    "label": "Port",
    "placeholder": "443 (default); type 0 if the Test button says Bad Request",
}
_JSON_TYPES: dict[Kind, str] = {"number": "number", "integer": "integer", "proxies": "object"}


def conn_fields() -> dict[str, dict[str, object]]:
    """Return the extra fields as Airflow 3.2 and later take them from provider info."""
    return {
        name: {"label": spec.label, "description": description(spec), "schema": _json_schema(spec)}
        for name, spec in _shown().items()
    }


def ui_field_behaviour() -> dict[str, object]:
    """Return labels and placeholders of the standard fields, for provider info."""
    return {
        "hidden-fields": [name for name in HIDDEN_FIELDS if name != "port"],
        "relabeling": {column: spec.label for column, spec in STANDARD_FIELDS.items()}
        | {"port": _PORT["label"]},
        "placeholders": {column: spec.placeholder for column, spec in STANDARD_FIELDS.items()}
        | {"port": _PORT["placeholder"]},
    }


def hook_field_behaviour() -> dict[str, object]:
    """Return the same for the hook, which Airflow 2.11 to 3.1 ask: they spell the keys with underscores."""
    behaviour = {key.replace("-", "_"): value for key, value in ui_field_behaviour().items()}
    return behaviour | {"hidden_fields": list(HIDDEN_FIELDS)}


def description(spec: FieldSpec) -> str:
    """Return a field's help text with its default and its limits."""
    parts = [spec.help]
    if spec.default is not None:
        parts.append(f"Default: {stored_form(spec.default)}.")
    if spec.limits:
        parts.append(f"From {spec.limits[0]} to {spec.limits[1]}.")
    return " ".join(parts)


def stored_form(value: object) -> str:
    """Return a value as it is typed into the form."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown() -> dict[str, FieldSpec]:
    return {name: spec for name, spec in EXTRA_FIELDS.items() if spec.in_form}


def _json_schema(spec: FieldSpec) -> dict[str, object]:
    # No "default": Airflow's form stores defaults when it saves, which would freeze today's value in the Connection.
    # Every type allows "null": Airflow's form takes a field without it for a required one.
    schema: dict[str, object] = {"type": [_JSON_TYPES.get(spec.kind, "string"), "null"]}
    if spec.limits:
        schema |= {"minimum": spec.limits[0], "maximum": spec.limits[1]}
    if spec.choices:
        schema["enum"] = list(spec.choices)
    if spec.secret:
        schema["format"] = "password"
    return schema


def form_widgets() -> dict[str, Any]:
    """Return the extra fields as Airflow 2.11 to 3.1 ask the hook for them.

    Only for ``get_connection_form_widgets``: Airflow 3.1 has stand-ins in place of these libraries then.
    """
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import IntegerField, PasswordField, StringField
    from wtforms.validators import Optional, any_of

    widgets = {}
    for name, spec in _shown().items():
        kind, widget, validators = StringField, _as_json(BS3TextFieldWidget()), [Optional()]
        if spec.secret:
            kind, widget = PasswordField, _keep_secret(BS3PasswordFieldWidget())
        elif spec.kind == "integer":
            kind = IntegerField
        elif spec.choices:
            validators.append(any_of(list(spec.choices)))
        widgets[name] = kind(
            lazy_gettext(spec.label), validators=validators, description=description(spec), widget=widget
        )
    return widgets


def _as_json(widget: Any) -> Any:
    """Make a text widget show an object as JSON; alone it shows Python's way of writing one."""

    def show(field: Any, **attributes: Any) -> Any:
        if isinstance(field.data, dict | bool):
            import json

            field.data = json.dumps(field.data)
        return widget(field, **attributes)

    return show


def _keep_secret(widget: Any) -> Any:
    """Make a password widget keep the stored secret; alone it shows nothing, and nothing is what Airflow saves."""

    def show(field: Any, **attributes: Any) -> Any:
        widget.hide_value = False
        if field.data and not field.raw_data:  # stored, not just typed
            from airflow.www.views import SENSITIVE_FIELD_PLACEHOLDER

            attributes["value"] = SENSITIVE_FIELD_PLACEHOLDER
        return widget(field, **attributes)

    return show
