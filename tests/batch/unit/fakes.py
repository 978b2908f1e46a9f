# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Fakes of everything that the core of a batch uses: storage, clocks, worker pool and FACEKI."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_provider_faceki import api
from airflow_provider_faceki.api.uploads import Multipart
from airflow_provider_faceki.batch.journal import Journal
from airflow_provider_faceki.batch.lease import Clock, Lease
from airflow_provider_faceki.batch.row_processor import BatchOptions
from airflow_provider_faceki.batch.rows import Crashed, Outcome, Row
from airflow_provider_faceki.batch.runner import Job, WorkerPool
from airflow_provider_faceki.batch.verify import BatchVerification
from airflow_provider_faceki.storage_interface import ObjectStore

ROOT = "memory://batch"
START = 1_750_000_000.0
WORKFLOW = "5a4db0c5-0000-4000-8000-000000000001"
#: Bytes that are recognised as a JPEG.
IMAGE = b"\xff\xd8\xff\xe0" + b"\0" * 60


class FakeClock(Clock):
    """Clocks that advance only if a test changes them or if `sleep` is called."""

    def __init__(self) -> None:
        self.now = START
        #: Seconds of suspension. ``time`` and ``boottime`` include them, ``monotonic`` does not.
        self.suspended = 0.0

    def time(self) -> float:
        return self.now + self.suspended

    def monotonic(self) -> float:
        return self.now

    def boottime(self) -> float:
        return self.now + self.suspended

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.001)


