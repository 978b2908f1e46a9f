# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Output of `airflow dags test`, where Airflow masks nothing, at level DEBUG, on every path and each example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.airflow.canaries import NOWHERE, files_below, logs_clean_of
from tests.airflow.ends import ENDS
from tests.airflow.planting import Planted, planted
from tests.airflow.real_run import EVERY
from tests.airflow.running import AIRFLOW_3, DAGS, EXAMPLES, bundles
from tests.airflow.whole_airflow import WholeAirflow

pytestmark = pytest.mark.airflow

RUNS: tuple[tuple[str, dict[str, object]], ...] = (
    ("example_faceki_kyc_link", {"record_identifier": "accepted-1"}),
    ("example_faceki_fetch_records", {}),
    ("example_faceki_hook_taskflow", {}),
    ("example_faceki_verification", {}),
    ("example_faceki_batch", {"shards": 2}),
)
#: What Airflow itself prints at level DEBUG, and no provider can keep it from: in Airflow 3 `dags test` has worker and
#: supervisor in one process, and that prints each message between them, the one that asks for masking included; so do
#: the worker's request for a Connection, for an XCom, for what a deferral hands over. A real run prints none of it.
AIRFLOWS_OWN_MESSAGES = re.compile(rb"\[debug +\] (Sending request|Received message from task runner) ")
#: And these tell the conf of the run, or a result: identifiers, which in this run are links.
AIRFLOWS_OWN_IDENTIFIERS = re.compile(
    rb"(\[debug +\]|DEBUG -) (Updating task params |Setting xcom for operator extra link )"
)
#: fsspec, under Airflow's object storage, tells each local file that it opens. Pictures in manifests are named after
#: the person here, which docs/personal-data.md advises against.
STORAGES_OWN = re.compile(rb"(\[debug +\]|DEBUG -) open file: ")


@dataclass(frozen=True)
class Printed:
    """What was printed, and what it was about."""

    text: bytes
    planted: Planted
    airflow: WholeAirflow

    def lines(self, *but: re.Pattern[bytes]) -> bytes:
        """All lines but those that Airflow answers for."""
        kept = (line for line in self.text.splitlines() if not any(each.search(line) for each in but))
        return b"\n".join(kept)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Printed]:
    folder = tmp_path_factory.mktemp("dags-test")
    with planted(folder / "records") as made:
        made.faceki.control.post("settings", auto_answer=0)
        airflow = WholeAirflow(
            folder / "home",
            {
                **bundles(EXAMPLES, DAGS),
                **made.environment,
                "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
                "AIRFLOW__LOGGING__FAB_LOGGING_LEVEL": "DEBUG",
            },
        )
        airflow.printed.mkdir(parents=True)
        airflow.tell(["db", "migrate"])
        for folder_of_dags, runs in ((EXAMPLES, RUNS), (DAGS, [(dag_id, made.conf) for dag_id in EVERY])):
            airflow.environment["AIRFLOW__CORE__DAGS_FOLDER"] = str(folder_of_dags)
            airflow.test(*runs)
        yield Printed((airflow.printed / "commands.log").read_bytes(), made, airflow)


def test_it_ran(printed: Printed) -> None:
    for dag_id, _ in RUNS:
        assert [run.state for run in printed.airflow.runs(dag_id)] == ["success"]
    for dag_id in EVERY:
        (run,) = printed.airflow.runs(dag_id)
        assert run.states == ENDS[dag_id]
    assert b"DEBUG" in printed.text or b"[debug" in printed.text


def test_no_secret_token_or_person(printed: Printed) -> None:
    searched = logs_clean_of([])
    assert list(searched.lines_in(printed.lines(AIRFLOWS_OWN_MESSAGES, STORAGES_OWN))) == []


def test_no_link(printed: Printed) -> None:
    text = printed.lines(AIRFLOWS_OWN_MESSAGES, AIRFLOWS_OWN_IDENTIFIERS, STORAGES_OWN)
    assert list(logs_clean_of(printed.planted.links).lines_in(text)) == []


def test_what_airflow_prints_is_still_what_we_say_it_is(printed: Printed) -> None:
    """Should Airflow stop printing these, the exceptions above are to go; on 2.11 they have no object."""
    left_out = [line for line in printed.text.splitlines() if AIRFLOWS_OWN_MESSAGES.search(line)]
    found = set().union(*(NOWHERE.found_in(line) for line in left_out))
    assert ("secret" in found) is AIRFLOW_3
    assert not any(
        b"faceki.py" in line or b"airflow_provider_faceki/" in line.split(b" msg=")[0] for line in left_out
    )


def test_nothing_in_any_file(printed: Printed) -> None:
    files = {
        path: content for path, content in files_below(printed.airflow.home) if "commands.log" not in path
    }
    assert [path for path, content in files.items() if NOWHERE.found_in(content)] == []
    assert any(path.endswith("airflow.db") for path in files)
