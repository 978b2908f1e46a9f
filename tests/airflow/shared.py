# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""One complete Airflow, with its DAGs, Connections and sandboxes, for all tests that do not stop any of its services.

A test gets this Airflow from the fixture `shared_airflow`. Each group of tests has its own sandbox, so the groups do
not count each other's requests. The example DAGs use the Connection ``faceki_default``, which leads to the sandbox
``default``.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from airflow_provider_faceki.sandbox import SandboxProcess
from demo.airflow_stack import Airflow
from tests.airflow.canaries import CLIENT_ID
from tests.airflow.canaries import SECRET as CANARY
from tests.airflow.running import AIRFLOW_3, EXAMPLES, HAS_PARTITIONS, bundles
from tests.airflow.whole_airflow import WholeAirflow
from tests.object_store import ObjectStore
from tests.webhook.served import PREVIOUS, SECRET, TOKEN, WEAK

TESTS = Path(__file__).resolve().parents[1]
#: Folders with the DAGs of the groups of tests.
DAGS = (TESTS / "lineage" / "dags", TESTS / "batch" / "dags", TESTS / "billing" / "billed_dags")
#: Folders with DAGs that need the asset partitions of Airflow 3.2 and later.
DAGS_WITH_PARTITIONS = (TESTS / "webhook" / "running", EXAMPLES) if HAS_PARTITIONS else ()
#: Names of three batches: the first is killed, the second runs out of credit, and a user ends the third. Each has its
#: own sandbox.
BATCHES = ("killed", "poor", "ended")
USER, PASSWORD = "ada", secrets.token_urlsafe(16)
PORTAL = "https://portal.example/records"
#: Login and password of the Connection for the object store.
STORE_LOGIN, STORE_PASSWORD = "canary-login", "canary-of-the-store"


@dataclass
class RestApi(Airflow):
    """Client of Airflow's REST API that logs in as the only user."""

    def _new_token(self) -> str:
        login = {"username": USER, "password": PASSWORD}
        token: str = requests.post(f"{self.url}/auth/token", json=login, timeout=300).json()["access_token"]
        return token

    @property
    def token(self) -> str:
        """The bearer token of the user."""
        assert self._token is not None
        return self._token


@dataclass(frozen=True)
class SharedAirflow:
    """The running Airflow.

    `folder` is for the files of the groups of tests; Airflow's home is a folder in it.
    """

    airflow: WholeAirflow
    sandboxes: Mapping[str, SandboxProcess]
    folder: Path
    #: File to which the OpenLineage provider writes its events.
    events: Path
    #: Not usable before Airflow 3, because no API server is running there.
    api: RestApi

    def begin(self, *runs: tuple[str, str, Mapping[str, object]]) -> None:
        """Unpause DAGs and start runs of them, each from its DAG id, run id and conf."""
        dag_ids = {dag_id for dag_id, _, _ in runs}
        if not AIRFLOW_3:
            commands = (self.airflow.trigger(*run) for run in runs)
            self.airflow.tell(*(("dags", "unpause", dag_id) for dag_id in dag_ids), *commands)
            return
        # The command line is not used here, because each command would first import Airflow, which takes longer.
        for dag_id in dag_ids:
            self.api.unpause(dag_id)
        for dag_id, run_id, conf in runs:
            self.api.trigger(dag_id, conf, run_id)

    def clear_failed(self, dag_id: str, run_id: str) -> None:
        """Clear the failed tasks of a run, so that Airflow runs them again."""
        if AIRFLOW_3:
            document = {"dag_run_id": run_id, "only_failed": True, "dry_run": False}
            self.api.call("POST", f"dags/{dag_id}/clearTaskInstances", document, repeat_post=True)
        else:
            self.airflow.tell(("tasks", "clear", dag_id, "--only-failed", "--yes"))


@contextmanager
def shared(folder: Path, store: ObjectStore) -> Iterator[SharedAirflow]:
    """Start the sandboxes and Airflow, and end them when the `with` block ends."""
    with ExitStack() as stack:
        names = ("default", "lineage", *BATCHES)
        sandboxes = {name: stack.enter_context(SandboxProcess()) for name in names}
        canaries = SandboxProcess(client_id=CLIENT_ID, client_secret=CANARY)
        sandboxes["billing"] = stack.enter_context(canaries)
        events = folder / "events.ndjson"
        environment = {
            **_dags(folder),
            **_connections(sandboxes),
            **_access(folder),
            **_lineage(events, store),
            "AIRFLOW__CORE__PARALLELISM": "4" if AIRFLOW_3 else "1",
            "AIRFLOW__FACEKI__WEBHOOK_ENABLED": "True",
            "FACEKI_EXAMPLE_OPEN": (folder / "open").as_uri(),
            "LINEAGE_FOLDER": (folder / "lineage").as_uri(),
            "BILLED_FOLDER": (folder / "billing").as_uri(),
        }
        airflow = stack.enter_context(WholeAirflow(folder / "home", environment))
        api = RestApi(airflow.home, airflow.ports.get("api-server", 0))
        yield SharedAirflow(airflow, sandboxes, folder, events, api)


def _dags(folder: Path) -> dict[str, str]:
    if AIRFLOW_3:
        return bundles(*DAGS, *DAGS_WITH_PARTITIONS)
    # Airflow 2 reads the DAGs of one folder.
    together = folder / "dags"
    together.mkdir()
    for each in DAGS:
        (together / each.parent.name).symlink_to(each)
    return {"AIRFLOW__CORE__DAGS_FOLDER": str(together)}


def _connections(sandboxes: Mapping[str, SandboxProcess]) -> dict[str, str]:
    signed = {"webhook_hmac_secret": SECRET, "webhook_hmac_header": "X-Signature"}
    default, lineage, billing = (sandboxes[name] for name in ("default", "lineage", "billing"))
    aws = {
        "conn_type": "aws",
        "login": STORE_LOGIN,
        "password": STORE_PASSWORD,
        "extra": {"region_name": "us-east-1", "config_kwargs": {"s3": {"addressing_style": "path"}}},
    }
    portal = {"portal_record_url": f"{PORTAL}/{{requestId}}"}
    made: dict[str, Mapping[str, object]] = {
        "faceki_default": default.connection(webhook_token=TOKEN, webhook_token_previous=PREVIOUS),
        "faceki_burst": default.connection(webhook_token=TOKEN),
        "faceki_signed": default.connection(webhook_token=TOKEN, **signed),
        "faceki_weak": default.connection(webhook_token=WEAK),
        "faceki_lineage": lineage.connection(token_store="memory", **portal),
        "faceki_limited": lineage.connection(token_store="memory", max_charged_calls=2),
        "faceki_billing": billing.connection(max_attempts=1, timeout=20, upload_timeout=20),
        "aws_kyc": aws,
    }
    for name in BATCHES:
        slow = {"timeout": 60, "upload_timeout": 60, "token_store": "memory"}
        made[f"faceki_{name}"] = sandboxes[name].connection(**slow)
    return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(each) for name, each in made.items()}


def _access(folder: Path) -> dict[str, str]:
    passwords = folder / "passwords.json"
    passwords.write_text(json.dumps({USER: PASSWORD}))
    return {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.default",
    }


def _lineage(events: Path, store: ObjectStore) -> dict[str, str]:
    transport = {"type": "file", "log_file_path": str(events), "append": True}
    return {
        # The libraries of AWS read this variable. So the Connection needs no endpoint, and is the same as for AWS
        # itself.
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.port}",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "tested",
    }
