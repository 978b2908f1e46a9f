# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The cluster with its sandbox and its S3 server, and runs that read and write everything on that server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property  # noqa: TID251 - no test forks while it is computed
from typing import Any

from airflow_provider_faceki.sandbox import SandboxProcess
from airflow_provider_faceki.sandbox.backend.workflows import WORKFLOW_PASSPORT
from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.airflow.canaries import PERSON
from tests.billing.image_files import image_bytes
from tests.distributed.cluster import ENDED, Cluster
from tests.object_store import BUCKET, ObjectStore

#: Seconds that the sandbox needs for each answer. With the slow value, a batch certainly still runs when a test kills
#: or suspends its worker. The fast value saves time.
SLOW_SECONDS, FAST_SECONDS = 1.0, 0.05
#: Seconds that the sandbox needs for the verification of one person: longer than Airflow needs to start the next try.
VERIFICATION_SECONDS = 90.0


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
        """Numbers of requests, tokens and charged calls that the sandbox has counted."""
        found: Any = self.faceki.control.get("counters")
        return dict(found)


@dataclass
class StartedRun:
    """One run of a DAG with the task `verify`.

    :param site: The cluster.
    :param name: Name of the run and of its folder in the bucket.
    """

    site: Site
    name: str
    run: DagResult = field(init=False)

    @property
    def running(self) -> tuple[str, int] | None:
        """Host and process id of the task while it is running."""
        return self.site.cluster.running(self.run.dag_id, self.run.run_id, "verify")

    def wait_for_end(self) -> None:
        """Wait until the run has ended."""
        self._wait("the end", lambda: self.run.state in ENDED)

    def _put_image(self) -> str:
        """Write the image of this run, and return its URI."""
        key = f"{self.name}/face.jpg"
        self.site.store.put(key, image_bytes())
        return f"s3://{BUCKET}/{key}"

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        def is_over() -> bool:
            # The state is read before `done()` is called. Otherwise this check would fail if `done()` became true and
            # the run ended between the two steps.
            state = self.run.state
            is_done = done()
            assert is_done or state not in ENDED, f"{self.name} has {state} before {what}"
            return is_done

        self.site.cluster.wait(f"{what} of {self.name}", is_over)


@dataclass
class Verification(StartedRun):
    """One run of `verification_on_s3`. The name is the record identifier of the person."""

    def begin(self) -> int:
        """Start the run, wait until the task has sent the whole verification, and return the process id of the task.

        The sandbox needs `VERIFICATION_SECONDS` for its answer, so the task is still waiting for the answer then.
        """
        self._put_image()
        control = self.site.faceki.control
        delay = {"record_identifier": self.name, "delay": VERIFICATION_SECONDS}
        control.post("faults", kind="slow", route="verify", **delay)
        self.run = self.site.cluster.begin("verification_on_s3", {"person": self.name})
        self._wait("the upload", lambda: control.get("faults") == [])
        found = self.running
        assert found is not None
        return found[1]

    @property
    def marks(self) -> list[Any]:
        """The marks in Airflow's task state store: stored notes that a charged call is about to be sent."""
        found = self.site.cluster.rows(
            "SELECT value FROM task_state_store WHERE dag_id = %s AND run_id = %s AND key LIKE %s",
            self.run.dag_id,
            self.run.run_id,
            "faceki_submitting_since%",
        )
        return [json.loads(value) for (value,) in found]

    def wait_for_next_try(self) -> None:
        """Wait until the second try has started, even if it has ended already."""
        self.site.cluster.wait(f"try 2 of {self.name}", lambda: self.run.tries["verify"] > 1)


@dataclass
class Batch(StartedRun):
    """One run of `batch_on_s3`.

    :param size: Number of rows.
    """

    size: int

    @cached_property
    def identifiers(self) -> list[str]:
        """Record identifiers of all rows."""
        return [f"{self.name}-{number}" for number in range(self.size)]

    def begin(self) -> None:
        """Write the manifest and start the run."""
        image = self._put_image()
        # A passport has no back side, so the slow S3 server is asked for two images of each person and not for three.
        passport = {"workflow_id": WORKFLOW_PASSPORT, "selfie": image, "document_1_front": image}
        rows = [{"record_identifier": each, **passport, **PERSON} for each in self.identifiers]
        manifest = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
        self.site.store.put(f"{self.name}/people.ndjson", manifest)
        self.run = self.site.cluster.begin("batch_on_s3", {"folder": self.name})

    @property
    def ledger(self) -> dict[str, int]:
        """Number of bills by record identifier of this batch."""
        return {name: bills for name, bills in self.site.ledger.items() if name.startswith(f"{self.name}-")}

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

        A row has two results if its worker was suspended while the row was processed. The newer try finds the record at
        FACEKI and writes the first result. The older try writes the second result after it resumes.
        """
        store = self.site.store
        parts = [store.get(key) for key in store.keys(f"{self.name}/out/results/")]
        return Counter(json.loads(line)["record_identifier"] for part in parts for line in part.splitlines())
