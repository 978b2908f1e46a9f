# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Leak tests for the output of `airflow dags test` at level DEBUG, which Airflow does not mask.

The runs are each example DAG, and `every_path` and `every_image`.
"""

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
from tests.thorough import THOROUGH

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.long,
    pytest.mark.skipif(
        AIRFLOW_3 and not THOROUGH,
        reason="only in make test-version and make test-thorough; make test searches the console of Airflow 2.11",
    ),
]

RUNS: tuple[tuple[str, dict[str, object]], ...] = (
    ("example_faceki_kyc_link", {"record_identifier": "accepted-1"}),
    ("example_faceki_fetch_records", {}),
    ("example_faceki_hook_taskflow", {}),
    ("example_faceki_verification", {}),
    # The batch has only one shard, because the last row is an error, and a shard with only this row would fail.
    ("example_faceki_batch", {"shards": 1}),
)
#: Lines that Airflow itself prints at level DEBUG, and that a provider cannot prevent. In Airflow 3, `dags test` runs
#: worker and supervisor in one process, which prints each message between them. These messages include the request to
#: mask a secret, and the worker's requests for a Connection, for an XCom, and for the data of a deferral. A real run
#: prints none of them.
AIRFLOWS_OWN_MESSAGES = re.compile(rb"\[debug +\] (Sending request|Received message from task runner) ")
#: Lines of Airflow that contain the conf of the run, or a result. They contain identifiers, which are links in this
#: run.
AIRFLOWS_OWN_IDENTIFIERS = re.compile(
    rb"(\[debug +\]|DEBUG -) (Updating task params |Setting xcom for operator extra link )"
)
#: Lines of fsspec, which Airflow's object storage uses. It logs each local file that it opens. In this test, images
#: in manifests are named after the person, although docs/personal-data.md advises against it.
STORAGES_OWN = re.compile(rb"(\[debug +\]|DEBUG -) open file: ")


@dataclass(frozen=True)
class Printed:
    """The printed output, and the sandbox and Airflow that it came from."""

    text: bytes
    planted: Planted
    airflow: WholeAirflow

    def lines(self, *but: re.Pattern[bytes]) -> bytes:
        """Return all lines except for those that match one of the patterns."""
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
        # The images of the batch are not in the folder of its manifest, so the DAG must get their folder in its conf.
        images = {"example_faceki_batch": {"images": made.environment["EVERY_PATH_GIVEN"]}}
        examples = [(dag_id, {**conf, **images.get(dag_id, {})}) for dag_id, conf in RUNS]
        for folder_of_dags, runs in ((EXAMPLES, examples), (DAGS, [(dag_id, made.conf) for dag_id in EVERY])):
            airflow.environment["AIRFLOW__CORE__DAGS_FOLDER"] = str(folder_of_dags)
            airflow.test(*runs)
        yield Printed((airflow.printed / "commands.log").read_bytes(), made, airflow)


def test_every_leak_test_run_ended_as_expected(printed: Printed) -> None:
    for dag_id, _ in RUNS:
        assert [run.state for run in printed.airflow.runs(dag_id)] == ["success"]
    for dag_id in EVERY:
        (run,) = printed.airflow.runs(dag_id)
        assert run.states == ENDS[dag_id]
    assert b"DEBUG" in printed.text or b"[debug" in printed.text


def test_the_output_holds_no_secret_token_or_personal_data(printed: Printed) -> None:
    searched = logs_clean_of([])
    assert list(searched.lines_in(printed.lines(AIRFLOWS_OWN_MESSAGES, STORAGES_OWN))) == []


def test_no_link(printed: Printed) -> None:
    text = printed.lines(AIRFLOWS_OWN_MESSAGES, AIRFLOWS_OWN_IDENTIFIERS, STORAGES_OWN)
    assert list(logs_clean_of(printed.planted.links).lines_in(text)) == []


def test_the_excluded_log_lines_are_still_printed_by_airflow(printed: Printed) -> None:
    """Airflow 3 still prints secrets in lines that match `AIRFLOWS_OWN_MESSAGES`. Airflow 2.11 does not.

    If Airflow 3 stops printing them, this test fails, and the pattern must be removed.
    """
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
