# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The way from FACEKI's page to a finished run in a complete Airflow. Webhooks need no login."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from demo.airflow_stack import ROOT
from tests.airflow.running import HAS_PARTITIONS, TASKS_SET_PARTITIONS
from tests.airflow.shared import PASSWORD, SharedAirflow
from tests.webhook.served import NAME, PREVIOUS, SECRET, TOKEN, WEAK, webhook_body
from tests.webhook.stack import LISTENER, PERSON, Stack, stack_of

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(not HAS_PARTITIONS, reason="a run per webhook needs the partitions of Airflow 3.2"),
]

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def stack(shared_airflow: SharedAirflow) -> Stack:
    return stack_of(shared_airflow)


def test_from_the_page_to_a_finished_run(stack: Stack) -> None:
    began = time.monotonic()
    stack.expect_whole_loop(stack.decide("customer-1", "ACCEPTED"), "ACCEPTED", began)


def test_a_review_and_its_end_are_two_runs(stack: Stack) -> None:
    request_id = stack.decide("customer-2", "REVIEW")
    stack.finished(LISTENER, request_id)
    first, _ = stack.run_of(LISTENER, request_id)
    assert stack.api.xcom(LISTENER, first, "act") == "REVIEW"
    stack.faceki.control.post("decide", request_id=request_id, decision="DECLINED")
    stack.until("a second run", lambda: stack.run_of(LISTENER, request_id)[0] != first)
    stack.finished(LISTENER, request_id)
    second, _ = stack.run_of(LISTENER, request_id)
    assert stack.api.xcom(LISTENER, second, "act") == "DECLINED"
    assert stack.statuses(request_id) == ["REVIEW", "DECLINED"]


@pytest.mark.parametrize("mode", ["twice", "late", "out-of-order"])
def test_each_delivery_mode_starts_one_run(stack: Stack, mode: str) -> None:
    stack.faceki.control.post("settings", webhook_mode=mode, webhook_delay=1)
    ids = [stack.decide(f"customer-{mode}-{number}", "ACCEPTED") for number in range(2)]
    stack.faceki.control.post("settings", webhook_mode="normal")
    stack.until("both events", lambda: all(stack.statuses(each) for each in ids))
    for each in ids:
        assert stack.finished(LISTENER, each) == {"fetch": "success", "act": "success"}
        assert stack.statuses(each) == ["ACCEPTED"]


def test_a_forged_webhook_costs_one_request(stack: Stack) -> None:
    forged = str(uuid.uuid4())
    before = _requests(stack)
    stack.faceki.control.post("fake-webhook", request_id=forged, status="ACCEPTED", full_name=NAME)
    assert stack.finished(LISTENER, forged) == {"fetch": "skipped", "act": "skipped"}
    # Of the searches, only those for this id are counted, because runs of other tests possibly still poll the sandbox.
    searches: Any = stack.faceki.control.get("polls", key=f"requestId={forged}")
    assert len(searches) == 1
    assert set(_requests(stack) - before) <= {"records", "token"}


def _requests(stack: Stack) -> Counter[str]:
    counters = stack.faceki.control.get("counters")
    assert isinstance(counters, dict)
    return Counter(counters["requests"])


def test_two_hundred_at_once(stack: Stack) -> None:
    bodies = [webhook_body() for _ in range(200)]
    began = time.monotonic()
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda body: stack.post(stack.at("faceki_burst"), body), bodies))
    log.info("200 webhooks answered after %.1f s", time.monotonic() - began)
    assert [answer.status_code for answer in answers] == [200] * 200
    wanted = {str(body["requestId"]) for body in bodies}
    assert sorted(str(key) for key, _ in stack.events("faceki_burst")) == sorted(wanted)
    query = "SELECT partition_key FROM dag_run WHERE dag_id = 'burst'"
    took = stack.until("200 runs", lambda: len(stack.rows(query)) >= 200)
    log.info("200 runs were there %.1f s later", took)
    assert sorted(key for (key,) in stack.rows(query)) == sorted(wanted)


def test_only_this_route_is_open(stack: Stack) -> None:
    for path in ("assets", "assets/events", "connections", "dags", "plugins", "variables"):
        assert requests.get(f"{stack.url}/api/v2/{path}", timeout=300).status_code == 401
    assert requests.get(f"{stack.url}/faceki/docs", timeout=300).status_code == 404
    assert requests.get(f"{stack.url}/faceki/openapi.json", timeout=300).status_code == 404
    assert stack.post(stack.at(), webhook_body()).status_code == 200
    # The webhook token gives no access to the REST API, and a login gives no access to the webhook.
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert requests.get(f"{stack.url}/api/v2/assets", headers=bearer, timeout=300).status_code in (401, 403)
    ada = {"Authorization": f"Bearer {stack.api.token}"}
    assert stack.post(stack.at(token="guess" * 8), webhook_body(), ada).status_code == 401


