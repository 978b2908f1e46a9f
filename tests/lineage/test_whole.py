# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A complete Airflow with the OpenLineage provider: datasets, asset events, links and the limit of charged calls."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property  # noqa: TID251 - no test forks while it is computed
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_faceki.sandbox import SandboxProcess
from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.airflow.running import AIRFLOW_3, reading
from tests.airflow.shared import PORTAL, STORE_LOGIN, STORE_PASSWORD, SharedAirflow
from tests.airflow.whole_airflow import WholeAirflow
from tests.batch.harness import BatchHarness
from tests.lineage.dags.datasets import PERSON
from tests.object_store import BUCKET, ObjectStore

pytestmark = pytest.mark.airflow

DAG_ID, RUN_ID = "datasets", "once"
TASKS = ("split_manifest", "verify", "tables", "one", "fetch", "too_many")

# Airflow 2.11 has its REST API in the web server. This code calls the API without starting a server.
WEB_SERVER = """
import json, sys
from airflow.www.app import create_app
client = create_app(testing=True).test_client()
for path in json.load(sys.stdin):
    print("ANSWER", json.dumps(client.get("/api/v1/" + path).json))
"""


@dataclass
class Whole:
    """Airflow, which still runs, after the DAG run has ended."""

    airflow: WholeAirflow
    faceki: SandboxProcess
    events_file: Path
    run: DagResult
    links: dict[str, dict[str, str | None]]

    @cached_property
    def events(self) -> str:
        """All OpenLineage events as text."""
        return self.events_file.read_text(encoding="utf-8")

    def event(self, task: str) -> dict[str, Any]:
        """Return the last event of a task that has ended."""
        found: list[dict[str, Any]] = [json.loads(line) for line in self.events.splitlines()]
        ended = {"COMPLETE", "FAIL"}
        return [
            each for each in found if each["job"]["name"] == f"{DAG_ID}.{task}" and each["eventType"] in ended
        ][-1]

    def asset_event(self, uri: str) -> dict[str, Any]:
        """Return the extra of the only event of an asset."""
        name = "asset" if AIRFLOW_3 else "dataset"
        query = (
            f"SELECT e.extra FROM {name}_event e JOIN {name} a ON a.id = e.{name}_id"  # noqa: S608 - constant names
            " WHERE a.uri = ?"
        )
        with reading(self.airflow.database) as database:
            ((extra,),) = database.execute(query, (uri,)).fetchall()
        found: dict[str, Any] = json.loads(extra)
        return found


@pytest.fixture(scope="module")
def whole(shared_airflow: SharedAirflow, _object_store_server: ObjectStore) -> Whole:
    airflow, folder = shared_airflow.airflow, shared_airflow.folder / "lineage"
    folder.mkdir()
    harness = BatchHarness(folder)
    _object_store_server.clear()
    lines = [harness.line(name) for name in ("accepted-1", "declined-1")]
    lines += [harness.line("no-selfie", selfie=None)]
    manifest = harness.manifest(lines)
    _object_store_server.client.upload_file(manifest.removeprefix("file://"), BUCKET, "people.ndjson")
    airflow.wait_until_ready(DAG_ID)
    shared_airflow.begin((DAG_ID, RUN_ID, {}))
    run = airflow.run(DAG_ID, RUN_ID)
    airflow.wait("the run", lambda: run.state in {"success", "failed"})
    airflow.wait("the last event", lambda: f'"{DAG_ID}.too_many"' in _ended(shared_airflow.events))
    links = _links(shared_airflow)
    return Whole(airflow, shared_airflow.sandboxes["lineage"], shared_airflow.events, run, links)


def _ended(events: Path) -> str:
    lines = events.read_text().splitlines() if events.exists() else []
    return "\n".join(line for line in lines if '"FAIL"' in line)


