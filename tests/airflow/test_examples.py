# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The example DAGs run without changes, and return what their documentation describes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.airflow.running import EXAMPLES, run

pytestmark = pytest.mark.process

WELCOMED = {"welcome": "success", "decline": "skipped", "ask_a_person": "skipped"}
DECLINED = {"welcome": "skipped", "decline": "success", "ask_a_person": "skipped"}
REVIEWED_BY_HAND = {"welcome": "skipped", "decline": "skipped", "ask_a_person": "success"}


@pytest.mark.parametrize(
    ("identifier", "after", "decision", "branch"),
    [
        pytest.param("accepted-1001", 0.5, "ACCEPTED", WELCOMED, id="accepted, after a wait"),
        pytest.param("declined-1002", 0.0, "DECLINED", DECLINED, id="declined"),
        pytest.param("decision-escalated-1", 0.0, "ESCALATED", REVIEWED_BY_HAND, id="an undocumented word"),
    ],
)
def test_from_a_link_to_a_decision(
    airflow: Path,
    faceki_sandbox: FacekiSandbox,
    identifier: str,
    after: float,
    decision: str,
    branch: dict[str, str],
) -> None:
    faceki_sandbox.settings.auto_answer = after
    done = run(airflow, EXAMPLES, "example_faceki_kyc_link", record_identifier=identifier)
    assert done.state == "success"
    assert {task: done.states[task] for task in branch} == branch
    made, waited = done.xcom("make_link"), done.xcom("wait_for_decision")
    assert made["url"] == f"{faceki_sandbox.url}/kycverify/{made['link']}"
    assert (waited["decision"], waited["link"]) == (decision, made["link"])
    assert waited["record_identifier"] == made["record_identifier"] == identifier
    assert faceki_sandbox.counters.tokens_issued == 1


def test_nightly_records(
    airflow: Path, faceki_sandbox: FacekiSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEKI_EXAMPLE_RECORDS", tmp_path.as_uri())
    for identifier, decision in [("a", "ACCEPTED"), ("b", "DECLINED"), ("b", "ACCEPTED")]:
        faceki_sandbox.add_record(identifier, decision)
    done = run(airflow, EXAMPLES, "example_faceki_fetch_records", record_identifiers=["a", "b", "nobody"])
    assert done.state == "success"
    assert done.xcom("report") == {"ACCEPTED": 2, "DECLINED": 1}
    assert done.xcom("fetch[2]") == []
    written = [json.loads(Path(_local(done, index)).read_text()) for index in range(3)]
    assert [[record["decision"] for record in records] for records in written] == [
        ["ACCEPTED"],
        ["DECLINED", "ACCEPTED"],
        [],
    ]
    assert faceki_sandbox.counters.tokens_issued == 1


def _local(done: DagResult, index: int) -> str:
    path: str = done.xcom(f"fetch[{index}]", "output_path")
    return path.removeprefix("file://")


def test_hook_in_tasks(airflow: Path, faceki_sandbox: FacekiSandbox) -> None:
    faceki_sandbox.add_record("a", "REVIEW")
    done = run(airflow, EXAMPLES, "example_faceki_hook_taskflow", record_identifiers=["a", "nobody"])
    assert done.state == "success"
    assert [done.xcom(f"decision[{index}]") for index in range(2)] == ["REVIEW", "no record yet"]
    assert done.xcom("documents") == ["ID Card"]
    assert faceki_sandbox.counters.tokens_issued == 1


PARSE = """
import json, pathlib, runpy, sys
# What Airflow itself imports before it reads any DAG file, and for any operator, is not ours.
import airflow.providers.common.compat.sdk as sdk
sdk.DAG, sdk.Param, sdk.task, sdk.timezone, sdk.BaseHook, sdk.BaseOperator, sdk.BaseSensorOperator
import airflow.triggers.base
# The first asset makes Airflow load those of every installed provider.
sdk.Asset(uri="made-up://a/b")
try:
    import airflow.providers.standard.operators.hitl
except (ImportError, sdk.AirflowOptionalProviderFeatureException):
    pass  # before Airflow 3.1
def nothing(): pass
with sdk.DAG(dag_id="without_faceki"):
    sdk.task(nothing)() >> sdk.task.branch(nothing)()
before = set(sys.modules)
for file in sorted(pathlib.Path(sys.argv[1]).glob("example_*.py")):
    runpy.run_path(str(file))
print(json.dumps(sorted(name.partition(".")[0] for name in set(sys.modules) - before)))
"""


def test_parsing_the_examples_imports_nothing_heavy(airflow_home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(EXAMPLES)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    brought = set(json.loads(done.stdout.splitlines()[-1]))
    assert "airflow_provider_faceki" in brought
    assert brought & {"requests", "urllib3", "tenacity", "cryptography", "PIL", "pyarrow"} == set()
