# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The provider's metadata, which Airflow reads without importing the hook or the operators.

While ``import airflow`` runs, Airflow 3.2 and later call the function :func:`get_provider_info` of this module, in
every process. An error in this module would prevent Airflow from starting. Therefore this module and the modules that
it imports use only the standard library while they are imported.
"""

from __future__ import annotations

from airflow_provider_faceki import __version__
from airflow_provider_faceki.connection import form, schema

_NAME = "FACEKI"


def get_provider_info() -> dict[str, object]:
    """Return the provider's metadata. Airflow finds this function by the entry point ``apache_airflow_provider``."""
    return {
        "package-name": "airflow-provider-faceki",
        "name": _NAME,
        "description": "Identity verification (eKYC) by `FACEKI <https://faceki.com/>`__.",
        "versions": [__version__],
        "integrations": [
            {"integration-name": _NAME, "external-doc-url": "https://docs.faceki.com/", "tags": ["service"]}
        ],
        "hooks": _modules("hooks"),
        "operators": _modules("operators", "faceki", "verification", "images", "reports", "branch", "batch"),
        "sensors": _modules("sensors"),
        "triggers": _modules("triggers"),
        "connection-types": [
            {
                "connection-type": schema.CONN_TYPE,
                "hook-class-name": schema.HOOK_CLASS,
                "hook-name": schema.HOOK_NAME,
                "ui-field-behaviour": form.ui_field_behaviour(),
                "conn-fields": form.conn_fields(),
            }
        ],
        "extra-links": [
            f"airflow_provider_faceki.links.faceki.Faceki{name}Link"
            for name in ("HostedPage", "Record", "Output")
        ],
        "plugins": [
            {
                "name": "faceki_webhook",
                "plugin-class": "airflow_provider_faceki.plugins.faceki.FacekiWebhookPlugin",
            }
        ],
        "cli": ["airflow_provider_faceki.check.get_faceki_commands"],
        "config": {"faceki": {"description": "Settings of the FACEKI provider.", "options": _options()}},
    }


def _modules(kind: str, *names: str) -> list[dict[str, object]]:
    modules = [f"airflow_provider_faceki.{kind}.{name}" for name in names or ("faceki",)]
    return [{"integration-name": _NAME, "python-modules": modules}]


def _options() -> dict[str, object]:
    return {
        "webhook_enabled": {
            "description": "Receive FACEKI's webhooks in the API server (Airflow 3), under /faceki/webhook.",
            "version_added": __version__,
            "type": "boolean",
            "example": None,
            "default": "False",
        }
    }
