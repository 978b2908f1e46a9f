# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The plugin has no effect in any process except the API server. Each case has a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.airflow.running import AIRFLOW_3

pytestmark = pytest.mark.process

only_3 = pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 has no API server to mount anything in")

HEAVY = ("fastapi", "starlette", "uvicorn", "requests", "urllib3", "tenacity", "cryptography")

API_SERVER = "airflow.api_fastapi.app"
OTHER_PROCESS = "airflow.plugins_manager"

# Each process is forked, because importing Airflow again would take longer than the rest.
LOADED = """
import importlib, json, multiprocessing, os, sys, tempfile
import airflow.providers.common.compat.sdk
from airflow import plugins_manager

def loaded(enabled):
    os.environ["AIRFLOW__FACEKI__WEBHOOK_ENABLED"] = enabled
    output = tempfile.TemporaryFile("w+")
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    before = set(sys.modules)
    from airflow_provider_faceki.plugins.faceki import FacekiWebhookPlugin
    new = sorted({name.partition(".")[0] for name in set(sys.modules) - before})
    plugins_manager.ensure_plugins_loaded()  # as any Airflow process does
    plugin = FacekiWebhookPlugin()
    apps = [[each["url_prefix"], type(each["app"]).__name__] for each in plugin.fastapi_apps]
    again = plugin.fastapi_apps == FacekiWebhookPlugin.fastapi_apps
    webhook = sorted(name for name in sys.modules if name.startswith("airflow_provider_faceki.webhook"))
    (source,) = [str(each["source"]) for each in plugins_manager.get_plugin_info() if each["name"] == plugin.name]
    sys.stdout.flush()
    output.seek(0)
    return {"apps": apps, "again": again, "new": new, "webhook": webhook, "source": source, "said": output.read()}

found = []
for module, enabled in json.loads(sys.argv[1]):
    importlib.import_module(module)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found.append(pool.apply(loaded, [enabled]))
print(json.dumps(found))
"""
Loaded = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """The plugin in a process that loaded all plugins, for each imported module and each value of `webhook_enabled`."""
    cases = [(OTHER_PROCESS, "False"), (OTHER_PROCESS, "True")]
    if AIRFLOW_3:
        cases += [(API_SERVER, "False"), (API_SERVER, "True"), (API_SERVER, "perhaps")]
    no_plugins = str(tmp_path_factory.mktemp("plugins"))
    done = subprocess.run(
        [sys.executable, "-c", LOADED, json.dumps(cases)],
        env={**os.environ, "AIRFLOW__CORE__PLUGINS_FOLDER": no_plugins},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(cases, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize(
    ("module", "enabled"),
    [
        pytest.param(OTHER_PROCESS, "False", id="off"),
        pytest.param(OTHER_PROCESS, "True", id="on, but not the API server"),
        pytest.param(API_SERVER, "False", id="off, in the API server", marks=only_3),
    ],
)
def test_a_disabled_plugin_loads_nothing(loaded: Loaded, module: str, enabled: str) -> None:
    found = loaded[module, enabled]
    assert found["apps"] == found["webhook"] == []
    assert set(found["new"]) & set(HEAVY) == set()
    assert "aceki" not in found["said"]


@only_3
def test_mounted_in_the_api_server(loaded: Loaded) -> None:
    found = loaded[API_SERVER, "True"]
    assert found["apps"] == [["/faceki", "FastAPI"]]
    assert found["again"] is True
    assert "Traceback" not in found["said"]


@only_3
def test_an_invalid_webhook_enabled_value_disables_the_plugin(loaded: Loaded) -> None:
    found = loaded[API_SERVER, "perhaps"]
    assert found["apps"] == []
    assert "webhook_enabled is neither true nor false" in found["said"]


def test_airflow_finds_the_plugin(loaded: Loaded) -> None:
    assert "airflow-provider-faceki" in loaded[OTHER_PROCESS, "True"]["source"]
