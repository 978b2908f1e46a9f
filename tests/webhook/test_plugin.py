# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The plugin has no effect in any process except the API server. Each test starts a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.running import AIRFLOW_3

pytestmark = pytest.mark.process

only_3 = pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 has no API server to mount anything in")

HEAVY = ("fastapi", "starlette", "uvicorn", "requests", "urllib3", "tenacity", "cryptography")

# This loads the plugins like any Airflow process, and then inspects this plugin.
LOADED = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
from airflow import plugins_manager
plugins_manager.ensure_plugins_loaded()
import airflow.providers.common.compat.sdk
before = set(sys.modules)
from airflow_provider_faceki.plugins.faceki import FacekiWebhookPlugin
new = sorted({name.partition(".")[0] for name in set(sys.modules) - before})
plugin = FacekiWebhookPlugin()
apps = [[each["url_prefix"], type(each["app"]).__name__] for each in plugin.fastapi_apps]
again = plugin.fastapi_apps == FacekiWebhookPlugin.fastapi_apps
webhook = sorted(name for name in sys.modules if name.startswith("airflow_provider_faceki.webhook"))
print(json.dumps({"apps": apps, "again": again, "new": new, "webhook": webhook, "named": plugin.name}))
"""


def _python(code: str, *arguments: str, **environment: str) -> tuple[Any, str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("enabled", "modules"),
    [
        pytest.param("False", (), id="off"),
        pytest.param("True", (), id="on, but not the API server"),
        pytest.param("False", ("airflow.api_fastapi.app",), id="off, in the API server", marks=only_3),
    ],
)
def test_a_disabled_plugin_loads_nothing(enabled: str, modules: tuple[str, ...]) -> None:
    found, said = _python(LOADED, *modules, AIRFLOW__FACEKI__WEBHOOK_ENABLED=enabled)
    assert found["apps"] == found["webhook"] == []
    assert set(found["new"]) & set(HEAVY) == set()
    assert "aceki" not in said.replace(json.dumps(found), "")


@only_3
def test_mounted_in_the_api_server() -> None:
    found, said = _python(LOADED, "airflow.api_fastapi.app", AIRFLOW__FACEKI__WEBHOOK_ENABLED="True")
    assert found["apps"] == [["/faceki", "FastAPI"]]
    assert found["again"] is True
    assert "Traceback" not in said


@only_3
def test_an_invalid_webhook_enabled_value_disables_the_plugin() -> None:
    found, said = _python(LOADED, "airflow.api_fastapi.app", AIRFLOW__FACEKI__WEBHOOK_ENABLED="perhaps")
    assert found["apps"] == []
    assert "webhook_enabled is neither true nor false" in said


def test_airflow_finds_the_plugin(tmp_path: Path) -> None:
    code = """
import json
from airflow import plugins_manager
plugins_manager.ensure_plugins_loaded()
info = {each["name"]: each for each in plugins_manager.get_plugin_info()}
print(json.dumps(str(info["faceki_webhook"]["source"])))
"""
    source, _ = _python(
        code, AIRFLOW__FACEKI__WEBHOOK_ENABLED="True", AIRFLOW__CORE__PLUGINS_FOLDER=str(tmp_path)
    )
    assert "airflow-provider-faceki" in source
