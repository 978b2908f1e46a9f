# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""No secret, token or personal data is in any log, local or on S3, or in any table of PostgreSQL.

No link is in any log. A link is an identifier that tasks pass to each other, so two tables contain it.

The module is the last of the folder, so it searches what all other tests have left behind.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.airflow.canaries import NOWHERE, Canaries, files_below, logs_clean_of
from tests.distributed.conftest import WEBHOOK_TOKEN
from tests.distributed.site import Site
from tests.waiting import wait_until

pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module", autouse=True)
def _after_other_tests(site: Site) -> None:
    if not site.cluster.runs("example_faceki_kyc_link"):
        pytest.skip(
            "this file searches what the other files of the folder leave behind; run the whole folder"
        )


@pytest.fixture(scope="module")
def links(site: Site) -> list[str]:
    """The links that the example has made."""
    made = [run.xcom("make_link")["link"] for run in site.cluster.runs("example_faceki_kyc_link")]
    assert made
    return made


@pytest.fixture(scope="module")
def searched(links: list[str]) -> Canaries:
    """The canaries that no log must contain."""
    made = logs_clean_of(links)
    return replace(made, words={**made.words, "webhook token": WEBHOOK_TOKEN})


def test_nothing_in_any_local_file(site: Site, searched: Canaries) -> None:
    files = dict(files_below(site.cluster.home))
    hits = [(path, *hit) for path, content in files.items() for hit in searched.lines_in(content)]
    assert hits == []
    # This check proves that the search read the output of each host.
    assert {path.rpartition("/")[2].removesuffix(".log") for path in files} >= set(site.cluster.services)


def test_nothing_in_any_remote_log(site: Site, searched: Canaries) -> None:
    # A task uploads its log after it has succeeded, so the test waits until the log of each task is on S3.
    wait_until(lambda: tasks_without_remote_log(site) == set())
    logs = {key: site.store.get(key) for key in site.store.keys("logs/")}
    hits = [(key, *hit) for key, content in logs.items() for hit in searched.lines_in(content)]
    assert hits == []


def tasks_without_remote_log(site: Site) -> set[str]:
    """Return the folders of the logs that are missing: those of all tasks that a worker has run successfully."""
    ended = site.cluster.rows(
        "SELECT dag_id, run_id, task_id, map_index FROM task_instance"
        " WHERE state = 'success' AND pid IS NOT NULL"
    )
    folders = {
        f"logs/dag_id={dag_id}/run_id={run_id}/task_id={task_id}"
        + (f"/map_index={map_index}" if map_index >= 0 else "")
        for dag_id, run_id, task_id, map_index in ended
    }
    return folders - {key.rpartition("/attempt=")[0] for key in site.store.keys("logs/")}


def test_nothing_in_any_table(site: Site) -> None:
    counted = Counter[str]()
    hits = []
    for table, row in site.cluster.tables():
        counted[table] += 1
        hits += [(table, name) for name in NOWHERE.found_in(row)]
    assert hits == []
    assert {"xcom", "log", "task_instance", "rendered_task_instance_fields"} <= set(counted)


def test_links_are_stored_only_in_the_documented_tables(site: Site, links: list[str]) -> None:
    searched = Canaries({link: link for link in links})
    found = {table for table, row in site.cluster.tables() if searched.found_in(row)}
    assert {"xcom"} <= found <= {"xcom", "rendered_task_instance_fields"}


def test_the_token_on_s3_is_encrypted(site: Site) -> None:
    (key,) = site.store.keys("tokens/")
    assert NOWHERE.found_in(site.store.get(key)) == set()
