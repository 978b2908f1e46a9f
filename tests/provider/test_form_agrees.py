# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The form has the defaults of the API package without importing the package. It also works in Airflow 3.1."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.api.uploads import MAX_IMAGE_BYTES
from airflow_provider_faceki.connection import form, schema
from tests.airflow.running import AIRFLOW_VERSION
from tests.provider.command_line import python

pytestmark = pytest.mark.process


def test_form_and_api_have_the_same_defaults() -> None:
    service, transport, retry = api.Service(), api.TransportSettings(), api.RetryPolicy()
    defaults = {
        **{
            each.name: getattr(service, each.name)
            for each in fields(service)
            if each.name != "pdf_report_path"
        },
        "auth_flow": api.AuthFlow.GENERATE_TOKEN.value,
        "timeout": transport.timeout,
        "upload_timeout": transport.upload_timeout,
        "verify": transport.verify,
        "max_concurrency": transport.max_concurrency,
        "max_attempts": retry.max_attempts,
        "max_wait": retry.max_wait,
        "max_image_bytes": MAX_IMAGE_BYTES,
        "token_store": schema.TOKEN_STORES[0],
        "webhook_max_per_day": schema.DEFAULT_WEBHOOKS_PER_DAY,
    }
    assert defaults == {name: spec.default for name, spec in schema.SPECS.items() if spec.default is not None}
    assert schema.EXTRA_FIELDS["auth_flow"].choices == tuple(api.AuthFlow)


# The API server of Airflow 3.1 has none of the form libraries. While it calls the hooks, it replaces the libraries by
# stand-ins. Airflow 3.3 still contains that code, but no longer calls this hook from it. This script makes that call.
STAND_INS = """
import json
from dataclasses import fields
from types import SimpleNamespace
from airflow.api_fastapi.core_api.services.ui import connections
from airflow.providers_manager import ConnectionFormWidgetInfo
from airflow_provider_faceki.hooks.faceki import FacekiHook

def asked():
    widgets = {
        f"extra__faceki__{name}": ConnectionFormWidgetInfo("", "", field, name, False)
        for name, field in FacekiHook.get_connection_form_widgets().items()
    }
    return SimpleNamespace(
        hooks={}, connection_form_widgets=widgets, field_behaviours=FacekiHook.get_ui_field_behaviour()
    )

connections.ProvidersManager = asked
service = connections.HookMetaService
_, widgets, behaviour = service._get_hooks_with_mocked_fab()
fields = service._convert_extra_fields(widgets)["faceki"]
standard = service._make_standard_fields(behaviour)
print(json.dumps({"fields": fields, "standard": standard.model_dump()}))
"""


@pytest.mark.skipif(
    AIRFLOW_VERSION < (3, 3), reason="an older Airflow asks the hook by itself, in test_form.py"
)
def test_the_form_works_without_its_libraries() -> None:
    found: Any = json.loads(python(STAND_INS).splitlines()[-1])
    assert list(found["fields"]) == [name for name, spec in schema.EXTRA_FIELDS.items() if spec.in_form]
    for key, field in found["fields"].items():
        spec, shown = schema.EXTRA_FIELDS[key], field["schema"]
        assert (shown["title"], field["description"]) == (spec.label, form.description(spec))
        assert shown.get("enum") == (list(spec.choices) or None)
        assert (shown.get("format") == "password") is spec.secret
        assert "null" in shown["type"]
    assert {name for name, field in found["standard"].items() if field and field["hidden"]} == {
        "port",
        "url_schema",
    }
    assert found["standard"]["login"]["title"] == "Client ID"
