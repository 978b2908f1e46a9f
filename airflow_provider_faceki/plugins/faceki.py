# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Airflow plugin that mounts the receiver of FACEKI's webhooks in Airflow's API server.

Every Airflow process loads all plugins, so this module must load fast. It imports the receiver only when the API server
reads the plugin's attribute ``fastapi_apps``, the list of web applications that the API server mounts. Airflow 2.11
never reads this attribute, so it cannot receive webhooks.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin

log = logging.getLogger(__name__)

PREFIX = "/faceki"
# Airflow module that mounts the applications of plugins. If this module is loaded, the process is an API server. Other
# processes, such as `airflow plugins`, do not need the application of this plugin. The command line of a process is not
# a reliable test. For example, `uvicorn airflow.api_fastapi.main:app` also starts an API server, and an API server
# forks or spawns worker processes.
_API_SERVER = "airflow.api_fastapi.app"


class _LazyApps:
    """Descriptor of the plugin's list ``fastapi_apps``.

    In an API server, the first access creates the list. In every other process, the list is empty.
    """

    def __init__(self) -> None:
        self._made: list[dict[str, Any]] | None = None

    def __get__(self, plugin: object, owner: type) -> list[dict[str, Any]]:
        if self._made is None and _API_SERVER in sys.modules:
            self._made = _make_apps()
        return self._made or []


def _make_apps() -> list[dict[str, Any]]:
    # ``webhook_enabled`` is read with the ``conf`` object of Airflow's core. If the value is not a boolean, this object
    # raises ``AirflowConfigException``, which the code below catches. The ``conf`` object of
    # ``airflow.providers.common.compat`` would raise an error of another class.
    from airflow.configuration import conf
    from airflow.exceptions import AirflowConfigException

    try:
        enabled = conf.getboolean("faceki", "webhook_enabled", fallback=False)
    except AirflowConfigException:
        # A wrong value of ``webhook_enabled`` is only logged, because it must not prevent the start of the API server.
        log.error("[faceki] webhook_enabled is neither true nor false; FACEKI's webhooks are not received")  # noqa: TRY400
        return []
    if not enabled:
        return []
    from airflow_provider_faceki.webhook.app import create_app

    log.info("Receiving FACEKI's webhooks under %s/webhook", PREFIX)
    return [{"app": create_app(), "url_prefix": PREFIX, "name": "FACEKI webhooks"}]


class FacekiWebhookPlugin(AirflowPlugin):
    """Plugin that mounts the webhook receiver in Airflow 3's API server, if ``[faceki] webhook_enabled`` is true."""

    name = "faceki_webhook"
    fastapi_apps: Any = _LazyApps()
