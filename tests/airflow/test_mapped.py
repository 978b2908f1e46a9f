# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Every kind of task works if it is mapped, including its Connection id, and each instance has its own extra link."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_faceki.links.faceki import FacekiHostedPageLink
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.airflow.conftest import FEW_ATTEMPTS
from tests.airflow.running import AIRFLOW_3, DAGS, bundles, load, run

pytestmark = pytest.mark.long

COUNTRIES = ("fr", "it")


@pytest.fixture(scope="module")
def mapped(airflow_db: Path) -> Iterator[tuple[DagResult, list[FacekiSandbox]]]:
    """The finished run, and a sandbox for each country.

    A task that used the other country's Connection would find no record.
    """
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        sandboxes = []
        for country in COUNTRIES:
            sandbox = stack.enter_context(FacekiSandbox())
            sandbox.settings.auto_answer = 1.0
            sandboxes.append(sandbox)
            connection = json.dumps(sandbox.connection(**FEW_ATTEMPTS))
            patch.setenv(f"AIRFLOW_CONN_FACEKI_{country.upper()}", connection)
        for name, value in bundles(DAGS).items():
            patch.setenv(name, value)
        yield run(airflow_db, DAGS, "mapped"), sandboxes


@pytest.mark.parametrize("task", ["make", "wait_poking", "wait_deferred", "fetch", "call"])
def test_each_mapped_instance_calls_its_own_connection(
    mapped: tuple[DagResult, list[FacekiSandbox]], task: str
) -> None:
    done, _ = mapped
    for index, country in enumerate(COUNTRIES):
        assert done.states[f"{task}[{index}]"] == "success"
        found: Any = done.xcom(f"{task}[{index}]")
        found = found[0] if isinstance(found, list) else found
        assert found["record_identifier"] == f"accepted-{country}"


def test_one_token_for_each_account(mapped: tuple[DagResult, list[FacekiSandbox]]) -> None:
    assert [sandbox.counters.tokens_issued for sandbox in mapped[1]] == [1, 1]


def test_extra_link_of_each_instance(mapped: tuple[DagResult, list[FacekiSandbox]]) -> None:
    done, sandboxes = mapped
    for index, sandbox in enumerate(sandboxes):
        made = done.xcom(f"make[{index}]")
        assert made["url"].startswith(sandbox.url)
        assert _link_in_the_user_interface(done, index) == made["url"]


def _link_in_the_user_interface(done: DagResult, index: int) -> str:
    """Return the target of the extra link's button.

    On Airflow 3 it is the URL that the worker stored; on Airflow 2 it is the URL that the webserver computes.
    """
    if AIRFLOW_3:
        return str(done.xcom(f"make[{index}]", "_link_FacekiHostedPageLink"))
    from airflow.models.taskinstance import TaskInstance
    from airflow.serialization.serialized_objects import SerializedDAG
    from airflow.utils.session import create_session

    serialized: Any = SerializedDAG
    dag = serialized.from_dict(serialized.to_dict(load(DAGS, "mapped")))
    with create_session() as session:
        found: Any = (
            session.query(TaskInstance)
            .filter_by(dag_id="mapped", run_id=done.run_id, task_id="make", map_index=index)
            .one()
        )
        return str(dag.get_task("make").get_extra_links(found, FacekiHostedPageLink.name))


def test_without_a_page_there_is_no_link(mapped: tuple[DagResult, list[FacekiSandbox]]) -> None:
    with pytest.raises(KeyError):
        mapped[0].xcom("fetch[0]", "_link_FacekiHostedPageLink")
