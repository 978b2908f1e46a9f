# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Create Airflow's form for a FACEKI Connection, for each Airflow version, from the fields in ``schema.py``.

Airflow 3.2 and later read the form as data through ``get_provider_info`` while Airflow itself is being imported.
Therefore this module must load fast and imports only light modules. Airflow 2.11 to 3.1 call the hook, and the hook
calls ``form_widgets`` and ``hook_field_behaviour``.
"""

# The libraries for web forms, WTForms and Flask-AppBuilder, are installed with Airflow 2.11 only. With a later Airflow,
# mypy does not find these libraries, so mypy's errors about missing libraries are disabled.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

from typing import Any

from airflow_provider_faceki.connection.schema import EXTRA_FIELDS, HIDDEN_FIELDS, STANDARD_FIELDS, FieldSpec

#: Label and placeholder of the port field, which Airflow 3.2 and later show. The placeholder recommends port 0, because
#: of a bug in Airflow 3.3.1 and 3.3.2. If the field is empty, the Test button sends port 0, but the stored Connection
#: has no port. Airflow compares the two ports and refuses the test, because they differ
#: (https://github.com/apache/airflow/pull/73298). If the user types 0 and saves the Connection, both ports are 0, and
#: the test works.
_PORT = {
    "label": "Port",
    "placeholder": "443 (default); type 0 if the Test button says Bad Request",
}
_JSON_TYPES = {"number": "number", "integer": "integer", "proxies": "object"}


def conn_fields() -> dict[str, dict[str, object]]:
    """Return the label, help text and JSON schema of each extra field that the Connection form shows.

    The result has the format that Airflow 3.2 and later read from the provider info.
    """
    return {
        name: {"label": spec.label, "description": description(spec), "schema": _json_schema(spec)}
        for name, spec in _shown().items()
    }


def ui_field_behaviour() -> dict[str, object]:
    """Return the labels and placeholders of the standard fields, in the format of Airflow's provider info."""
    return {
        "hidden-fields": [name for name in HIDDEN_FIELDS if name != "port"],
        "relabeling": {column: spec.label for column, spec in STANDARD_FIELDS.items()}
        | {"port": _PORT["label"]},
        "placeholders": {column: spec.placeholder for column, spec in STANDARD_FIELDS.items()}
        | {"port": _PORT["placeholder"]},
    }


def hook_field_behaviour() -> dict[str, object]:
    """Return the labels and placeholders of the standard fields, in the format that Airflow 2.11 to 3.1 require."""
    behaviour = {key.replace("-", "_"): value for key, value in ui_field_behaviour().items()}
    return behaviour | {"hidden_fields": list(HIDDEN_FIELDS)}


def description(spec: FieldSpec) -> str:
    """Return the help text of a field, followed by its default and its limits."""
    parts = [spec.help]
    if spec.default is not None:
        parts.append(f"Default: {stored_form(spec.default)}.")
    if spec.limits:
        parts.append(f"From {spec.limits[0]} to {spec.limits[1]}.")
    return " ".join(parts)


def stored_form(value: object) -> str:
    """Return a value as the text that a user types into Airflow's Connection form.

    For example, the text for ``True`` is ``true``.
    """
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown() -> dict[str, FieldSpec]:
    return {name: spec for name, spec in EXTRA_FIELDS.items() if spec.in_form}


def _json_schema(spec: FieldSpec) -> dict[str, object]:
    # The JSON schema contains no "default", because Airflow's form would store the default in each saved Connection. A
    # later change of the default would then have no effect. Every type includes "null", because Airflow's form treats a
    # field without "null" as required.
    schema: dict[str, object] = {"type": [_JSON_TYPES.get(spec.kind, "string"), "null"]}
    if spec.limits:
        schema |= {"minimum": spec.limits[0], "maximum": spec.limits[1]}
    if spec.choices:
        schema["enum"] = list(spec.choices)
    if spec.secret:
        schema["format"] = "password"
    return schema


def form_widgets() -> dict[str, Any]:
    """Return one form widget for each extra field that the Connection form shows. Airflow 2.11 to 3.1 use the widgets.

    Call this function only from ``get_connection_form_widgets``. Airflow 3.1 does not install the libraries for web
    forms. Airflow 3.1 provides replacements for these libraries only while ``get_connection_form_widgets`` runs.
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
    """Return a text widget that shows objects and booleans as JSON, because the original widget shows Python syntax."""

    def show(field: Any, **attributes: Any) -> Any:
        if isinstance(field.data, dict | bool):
            import json

            field.data = json.dumps(field.data)
        return widget(field, **attributes)

    return show


def _keep_secret(widget: Any) -> Any:
    """Return a password widget that preserves a stored secret.

    With the original widget, Airflow would delete the secret when the form is saved.
    """

    def show(field: Any, **attributes: Any) -> Any:
        widget.hide_value = False
        # If `field.raw_data` is empty, the value in `field.data` does not come from the user, but is the stored secret.
        # The form then shows Airflow's placeholder for secrets in place of the secret. If Airflow receives this
        # placeholder when the form is saved, Airflow keeps the stored secret.
        if field.data and not field.raw_data:
            from airflow.www.views import SENSITIVE_FIELD_PLACEHOLDER

            attributes["value"] = SENSITIVE_FIELD_PLACEHOLDER
        return widget(field, **attributes)

    return show