class MemoryStore(ObjectStore):
    """A storage in memory. ``before`` and ``after`` are called around each operation and can raise errors."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.before: Callable[[str, str], None] = lambda operation, uri: None
        self.after: Callable[[str, str], None] = lambda operation, uri: None
        self.operations = Counter[str]()

    def _do(self, operation: str, uri: str, act: Callable[[], Any]) -> Any:
        self.operations[operation] += 1
        self.before(operation, uri)
        result = act()
        self.after(operation, uri)
        return result

    def write(self, uri: str, content: bytes) -> None:
        self._do("write", uri, lambda: self.files.__setitem__(uri, content))

    def read(self, uri: str) -> bytes:
        def act() -> bytes:
            if uri not in self.files:
                raise api.ValidationError("no such file")
            return self.files[uri]

        content: bytes = self._do("read", uri, act)
        return content

    def list(self, folder: str) -> list[str]:
        prefix = f"{folder}/"
        found: list[str] = self._do(
            "list",
            folder,
            lambda: sorted(
                uri for uri in self.files if uri.startswith(prefix) and "/" not in uri[len(prefix) :]
            ),
        )
        return found

    def delete(self, uri: str) -> None:
        self._do("delete", uri, lambda: self.files.pop(uri, None))


class InlinePool(WorkerPool):
    """Pool that runs a job when its result is requested; ``choose`` selects one of the queued jobs."""

    def __init__(
        self, work: Callable[[Job], Outcome], choose: Callable[[int], int] = lambda count: 0
    ) -> None:
        self._work = work
        self._choose = choose
        self._queue: deque[Job] = deque()
        self.pending = 0

    def submit(self, job: Job) -> None:
        self.pending += 1
        self._queue.append(job)

    def next_result(self, timeout: float) -> Outcome | None:
        if not self._queue:
            return None
        self._queue.rotate(-self._choose(len(self._queue)))
        job = self._queue.popleft()
        self.pending -= 1
        try:
            return self._work(job)
        except Exception as error:  # noqa: BLE001 - same behaviour as the real pool
            return Crashed(error)

    def cancel_pending(self) -> list[Job]:
        cancelled, self.pending = list(self._queue), 0
        self._queue.clear()
        return cancelled


@dataclass
class FakeFaceki:
    """FACEKI behind a hook: it bills, stores records, and responds as the test defines.

    :param clock: The clocks.
    """

    clock: FakeClock
    bills: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    keeps_records: bool = True
    #: Called before a call is processed. It can raise an error for a request that never reached FACEKI.
    before: Callable[[str, str], None] = lambda kind, identifier: None
    #: Called after a verification was billed. It can raise an error for a lost response.
    after: Callable[[str], None] = lambda identifier: None
    #: Returns the seconds after which a record is shown.
    show_after: Callable[[str], float] = lambda identifier: 0.0
    #: Returns FACEKI's refusal of a verification, or None.
    refuse: Callable[[str], api.FacekiError | None] = lambda identifier: None
    _records: list[tuple[float, api.VerificationRecord]] = field(default_factory=list)

    def workflow_rules(self, workflow_id: str) -> api.WorkflowRules | None:
        return None

    def get_workflow_rules(self, workflow_id: str) -> api.WorkflowRules:
        raise api.NotFoundError("no such page", http_status=404)

    def call(self, endpoint: Any) -> Any:
        if isinstance(endpoint, api.PerformKycVerification):
            return self._verify(endpoint)
        if isinstance(endpoint, api.FindKycVerification):
            return self._find(endpoint)
        if isinstance(endpoint, api.FetchRecords):
            self.calls["fetch"] += 1
            return self._shown(str(endpoint.record_identifier))
        raise AssertionError(endpoint)

    def add_record(self, identifier: str, decision: str | None = "ACCEPTED", age: float = 0.0) -> None:
        """Store a record that no batch has created."""
        self._keep(identifier, decision, age)

    def _verify(self, endpoint: api.PerformKycVerification) -> api.KycVerification:
        identifier = endpoint.record_identifier
        self.calls["verify"] += 1
        self.before("verify", identifier)
        body = endpoint.request().body
        assert isinstance(body, Multipart)
        for _ in body.chunks():
            pass
        if refusal := self.refuse(identifier):
            raise refusal
        self.bills[identifier] += 1
        record = self._keep(identifier, "ACCEPTED", 0.0)
        self.after(identifier)
        return api.KycVerification(record, is_whole=False)

    def _find(self, endpoint: api.FindKycVerification) -> api.KycVerification | None:
        identifier = str(endpoint.record_identifier)
        self.calls["find"] += 1
        self.before("find", identifier)
        records = [
            record
            for record in self._shown(identifier)
            if endpoint.not_before is None
            or record.created_at is None
            or record.created_at.timestamp() >= endpoint.not_before
        ]
        return api.KycVerification(records[-1], is_whole=True) if records else None

    def _shown(self, identifier: str) -> list[api.VerificationRecord]:
        now = self.clock.time()
        return [
            record
            for shown_at, record in self._records
            if record.record_identifier == identifier and shown_at <= now
        ]

    def _keep(self, identifier: str, decision: str | None, age: float) -> api.VerificationRecord:
        made_at = self.clock.time() - age
        record = api.VerificationRecord(
            {
                "record_identifier": identifier,
                "requestId": f"request-{len(self._records)}",
                "decision": decision,
                "createdAt": datetime.fromtimestamp(made_at, UTC).isoformat(),
            }
        )
        if self.keeps_records:
            self._records.append((made_at + self.show_after(identifier), record))
        return record


def rows(*identifiers: str) -> list[Row]:
    """Return rows that can be verified."""
    return [
        Row(number, {"record_identifier": name, "selfie": "s3://b/s.jpg", "document_1_front": "s3://b/f.jpg"})
        for number, name in enumerate(identifiers, 1)
    ]


def load_image(name: str, place: str) -> api.Image:
    """Return the same image for each name and place."""
    return api.Image.of_bytes(name, IMAGE)


DEFAULTS: dict[str, Any] = {
    "concurrency": 4,
    "workflow_id": WORKFLOW,
    "include_records": False,
    "check_rules": True,
    "resubmit": "if_absent",
    "assume_new": False,
    "resubmit_after": 150.0,
    "lookup_timeout": 30.0,
    "max_error_rate": 1.0,
    "max_verifications": None,
}


@dataclass
class World:
    """A storage, FACEKI and clocks, in which tries of one batch run."""

    clock: FakeClock = field(default_factory=FakeClock)
    store: MemoryStore = field(default_factory=MemoryStore)
    choose: Callable[[int], int] = lambda count: 0
    load_image: Callable[[str, str], api.Image] = load_image
    batch_id: str = "batch"
    is_killed: bool = False
    faceki: FakeFaceki = field(init=False)

    def __post_init__(self) -> None:
        self.faceki = FakeFaceki(self.clock)

    def run(
        self, manifest: list[Row], second_reading: list[Row] | None = None, **options: Any
    ) -> BatchVerification:
        """Run one try and return it; its ``journal`` contains the results of all tries.

        :param second_reading: The manifest in the second pass. By default, it is the same as in the first pass.
        """
        journal = Journal(ROOT, self.store, clock=self.clock)
        lease = Lease(self.store, journal.leases, self.batch_id, self.clock)
        lease.acquire()
        journal.load()
        batch = BatchVerification(
            hook=self.faceki,
            load_image=self.load_image,
            journal=journal,
            lease=lease,
            options=BatchOptions(**{**DEFAULTS, **options}),
            is_killed=lambda: self.is_killed,
            clock=self.clock,
            make_pool=lambda size, work: InlinePool(work, self.choose),
        )
        readings = iter([manifest, manifest if second_reading is None else second_reading])
        batch.run(lambda: iter(next(readings)), len(manifest))
        return batch

    def journal(self) -> Journal:
        """Return a journal that contains the results of all tries."""
        journal = Journal(ROOT, self.store, clock=self.clock)
        journal.load()
        return journal

    def lines(self, folder: str) -> Iterator[Any]:
        """Yield the lines of a log."""
        journal = self.journal()
        yield from getattr(journal, folder).lines()
