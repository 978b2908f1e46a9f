# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Webhooks that are sent to both API servers at the same time: one event and one run for each."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.airflow.canaries import PERSON
from tests.airflow.running import HAS_PARTITIONS
from tests.distributed.cluster import API_SERVERS
from tests.distributed.conftest import WEBHOOK_TOKEN
from tests.distributed.site import Site
from tests.webhook.served import webhook_body

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(not HAS_PARTITIONS, reason="a run per webhook needs the partitions of Airflow 3.2"),
]

WEBHOOKS = 30


def _post(url: str, body: dict[str, object]) -> str:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(url, json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["status"])


def test_each_webhook_starts_one_run(site: Site) -> None:
    full_name = f"{PERSON['first_name']} {PERSON['last_name']}"
    bodies = [webhook_body(fullName=full_name) for _ in range(WEBHOOKS)]
    urls = [
        f"{site.cluster.url_of(server)}/faceki/webhook/faceki_burst/{WEBHOOK_TOKEN}" for server in API_SERVERS
    ]
    with ThreadPoolExecutor(2 * WEBHOOKS) as pool:
        sent = [pool.submit(_post, url, body) for body in bodies for url in urls]
        answers = [each.result() for each in sent]
    assert sorted(answers) == ["repeated"] * WEBHOOKS + ["stored"] * WEBHOOKS
    ids = sorted(str(body["requestId"]) for body in bodies)
    events = site.cluster.rows("SELECT extra FROM asset_event")
    assert sorted(json.loads(extra)["request_id"] for (extra,) in events) == ids
    runs = "SELECT partition_key FROM dag_run WHERE dag_id = 'burst'"
    site.cluster.wait("all runs", lambda: len(site.cluster.rows(runs)) >= WEBHOOKS)
    assert sorted(key for (key,) in site.cluster.rows(runs)) == ids
