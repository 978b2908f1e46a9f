# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The provider's metadata in each Airflow version."""

from __future__ import annotations

import importlib.util
import json
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import airflow as airflow_package
import jsonschema  # type: ignore[import-untyped]
import pytest

import airflow_provider_faceki
from airflow_provider_faceki.api.service import AuthFlow
from airflow_provider_faceki.connection import schema
from airflow_provider_faceki.get_provider_info import get_provider_info
from tests.airflow.running import AIRFLOW_VERSION
from tests.provider.command_line import CommandResults, airflow, python

pytestmark = pytest.mark.process

# Keys that the strict schema of Airflow's repository possibly requires in addition to the runtime metadata.
REPOSITORY_KEYS = {"state": "ready", "source-date-epoch": 0, "dependencies": []}


def info() -> dict[str, Any]:
    return get_provider_info()


def test_it_is_plain_data_and_new_each_time() -> None:
    assert json.loads(json.dumps(info())) == info()
    first: Any = info()
    first["connection-types"][0]["conn-fields"].clear()
    assert info() != first


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param("provider_info.schema.json", id="read when Airflow starts"),
        pytest.param("provider.yaml.schema.json", id="strict"),
    ],
)
def test_airflows_schemas_accept_it(schema: str) -> None:
    rules = json.loads((Path(airflow_package.__file__).parent / schema).read_text())
    more = {key: value for key, value in REPOSITORY_KEYS.items() if key in rules["required"]}
    told = info()
    if AIRFLOW_VERSION < (3, 2):  # this schema does not know commands of providers
        del told["cli"]
    found = jsonschema.Draft7Validator(rules).iter_errors({**told, **more})
    assert [error.message for error in found] == []


def test_it_agrees_with_the_package() -> None:
    assert info()["package-name"] == metadata("airflow-provider-faceki")["Name"]
    assert info()["versions"] == [airflow_provider_faceki.__version__]


def test_every_module_and_class_it_names_exists() -> None:
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for entry in info()[kind]:
            for module in entry["python-modules"]:
                importlib.import_module(module)
    classes = [entry["hook-class-name"] for entry in info()["connection-types"]] + info()["extra-links"]
    for name in classes:
        module, _, attribute = name.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), attribute), type), name


def test_it_agrees_with_the_hook() -> None:
    from airflow_provider_faceki.hooks.faceki import FacekiHook

    (entry,) = info()["connection-types"]
    assert entry["connection-type"] == FacekiHook.conn_type == "faceki"
    assert entry["hook-name"] == FacekiHook.hook_name == "FACEKI"
    assert FacekiHook.conn_name_attr == "faceki_conn_id"
    assert FacekiHook.default_conn_name == "faceki_default"
    assert entry["hook-class-name"] == f"{FacekiHook.__module__}.{FacekiHook.__qualname__}"


def test_reading_it_imports_next_to_nothing() -> None:
    code = """
# Airflow itself has imported these long before it asks.
import __future__, dataclasses, importlib, sys, typing, urllib.parse
before = set(sys.modules)
from airflow_provider_faceki.connection import schema
from airflow_provider_faceki.get_provider_info import get_provider_info
get_provider_info()
print(sorted(set(sys.modules) - before))
"""
    assert python(code).strip() == str(
        [
            "airflow_provider_faceki",
            "airflow_provider_faceki.api",
            "airflow_provider_faceki.api.service",
            "airflow_provider_faceki.connection",
            "airflow_provider_faceki.connection.form",
            "airflow_provider_faceki.connection.schema",
            "airflow_provider_faceki.get_provider_info",
        ]
    )


def test_options_have_what_airflow_asks_of_them() -> None:
    from airflow.providers.common.compat.sdk import conf

    options = info()["config"]["faceki"]["options"]
    for name, option in options.items():
        assert option.keys() == {"description", "version_added", "type", "example", "default"}, name
    from airflow.providers_manager import ProvidersManager

    # Airflow 2 needs this call, because it reads the options of providers on demand. Airflow 3 reads them at startup.
    ProvidersManager().initialize_providers_configuration()
    assert conf.getboolean("faceki", "webhook_enabled") is False


IN_FORM = [name for name, spec in schema.EXTRA_FIELDS.items() if spec.in_form]


@pytest.mark.parametrize("key", IN_FORM)
def test_fields_of_the_form(key: str) -> None:
    field = info()["connection-types"][0]["conn-fields"][key]
    kinds = field["schema"]["type"]
    assert "null" in kinds, "a field without null is a required one"
    assert "default" not in field["schema"], "a default is stored when the form is saved"
    assert len(field["label"]) < 30
    assert field["description"].endswith(".")
    secret = key in {"webhook_token", "webhook_token_previous", "webhook_hmac_secret", "pii_hash_secret"}
    assert (field["schema"].get("format") == "password") is secret
    if (default := schema.EXTRA_FIELDS[key].default) is not None:
        assert f"Default: {str(default).replace('True', 'true')}." in field["description"]


def test_labels_are_distinct() -> None:
    labels = [spec.label for spec in schema.SPECS.values()]
    assert len(set(labels)) == len(labels)


def test_the_form_offers_the_flows_there_are() -> None:
    assert schema.EXTRA_FIELDS["auth_flow"].choices == tuple(AuthFlow)


@pytest.fixture(scope="module")
def listed(airflow_db: Path) -> CommandResults:
    return airflow(
        ["providers", "get", "airflow-provider-faceki", "--full", "-o", "json"],
        ["providers", "hooks", "-o", "json"],
        ["providers", "behaviours", "-o", "json"],
        ["providers", "widgets", "-o", "json"],
        ["providers", "links", "-o", "json"],
        ["providers", "triggers", "-o", "json"],
    )


def test_airflows_command_line_lists_it(listed: CommandResults) -> None:
    assert listed.statuses == [0] * 6
    whole, hooks, behaviours, widgets, links, triggers = listed.outputs
    assert "airflow-provider-faceki" in whole
    (hook,) = [row for row in json.loads(hooks) if row["connection_type"] == "faceki"]
    assert hook["class"] == schema.HOOK_CLASS
    assert hook["hook_name"] == "FACEKI"
    # Airflow 3.0 and 3.1 read the behaviours and the widgets from the hook only if the form libraries are installed.
    # The API server of these versions uses stand-ins for the libraries.
    if AIRFLOW_VERSION not in ((3, 0), (3, 1)) or importlib.util.find_spec("wtforms"):
        assert {"field_behaviours": "faceki"} in json.loads(behaviours)
        assert widgets.count("extra__faceki__") == len(IN_FORM)
    for name in ("FacekiHostedPageLink", "FacekiRecordLink", "FacekiOutputLink"):
        assert name in links
    assert "airflow_provider_faceki.triggers.faceki" in triggers


def test_airflow_logs_no_warning_about_the_provider(listed: CommandResults) -> None:
    assert [text for text in listed.complaints if "faceki" in text.lower()] == []