def test_invalid_webhooks_store_nothing_and_block_no_caller(stack: Stack) -> None:
    known = webhook_body()
    assert stack.post(stack.at(), known).json() == {"status": "stored"}
    before = stack.count()
    head = f"POST /faceki/webhook/faceki_default/{TOKEN} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    slow = [stack.raw(head.encode() + b"{") for _ in range(50)]
    sent = [
        (stack.at(), known, 200),
        (stack.at(), b"x" * (256 * 1024 + 1), 413),
        (stack.at(), b"<html>", 422),
        (stack.at(token="guess" * 8), webhook_body(), 401),
        (stack.at("nobody"), webhook_body(), 401),
        (stack.at("faceki_weak", WEAK), webhook_body(), 401),
        (stack.at("faceki_signed"), webhook_body(), 401),
        (stack.at("faceki_signed") + "/", webhook_body(), 404),
    ]
    assert [stack.post(url, body).status_code for url, body, _ in sent] == [status for *_, status in sent]
    assert all(line.recv(4096).startswith(b"HTTP/1.1 408") for line in slow)
    for line in slow:
        line.close()
    assert stack.count() == before

    def healthy() -> bool:
        health = requests.get(f"{stack.url}/api/v2/monitor/health", timeout=300).json()
        return {part["status"] for part in health.values()} == {"healthy"}

    # A busy machine possibly delays a heartbeat, so one unhealthy status is not a failure.
    stack.until("all components to be healthy", healthy)


def test_decisions_missed_by_webhooks_are_reconciled(stack: Stack) -> None:
    stack.faceki.control.post("settings", webhook_mode="never")
    missed, waiting = stack.decide("case-missed", "DECLINED"), stack.decide("case-review", "REVIEW")
    stack.faceki.control.post("settings", webhook_mode="normal")
    told = stack.decide("case-told", "ACCEPTED")
    stack.until("the webhook", lambda: bool(stack.statuses(told)))
    stack.cases.mkdir()
    for case in ("case-missed", "case-review", "case-told", "case-unanswered"):
        (stack.cases / case).write_text("{}")
    # The DAG is scheduled once an hour. If a scheduled run has already announced the decisions, this run skips a task.
    assert set(stack.run("example_faceki_reconcile").values()) <= {"success", "skipped"}
    ended = "SELECT DISTINCT task_id FROM task_instance WHERE dag_id = ? AND state = 'success'"
    assert {task for (task,) in stack.rows(ended, "example_faceki_reconcile")} == {
        "open_cases",
        "fetch",
        "missed",
        "announce",
        "close",
    }
    assert [stack.statuses(each) for each in (missed, waiting, told)] == [
        ["DECLINED"],
        ["REVIEW"],
        ["ACCEPTED"],
    ]
    if TASKS_SET_PARTITIONS:
        assert stack.finished(LISTENER, missed) == {"fetch": "success", "act": "success"}
    assert sorted(each.name for each in stack.cases.iterdir()) == ["case-review", "case-unanswered"]
    again = stack.run("example_faceki_reconcile")
    assert (again["missed"], again["announce"], again["close"]) == ("success", "skipped", "success")
    assert stack.statuses(waiting) == ["REVIEW"]


def test_relay(stack: Stack) -> None:
    text = (ROOT / "docs" / "webhooks.md").read_text()
    recipe = re.search(r"```python\n(# relay\.py\n.*?)```", text, re.DOTALL)
    assert recipe is not None
    names: dict[str, object] = {}
    exec(recipe[1], names)  # noqa: S102 - the recipe is part of this repository
    relay = names["relay"]
    assert callable(relay)
    request_id = stack.decide("customer-relay", "ACCEPTED")
    body = f'{{"requestId": "{request_id}", "status": "ACCEPTED", "fullName": "{NAME}"}}'.encode()
    spelled_otherwise = body.replace(request_id.encode(), request_id.upper().encode()).replace(b"ACC", b"Acc")
    answers = [relay(each, stack.url, stack.api.token) for each in (body, body, spelled_otherwise)]
    assert answers == [200, 409, 409]
    run_id = f"faceki__{request_id}__ACCEPTED"
    state = "SELECT state FROM dag_run WHERE run_id = ?"
    stack.until("the relayed run", lambda: stack.rows(state, run_id) == [("success",)])
    assert stack.tasks(run_id) == {"fetch": "success", "act": "success"}
    for wrong in (b"", b"[]", b'{"requestId": "../../variables", "status": "ACCEPTED"}'):
        with pytest.raises(ValueError, match=r"."):
            relay(wrong, stack.url, stack.api.token)


def test_no_file_of_the_stack_holds_a_secret(stack: Stack) -> None:
    stack.expect_whole_loop(stack.decide("customer-searched", "ACCEPTED"), "ACCEPTED", time.monotonic())
    state = stack.faceki.control.get("state")
    assert isinstance(state, dict)
    links = {str(each["link"]) for each in state["links"]}
    assert links
    hidden = {TOKEN, PREVIOUS, SECRET, WEAK, PASSWORD, NAME, *PERSON.values(), *links}
    files = [path for path in stack.airflow.home.rglob("*") if path.is_file()]
    assert any(path.name.startswith("attempt=") for path in files)
    assert "/faceki/webhook/***/***" in (stack.airflow.printed / "api-server.log").read_text()
    leaks = [(path.name, each) for path in files for each in hidden if each.encode() in path.read_bytes()]
    # The database may contain links: the summary of a record contains its link, and Airflow stores XCom in the
    # database. This does no harm, because such a link has already been used.
    assert [
        (name, each) for name, each in leaks if not (each in links and name.startswith("airflow.db"))
    ] == []


def test_airflow_lists_the_plugin(stack: Stack) -> None:
    listed = stack.api.call("GET", "plugins")
    ours = next(each for each in listed["plugins"] if each["name"] == "faceki_webhook")
    assert [each["url_prefix"] for each in ours["fastapi_apps"]] == ["/faceki"]
    assert TOKEN not in str(listed)
