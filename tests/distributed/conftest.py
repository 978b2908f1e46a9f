# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The fixture ``site``: one cluster for all tests of this folder."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from airflow_provider_faceki.sandbox import SandboxProcess
from tests.airflow.canaries import CLIENT_ID, PERSON, SECRET
from tests.airflow.running import EXAMPLES, HAS_PARTITIONS, ROOT, bundles
from tests.distributed.cluster import Cluster
from tests.distributed.services import redis
from tests.distributed.site import Site
from tests.object_store import BUCKET, ObjectStore, environment
from tests.webhook.postgres import postgres

DAGS = Path(__file__).parent / "dags"
WEBHOOK_TOKEN = secrets.token_urlsafe(32)
#: Folder with everything that the example DAGs read and write.
EXAMPLES_FOLDER = f"s3://{BUCKET}/examples"
RUN_EXAMPLES = ("kyc_link", "verification", "fetch_records", "hook_taskflow", "batch")
DAG_FILES = (
    DAGS / "batch_on_s3.py",
    DAGS / "verification_on_s3.py",
    DAGS / "hosts.py",
    *(EXAMPLES / f"example_faceki_{name}.py" for name in RUN_EXAMPLES),
    *([ROOT / "tests" / "webhook" / "running" / "burst.py"] if HAS_PARTITIONS else []),
)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, _object_store_server: ObjectStore) -> Iterator[Site]:
    """The running cluster."""
    folder, store = tmp_path_factory.mktemp("cluster"), _object_store_server
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        broker = stack.enter_context(redis())
        faceki = stack.enter_context(SandboxProcess(client_id=CLIENT_ID, client_secret=SECRET))
        faceki.control.post("settings", person=PERSON, credit=None)
        settings = {
            **environment(store),
            **_connections(faceki, store),
            **_dags(folder / "dags"),
            **_examples(store),
            "AIRFLOW__FACEKI__WEBHOOK_ENABLED": "True",
            "PYTHONPATH": str(ROOT),
        }
        cluster = Cluster(folder / "home", database, broker, f"s3://{BUCKET}/logs", settings)
        stack.enter_context(cluster)
        cluster.wait_until_ready(*(path.stem for path in DAG_FILES))
        yield Site(cluster, faceki, store)


def _connections(faceki: SandboxProcess, store: ObjectStore) -> dict[str, str]:
    shared = {"token_store": store.uri("tokens"), "timeout": 60, "upload_timeout": 300}
    made = {
        "faceki_default": faceki.connection(**shared),
        "faceki_burst": faceki.connection(**shared, webhook_token=WEBHOOK_TOKEN),
    }
    return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in made.items()}


def _examples(store: ObjectStore) -> dict[str, str]:
    """Return the variables of the example DAGs. Their URIs name no Connection, so boto reads its own variables."""
    folders = ("IMAGES", "RECORDS", "REPORTS", "BATCHES")
    return {
        **{f"FACEKI_EXAMPLE_{name}": EXAMPLES_FOLDER for name in folders},
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }


def _dags(folder: Path) -> dict[str, str]:
    folder.mkdir()
    for path in DAG_FILES:
        shutil.copy(path, folder)
    return {**bundles(folder), "AIRFLOW__CORE__DAGS_FOLDER": str(folder)}