def _links(shared_airflow: SharedAirflow) -> dict[str, dict[str, str | None]]:
    """Return the extra links of each task, as Airflow's REST API shows them."""
    airflow = shared_airflow.airflow
    paths = {name: f"dags/{DAG_ID}/dagRuns/{RUN_ID}/taskInstances/{name}/links" for name in TASKS}
    if AIRFLOW_3:
        return {name: shared_airflow.api.call("GET", path)["extra_links"] for name, path in paths.items()}
    # With this setting, a caller without a login has all rights.
    (airflow.home / "webserver_config.py").write_text("AUTH_ROLE_PUBLIC = 'Admin'\n")
    done = subprocess.run(
        [sys.executable, "-c", WEB_SERVER],
        input=json.dumps(list(paths.values())),
        env=airflow.environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    lines = [line.removeprefix("ANSWER ") for line in done.stdout.splitlines() if "ANSWER " in line]
    assert len(lines) == len(paths), done.stderr
    return dict(zip(paths, map(json.loads, lines), strict=True))


def datasets(event: dict[str, Any], side: str) -> dict[str, int | None]:
    """Return the number of rows by dataset of an event."""
    facets = "inputStatistics" if side == "inputs" else "outputStatistics"
    return {
        f"{each['namespace']}/{each['name']}": each.get(f"{side[:-1]}Facets", {})
        .get(facets, {})
        .get("rowCount")
        for each in event[side]
    }


def test_all_tasks_have_the_expected_states(whole: Whole) -> None:
    assert whole.run.states == {**dict.fromkeys(TASKS, "success"), "too_many": "failed"}


@pytest.mark.parametrize(
    ("task", "inputs", "outputs"),
    [
        pytest.param(
            "verify",
            {"s3://kyc/people.ndjson": 3},
            {"s3://kyc/verified/results": 2, "s3://kyc/verified/errors": 1},
            id="batch",
        ),
        pytest.param(
            "tables",
            {"s3://kyc/people.ndjson": 3},
            {
                "s3://kyc/tables/verifications": 2,
                "s3://kyc/tables/documents": 2,
                "s3://kyc/tables/aml_hits": 0,
                "s3://kyc/tables/images": 6,
                "s3://kyc/tables/errors": 1,
            },
            id="tables",
        ),
        pytest.param("one", {}, {"s3://kyc/records": 1}, id="verification"),
        pytest.param("fetch", {}, {"s3://kyc/fetched": 1}, id="records"),
        pytest.param(
            "split_manifest", {"s3://kyc/people.ndjson": None}, {"s3://kyc/shards": None}, id="hook lineage"
        ),
    ],
)
def test_datasets(
    whole: Whole, task: str, inputs: dict[str, int | None], outputs: dict[str, int | None]
) -> None:
    event = whole.event(task)
    assert (datasets(event, "inputs"), datasets(event, "outputs")) == (inputs, outputs)


@pytest.mark.parametrize(
    ("task", "counts"),
    [
        pytest.param("verify", {"rows": 3, "succeeded": 2, "failed": 1, "open": 0, "found": 0}, id="batch"),
        pytest.param("tables", {"rows": 3, "succeeded": 2, "failed": 1}, id="tables"),
    ],
)
def test_counts_of_a_batch(whole: Whole, task: str, counts: dict[str, int]) -> None:
    facet = whole.event(task)["run"]["facets"]["faceki_batch"]
    assert {name: value for name, value in facet.items() if not name.startswith("_")} == counts


def test_the_lineage_holds_no_personal_data_and_no_secret(whole: Whole) -> None:
    secrets = (STORE_PASSWORD, STORE_LOGIN, whole.faceki.client_secret, "aws_kyc@")
    # This check proves that the searched text contains the events, so the search would find the words below.
    assert "people.ndjson" in whole.events
    assert [
        word for word in (*secrets, "canariella", "selfie.jpg", "accepted-1") if word in whole.events
    ] == []


@pytest.mark.parametrize(
    ("uri", "extra"),
    [
        pytest.param(
            "s3://kyc/verified",
            {
                "rows": 3,
                "decisions": {"ACCEPTED": 1, "DECLINED": 1},
                "errors": {"INVALID_INPUT": 1},
                "found": 0,
            },
            id="batch",
        ),
        pytest.param(
            "s3://kyc/tables",
            {"rows": 3, "decisions": {"ACCEPTED": 1, "DECLINED": 1}, "errors": {"NOT_FOUND": 1}},
            id="tables",
        ),
    ],
)
def test_the_asset_event_has_the_counts(whole: Whole, uri: str, extra: dict[str, Any]) -> None:
    assert whole.asset_event(uri) == extra


def test_links_to_the_record_and_to_the_output(whole: Whole) -> None:
    request_id = whole.run.xcom("one")["request_id"]
    console = "https://console.aws.amazon.com/s3"
    assert whole.links["verify"] == {"FACEKI output": f"{console}/buckets/kyc?prefix=verified/"}
    assert whole.links["tables"] == {"FACEKI output": f"{console}/buckets/kyc?prefix=tables/"}
    for task, key in (("one", f"records/{PERSON}/record.json"), ("fetch", f"fetched/{PERSON}.json")):
        assert whole.links[task] == {
            "FACEKI record": f"{PORTAL}/{request_id}",
            "FACEKI output": f"{console}/object/kyc?prefix={key}",
        }


def test_the_limit_of_the_connection_holds_in_a_task(whole: Whole) -> None:
    counters: Any = whole.faceki.control.get("counters")
    assert counters["requests"]["analyze_face"] == 2
    folder = whole.airflow.home / "logs" / f"dag_id={DAG_ID}"
    logs = "".join(path.read_text(errors="replace") for path in folder.rglob("task_id=too_many/*.log"))
    assert "max_charged_calls=2 is reached: this try made 2 calls" in logs
    assert "faceki_limited" in logs
