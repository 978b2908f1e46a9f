# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A complete Airflow at its default log level leaves no secret, token, link or personal data in any output."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from tests.airflow.canaries import NOWHERE, PERSON, Canaries, files_below, logs_clean_of, rows_of
from tests.airflow.real_run import RealRun
from tests.airflow.running import AIRFLOW_3

pytestmark = pytest.mark.airflow

#: Tables of Airflow's database that contain links. A link is an identifier that tasks pass to each other.
LINK_TABLES = {"xcom", "rendered_task_instance_fields", "trigger"}


def test_nothing_in_any_file(real: RealRun) -> None:
    """No canary is in task logs, service logs, command output, the token store, or the bytes of the database."""
    files = dict(files_below(real.airflow.home))
    assert {
        path: sorted(NOWHERE.found_in(content))
        for path, content in files.items()
        if NOWHERE.found_in(content)
    } == {}
    # These checks prove that the search read the expected files: a log for each try and each service, the database, and
    # the token.
    assert sum("/dag_id=" in path for path in files) >= (50 if AIRFLOW_3 else 10)
    assert {Path(path).name for path in files} >= {"scheduler.log", "triggerer.log", "airflow.db"}
    assert any(path.endswith(".token") for path in files)


def test_no_link_in_any_log(real: RealRun) -> None:
    searched = logs_clean_of(real.planted.links)
    told = [
        (path, *hit)
        for path, content in files_below(real.airflow.home)
        if path.endswith(".log")
        for hit in searched.lines_in(content)
    ]
    assert told == []


@pytest.mark.parametrize("which", ["after all", "while they wait"])
def test_nothing_in_any_table(real: RealRun, which: str) -> None:
    database = real.waiting if which == "while they wait" else real.airflow.database
    tables = [name for name, row in rows_of(database) if NOWHERE.found_in(row)]
    assert tables == []


@pytest.mark.parametrize("which", ["after all", "while they wait"])
def test_links_lie_where_they_are_documented(real: RealRun, which: str) -> None:
    database = real.waiting if which == "while they wait" else real.airflow.database
    # Links that were passed in the runs' conf are excluded, because Airflow stores a run's conf.
    made = real.planted.links - set(real.planted.conf.values())
    searched = Canaries({link: link for link in made})
    found = defaultdict(set)
    for table, row in rows_of(database):
        for link in searched.found_in(row):
            found[table].add(link)
    assert set(found) <= LINK_TABLES
    assert found["xcom"] >= {run.xcom("make_link")["link"] for run in (real.accepted, real.declined)}


@pytest.mark.skipif(not AIRFLOW_3, reason="no task of the run on Airflow 2.11 writes records")
def test_the_person_is_where_he_was_asked_for(real: RealRun) -> None:
    written = b"".join(content for _, content in files_below(real.records))
    assert NOWHERE.found_in(written) == set(PERSON)


@pytest.mark.skipif(not AIRFLOW_3, reason="no task of the run on Airflow 2.11 goes through a manifest")
def test_a_batch_writes_nothing_of_a_person_unasked(real: RealRun) -> None:
    written = dict(files_below(real.records / "unasked"))
    assert [path for path, content in written.items() if NOWHERE.found_in(content)] == []
    assert {
        name
        for name in ("results", "errors", "verifications")
        if any(f"/{name}/" in path for path in written)
    }
