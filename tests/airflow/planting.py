# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A sandbox that contains canaries, and Connections with each fault, for `every_path` and `every_image`."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_faceki.sandbox import SandboxProcess
from airflow_provider_faceki.sandbox.backend.workflows import DEFAULT_WORKFLOW
from tests.airflow import given
from tests.airflow.canaries import CLIENT_ID, OTHER_SECRET, PERSON, PROXY_PASSWORD, SECRET
from tests.airflow.dags.every_image import VERIFY_FAULTS
from tests.airflow.dags.every_path import DEAD_LINKS, FAULTS

UNKNOWN_LINK = "0b5cde5e-3a52-4e8c-9f0f-6a0c1d2e3f40"
IN_QUERY = {"auth_flow": "access_token_query"}


@dataclass(frozen=True)
class Planted:
    """A running sandbox, the environment variables for Airflow, and the conf of the DAG runs."""

    faceki: SandboxProcess
    environment: Mapping[str, str]
    conf: Mapping[str, str]

    @property
    def links(self) -> set[str]:
        """All links, including the links that tasks created."""
        state: Any = self.faceki.control.get("state")
        return {made["link"] for made in state["links"]} | {UNKNOWN_LINK}


@contextmanager
def planted(folder: Path) -> Iterator[Planted]:
    """Start the sandbox with canaries. `folder` receives the full records, so it must contain the personal data."""
    with SandboxProcess(client_id=CLIENT_ID, client_secret=SECRET) as faceki:
        faceki.control.post("settings", person=PERSON)
        inputs = folder.with_name("given")
        _give(faceki, inputs)
        conf = {**_prepare_outcomes(faceki), **_prepare_image_outcomes(faceki)}
        environment = {
            **{
                f"AIRFLOW_CONN_{name.upper()}": json.dumps(made)
                for name, made in _connections(faceki).items()
            },
            "EVERY_PATH_OUTPUT": folder.as_uri(),
            "EVERY_PATH_GIVEN": inputs.as_uri(),
            "FACEKI_EXAMPLE_RECORDS": folder.as_uri(),
            "FACEKI_EXAMPLE_IMAGES": inputs.as_uri(),
            "FACEKI_EXAMPLE_REPORTS": f"{folder.as_uri()}/reports",
            "FACEKI_EXAMPLE_BATCHES": f"{inputs.as_uri()}/example",
        }
        with _reviewing(faceki):
            yield Planted(faceki, environment, conf)


def _give(faceki: SandboxProcess, folder: Path) -> None:
    given.images(folder)
    given.people(folder, "many", "many")
    given.people(folder, "many-more", "more")
    (folder / "example").mkdir()
    given.people(folder, "example/manifest", "example")
    answered = str(faceki.control.post("links", record_identifier="in-a-manifest"))
    faceki.control.post("decide", link=answered, decision="ACCEPTED")
    given.links(folder, answered, UNKNOWN_LINK)


def _prepare_image_outcomes(faceki: SandboxProcess) -> dict[str, str]:
    control = faceki.control
    for name, fault in VERIFY_FAULTS.items():
        control.post("faults", route="verify", record_identifier=name, count=None, **fault)
    reported: Any = control.post("records", record_identifier="reported")
    return {"reported": reported["requestId"]}


@contextmanager
def _reviewing(faceki: SandboxProcess) -> Iterator[None]:
    """Simulate a reviewer at FACEKI who decides the case `reviewed` after a task has polled it."""
    record: Any = faceki.control.post("records", record_identifier="reviewed", decision="REVIEW")
    over = threading.Event()

    def review() -> None:
        while not faceki.control.get("polls", key="record_identifier=reviewed"):
            if over.wait(0.5):
                return
        over.wait(0.5)
        faceki.control.post("decide", request_id=record["requestId"], decision="ACCEPTED")

    reviewer = threading.Thread(target=review, name="reviewer")
    reviewer.start()
    try:
        yield
    finally:
        over.set()
        reviewer.join()


def _prepare_outcomes(faceki: SandboxProcess) -> dict[str, str]:
    """Create the records, links and faults for each task of `every_path`; return the conf of its run."""
    control = faceki.control
    for name in ("writes_records", "too_large", "unwritable", "customer-1001"):
        control.post("records", record_identifier=name)
    control.post("records", record_identifier="declined", decision="DECLINED", code=5005)
    conf = {"workflow": DEFAULT_WORKFLOW, "link_unknown": UNKNOWN_LINK}
    for name in (
        "waits_poke",
        "waits_reschedule",
        "waits_deferred",
        "no_time_left",
        *DEAD_LINKS[:2],
        *FAULTS,
    ):
        conf[name] = str(control.post("links", record_identifier=name))
        if name.startswith(("waits_", "fault_")):
            control.post("decide", link=conf[name], decision="ACCEPTED")
    for name in DEAD_LINKS[:2]:
        control.post("end-link", link=conf[name], how=name.removeprefix("link_"))
    for name, fault in FAULTS.items():
        control.post("faults", route="records", record_identifier=name, count=None, **fault)
    return conf


def _connections(faceki: SandboxProcess) -> dict[str, Mapping[str, object]]:
    right = faceki.connection(max_attempts=2, max_wait=1, timeout=60)
    extra = right["extra"]
    assert isinstance(extra, dict)

    def wrong(more: Mapping[str, object] = {}, **fields: object) -> Mapping[str, object]:
        return {**right, **fields, "extra": {**extra, **more}}

    nobody, no_tls = f"http://127.0.0.1:{_closed_port()}", faceki.url.replace("http:", "https:")
    proxy = f"http://canary:{PROXY_PASSWORD}@127.0.0.1:{_closed_port()}"
    return {
        "faceki_default": right,
        "faceki_in_query": wrong(IN_QUERY),
        "faceki_wrong_secret": wrong(password=OTHER_SECRET),
        "faceki_wrong_secret_in_query": wrong(IN_QUERY, password=OTHER_SECRET),
        "faceki_unreachable": wrong(host=nobody),
        "faceki_unreachable_in_query": wrong(IN_QUERY, host=nobody),
        "faceki_not_tls": wrong(host=no_tls),
        "faceki_not_tls_in_query": wrong(IN_QUERY, host=no_tls),
        # These are typical mistakes that put a secret into a field whose value an error message could show.
        "faceki_bad_settings": wrong(
            {"timeout": SECRET, "clientsecret": SECRET, SECRET: 1, "verify": SECRET}
        ),
        "faceki_proxy_gone": wrong({"proxies": {"http": proxy}}),
    }


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
