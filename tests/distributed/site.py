# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The cluster with the sandbox and the S3 server that it uses, and batches of which everything is on that server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property  # noqa: TID251 - no test forks while it is computed
from typing import Any

from airflow_provider_faceki.sandbox import SandboxProcess
from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.airflow.canaries import PERSON
from tests.billing.image_files import image_bytes
from tests.distributed.cluster import ENDED, Cluster
from tests.object_store import BUCKET, ObjectStore

DAG_ID = "batch_on_s3"
#: Seconds that the sandbox needs for each answer: so slow that a batch is certainly not over, or fast to save time.
SLOW_SECONDS, FAST_SECONDS = 1.0, 0.05


@dataclass(frozen=True)
class Site:
    """Everything that runs.

    :param cluster: Airflow's hosts.
    :param faceki: The sandbox. The person in its records is a canary.
    :param store: The S3 server with manifests, outputs, remote logs and the shared token store.
    """

    cluster: Cluster
    faceki: SandboxProcess
    store: ObjectStore

    def slow_down(self, seconds: float) -> None:
        """Set the time that the sandbox needs for each answer."""
        self.faceki.control.post("settings", latency=seconds)

    @property
    def ledger(self) -> dict[str, int]:
        """Number of bills by record identifier."""
        state: Any = self.faceki.control.get("state")
        return dict(state["ledger"])

    @property
    def counters(self) -> dict[str, Any]:
        """Counters of the sandbox."""
        found: Any = self.faceki.control.get("counters")
        return dict(found)


@dataclass
class Batch:
    """One run of `batch_on_s3`.

    :param site: The cluster.
    :param name: Name of the batch and of its folder in the bucket.
    :param size: Number of rows.
    """

    site: Site
    name: str
    size: int
    run: DagResult = field(init=False)

    @cached_property
    def identifiers(self) -> list[str]:
        """Record identifiers of all rows."""
        return [f"{self.name}-{number}" for number in range(self.size)]

    def begin(self) -> None:
        """Write the manifest and start the run."""
        store = self.site.store
        store.put(f"{self.name}/face.jpg", image_bytes())
        image = f"s3://{BUCKET}/{self.name}/face.jpg"
        card = {"document_1_front": image, "document_1_back": image}
        rows = [{"record_identifier": each, "selfie": image, **card, **PERSON} for each in self.identifiers]
        store.put(f"{self.name}/people.ndjson", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
        self.run = self.site.cluster.begin(DAG_ID, {"folder": self.name})

    @property
    def ledger(self) -> dict[str, int]:
        """Number of bills by record identifier of this batch."""
        return {name: bills for name, bills in self.site.ledger.items() if name.startswith(f"{self.name}-")}

    @property
    def running(self) -> tuple[str, int] | None:
        """Host and process id of the task while it is running."""
        return self.site.cluster.running(DAG_ID, self.run.run_id, "verify")

    @property
    def tries(self) -> int:
        """Number of tries that have begun to work."""
        return len(self.site.store.keys(f"{self.name}/out/_journal/tries/"))

    def wait_for_bills(self, number: int) -> None:
        """Wait until this number of rows has been billed."""
        self._wait(f"{number} bills", lambda: len(self.ledger) >= number)

    def wait_for_try(self, number: int) -> None:
        """Wait until this try has begun to work."""
        self._wait(f"try {number}", lambda: self.tries >= number)

    def wait_for_end(self) -> None:
        """Wait until the run has ended."""
        self._wait("the end", lambda: self.run.state in ENDED)

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        def is_over() -> bool:
            # The state is read first. Otherwise the run could end between the two questions.
            state = self.run.state
            is_done = done()
            assert is_done or state not in ENDED, f"{self.name} has {state} before {what}"
            return is_done

        self.site.cluster.wait(f"{what} of {self.name}", is_over)

    def check(self) -> None:
        """Check that each person was billed once and has a result."""
        assert self.run.state == "success"
        assert Counter(self.ledger) == Counter(self.identifiers)
        assert set(self.results) == set(self.identifiers)
        told = self.run.xcom("verify")
        assert (told["rows"], told["decisions"], told["errors"]) == (self.size, {"ACCEPTED": self.size}, {})

    @property
    def results(self) -> Counter[str]:
        """Number of results by record identifier.

        A row that was in flight when its worker was frozen has two: one of the newer try, which looks it up, and one of
        the older try, which wakes up.
        """
        store = self.site.store
        parts = [store.get(key) for key in store.keys(f"{self.name}/out/results/")]
        return Counter(json.loads(line)["record_identifier"] for part in parts for line in part.splitlines())
