# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The example DAGs on several hosts, with all their files on S3. `test_hosts.py` runs the example with a link."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

import pytest

from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.billing.image_files import image_bytes
from tests.distributed.cluster import ENDED, WORKER_CONCURRENCY
from tests.distributed.conftest import EXAMPLES_FOLDER
from tests.distributed.host import WORKERS
from tests.distributed.site import FAST_SECONDS, Site

pytestmark = pytest.mark.airflow

BATCH = [f"example-{number}" for number in range(40)]
#: Number of shards. One worker cannot run all of them at the same time, so the other worker gets some of them.
SHARDS = WORKER_CONCURRENCY + 2
KNOWN = {"recorded-accepted": "ACCEPTED", "recorded-declined": "DECLINED"}
LOOKUP_CONF = {"record_identifiers": [*KNOWN, "nobody"]}
BEGUN: tuple[tuple[str, Mapping[str, object]], ...] = (
    ("example_faceki_batch", {"shards": SHARDS}),
    ("example_faceki_verification", {}),
    ("example_faceki_fetch_records", LOOKUP_CONF),
    ("example_faceki_hook_taskflow", LOOKUP_CONF),
)


@pytest.fixture(scope="module")
def runs(site: Site) -> dict[str, DagResult]:
    """The ended runs by DAG id. All of them ran at the same time."""
    site.slow_down(FAST_SECONDS)
    _put_inputs(site)
    for identifier, decision in KNOWN.items():
        site.faceki.control.post("records", record_identifier=identifier, decision=decision)
    begun = site.cluster.begin_all(*BEGUN)
    site.cluster.wait("all examples to end", lambda: all(run.state in ENDED for run in begun))
    return {run.dag_id: run for run in begun}


def _put_inputs(site: Site) -> None:
    """Write the images of one verification, and a manifest with an image."""
    for name in ("selfie", "front", "back"):
        site.store.put(f"examples/{name}.jpg", image_bytes())
    image = f"{EXAMPLES_FOLDER}/selfie.jpg"
    images = {"selfie": image, "document_1_front": image, "document_1_back": image}
    rows = [json.dumps({"record_identifier": each, **images}) for each in BATCH]
    site.store.put("examples/manifest.ndjson", "\n".join(rows).encode())


@pytest.mark.parametrize("dag_id", [pytest.param(dag_id, id=dag_id) for dag_id, _ in BEGUN])
def test_each_example_succeeds(runs: dict[str, DagResult], dag_id: str) -> None:
    assert runs[dag_id].state == "success", runs[dag_id].states


def test_the_batch_bills_each_row_once(runs: dict[str, DagResult], site: Site) -> None:
    run = runs["example_faceki_batch"]
    assert run.xcom("add_up") == {"decisions": {"ACCEPTED": len(BATCH)}, "errors": {}, "found": 0}
    assert {name: site.ledger.get(name) for name in BATCH} == dict.fromkeys(BATCH, 1)


def test_both_workers_had_shards_of_the_batch(runs: dict[str, DagResult], site: Site) -> None:
    query = "SELECT hostname FROM task_instance WHERE dag_id = %s AND task_id = 'verify'"
    hosts = Counter(host for (host,) in site.cluster.rows(query, "example_faceki_batch"))
    assert (set(hosts), hosts.total()) == (set(WORKERS), SHARDS)


def test_the_verification_stores_its_report(runs: dict[str, DagResult], site: Site) -> None:
    summary = runs["example_faceki_verification"].xcom("verify")
    assert summary["decision"] == "ACCEPTED"
    assert site.store.get(f"examples/{summary['request_id']}.pdf").startswith(b"%PDF")


def test_the_records_are_fetched(runs: dict[str, DagResult]) -> None:
    assert runs["example_faceki_fetch_records"].xcom("report") == {"ACCEPTED": 1, "DECLINED": 1}
    run = runs["example_faceki_hook_taskflow"]
    decisions = [run.xcom(f"decision[{index}]") for index in range(len(KNOWN) + 1)]
    assert decisions == [*KNOWN.values(), "no record yet"]
    assert run.xcom("documents") == ["ID Card"]
