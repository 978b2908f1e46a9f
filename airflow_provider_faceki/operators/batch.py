# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Whole manifests as one task each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from threading import Event
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_faceki import api
from airflow_provider_faceki.failures import airflow_failures
from airflow_provider_faceki.operators.faceki import FacekiOperator
from airflow_provider_faceki.operators.images import load_image
from airflow_provider_faceki.operators.verification import SETTLE_SECONDS, derived_identifier

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_faceki.batch.fetch import FetchOptions
    from airflow_provider_faceki.batch.journal import Journal
    from airflow_provider_faceki.batch.manifest import Row

_BY = ("record_identifier", "request_id", "link", "face_id")
_TABLE_FORMATS = ("ndjson", "parquet")
#: What a manifest's columns are called unless ``columns`` says otherwise.
COLUMNS = (
    "record_identifier",
    "workflow_id",
    "selfie",
    *(f"document_{number}_{side}" for number in (1, 2, 3) for side in ("front", "back")),
)


class FacekiBatchVerificationOperator(FacekiOperator):
    """Verify everybody in a manifest. Each is billed once, also when the task is killed and tried again.

    ``output_path`` is the batch's memory: a further try with the same one goes on where the last one was. See
    ``docs/batch.md``.

    XCom: ``{"rows", "decisions": {word: count}, "errors": {code: count}, "results_path", "errors_path",
    "records_path"}``, the counts over all tries.

    :param manifest: URI of the manifest, in any storage that Airflow knows: NDJSON, CSV or Parquet (extra
        ``parquet``), a row a person.
    :param output_path: URI of a folder for results and errors. Use a new one for each batch.
    :param columns: What columns are called in the manifest, by what they are called here: ``record_identifier``
        (required, a new one for each verification), ``workflow_id``, ``selfie``, ``document_1_front``,
        ``document_1_back``, and so on to 3. Default: just so.
    :param manifest_format: ``ndjson``, ``csv`` or ``parquet``. Default: by the file's ending.
    :param workflow_id: Workflow of rows that name none. Default: the Connection's.
    :param concurrency: Verifications in flight at once. Default 16. The Connection's ``max_concurrency`` and
        ``max_requests_per_second`` hold too.
    :param include_records: Whether full records, with personal data, are written to a folder of their own; a
        further request each. Default ``False``.
    :param check_rules: Whether documents are held against the workflow's rules before paying. Default ``True``.
    :param resize_to: Pixels of the longer side to which larger pictures are reduced (extra ``images``).
    :param settle_seconds: Seconds that FACEKI is given to finish what may have been sent, before its absence is
        believed. Default 150.
    :param patience: Seconds to look for a record right after its answer was lost. Default 30.
    :param max_error_share: Share of error rows (0 to 1) above which the batch ends early. Default 1: never.
    :param manifest_conn_id: Connection for the manifest's storage. Default: the storage's own default.
    :param image_conn_id: Connection for the images' storage. Default: the storage's own default.
    :param output_conn_id: Connection for the output's storage. Default: the storage's own default.
    :param faceki_conn_id: Connection of type ``faceki``.
    """

    template_fields: Sequence[str] = (
        *FacekiOperator.template_fields,
        "manifest",
        "output_path",
        "workflow_id",
        "manifest_conn_id",
        "image_conn_id",
        "output_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        *,
        manifest: str,
        output_path: str,
        columns: Mapping[str, str] | None = None,
        manifest_format: str | None = None,
        workflow_id: str | None = None,
        concurrency: int = 16,
        include_records: bool = False,
        check_rules: bool = True,
        resize_to: int | None = None,
        settle_seconds: float = SETTLE_SECONDS,
        patience: float = 30.0,
        max_error_share: float = 1.0,
        manifest_conn_id: str | None = None,
        image_conn_id: str | None = None,
        output_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        unknown = set(columns or ()) - set(COLUMNS)
        if unknown:
            raise ValueError(
                f"columns: unknown {', '.join(sorted(unknown))}; allowed are {', '.join(COLUMNS)}"
            )
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        if not 0 <= max_error_share <= 1:
            raise ValueError(f"max_error_share must be between 0 and 1, not {max_error_share}")
        self.manifest = manifest
        self.output_path = output_path
        self.columns = columns
        self.manifest_format = manifest_format
        self.workflow_id = workflow_id
        self.concurrency = concurrency
        self.include_records = include_records
        self.check_rules = check_rules
        self.resize_to = resize_to
        self.settle_seconds = settle_seconds
        self.patience = patience
        self.max_error_share = max_error_share
        self.manifest_conn_id = manifest_conn_id
        self.image_conn_id = image_conn_id
        self.output_conn_id = output_conn_id
        self._killed = Event()

    def execute(self, context: Context) -> dict[str, Any]:
        """Go through the manifest."""
        from airflow_provider_faceki.batch.journal import Journal
        from airflow_provider_faceki.batch.progress import Progress

        with airflow_failures():
            total = sum(1 for _ in self._rows())
            journal = Journal(self.output_path, self.output_conn_id)
            journal.load()
            before = journal.decisions.total() + journal.errors.total()
            self.log.info("%d rows, %d of them done by earlier tries", total, before)
            self._run(journal, total, Progress(total, before))
        return {
            "rows": total,
            "decisions": dict(journal.decisions),
            "errors": dict(journal.errors),
            "results_path": journal.folder("results"),
            "errors_path": journal.folder("errors"),
            "records_path": journal.folder("records") if self.include_records else None,
        }

    def on_kill(self) -> None:
        """End soon: what is finished is kept, what is in flight is looked for by the next try."""
        self._killed.set()

    def _run(self, journal: Journal, total: int, progress: Any) -> None:
        from airflow_provider_faceki.batch.verification import BatchOptions, BatchVerification

        batch = BatchVerification(
            hook=self.hook,
            load_image=lambda name, uri: load_image(self.hook, name, uri, self.image_conn_id, self.resize_to),
            journal=journal,
            options=BatchOptions(
                concurrency=self.concurrency,
                workflow_id=self.workflow_id,
                include_records=self.include_records,
                check_rules=self.check_rules,
                settle_seconds=self.settle_seconds,
                patience=self.patience,
                max_error_share=self.max_error_share,
            ),
            killed=self._killed,
        )
        try:
            batch.run(self._rows(), progress)
        except api.FacekiError as error:
            left = total - journal.decisions.total() - journal.errors.total()
            error.message = (
                f"{error.message}; {left} of {total} rows are left, and the next try goes on with them"
            )
            raise
        if batch.unfinished:
            raise api.OutcomeUnknownError(
                f"{batch.unfinished} of {total} rows could not be settled; the next try goes on with them"
            )

    def _rows(self) -> Iterator[Row]:
        from airflow_provider_faceki.batch import manifest

        columns = {name: (self.columns or {}).get(name, name) for name in COLUMNS}
        return manifest.rows(self.manifest, columns, self.manifest_conn_id, self.manifest_format)


class FacekiBatchFetchRecordsOperator(FacekiOperator):
    """Fetch the records of many identifiers into tables: verifications, documents, aml_hits, images.

    All about the person is dropped unless ``personal_data`` says otherwise; see ``docs/batch.md`` for the
    columns. A rerun of the same run replaces its own files and nobody else's; a further try goes on where the
    last one was.

    XCom: ``{"rows", "decisions": {word: count}, "errors": {code: count}, "tables": {name: folder}}``.

    :param output_path: URI of the folder for the tables, in any storage that Airflow knows.
    :param identifiers: The identifiers, such as another task's output; or
    :param manifest: URI of a manifest with them: NDJSON, CSV or Parquet (extra ``parquet``).
    :param by: What they are: ``record_identifier`` (default), ``request_id``, ``link`` or ``face_id``.
    :param column: The manifest's column that holds them. Default: what ``by`` says.
    :param manifest_format: ``ndjson``, ``csv`` or ``parquet``. Default: by the file's ending.
    :param output_format: ``ndjson`` (default) or ``parquet``.
    :param personal_data: ``keep``, ``drop`` or ``hash`` by ``table.column`` or ``table.*``. Default: ids,
        decisions, codes, flags and times are kept, all else is dropped. ``hash`` needs ``pii_hash_key`` in the
        Connection.
    :param partition_by_date: Whether the files go into a folder ``date=YYYY-MM-DD`` of the run. Default
        ``False``.
    :param concurrency: Requests in flight at once. Default 16.
    :param manifest_conn_id: Connection for the manifest's storage. Default: the storage's own default.
    :param output_conn_id: Connection for the output's storage. Default: the storage's own default.
    :param faceki_conn_id: Connection of type ``faceki``.
    """

    template_fields: Sequence[str] = (
        *FacekiOperator.template_fields,
        "output_path",
        "identifiers",
        "manifest",
        "manifest_conn_id",
        "output_conn_id",
    )

    def __init__(
        self,
        *,
        output_path: str,
        identifiers: Sequence[str] | None = None,
        manifest: str | None = None,
        by: str = "record_identifier",
        column: str | None = None,
        manifest_format: str | None = None,
        output_format: str = "ndjson",
        personal_data: Mapping[str, str] | None = None,
        partition_by_date: bool = False,
        concurrency: int = 16,
        manifest_conn_id: str | None = None,
        output_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if by not in _BY:
            raise ValueError(f"by must be one of {', '.join(_BY)}, not {by!r}")
        if output_format not in _TABLE_FORMATS:
            raise ValueError(
                f"output_format must be one of {', '.join(_TABLE_FORMATS)}, not {output_format!r}"
            )
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        self.output_path = output_path
        self.identifiers = identifiers
        self.manifest = manifest
        self.by = by
        self.column = column
        self.manifest_format = manifest_format
        self.output_format = output_format
        self.personal_data = personal_data
        self.partition_by_date = partition_by_date
        self.concurrency = concurrency
        self.manifest_conn_id = manifest_conn_id
        self.output_conn_id = output_conn_id
        self._killed = Event()

    def execute(self, context: Context) -> dict[str, Any]:
        """Fetch all."""
        from airflow_provider_faceki.batch.fetch import BatchFetch
        from airflow_provider_faceki.batch.progress import Progress
        from airflow_provider_faceki.batch.tables import TABLES

        with airflow_failures():
            total = sum(1 for _ in self._rows())
            fetch = BatchFetch(self.hook, self._options(context), self._killed)
            fetch.run(self._rows(), Progress(total, 0))
        return {
            "rows": total,
            "decisions": dict(fetch.decisions),
            "errors": dict(fetch.errors),
            "tables": {table: fetch.folder(table) for table in TABLES},
        }

    def on_kill(self) -> None:
        """End soon: the chunks that are done stay done."""
        self._killed.set()

    def _options(self, context: Context) -> FetchOptions:
        from airflow_provider_faceki.batch.fetch import FetchOptions
        from airflow_provider_faceki.batch.tables import Policy

        return FetchOptions(
            by=self.by,
            concurrency=self.concurrency,
            policy=Policy(self.personal_data or {}, self.hook.settings.pii_hash_key),
            format=self.output_format,
            output_path=self.output_path,
            output_conn_id=self.output_conn_id,
            run=derived_identifier(context["ti"]).removeprefix("airflow-")[:16],
            partition=f"date={_run_date(context)}" if self.partition_by_date else "",
        )

    def _rows(self) -> Iterator[Row]:
        from airflow_provider_faceki.batch import fetch, manifest

        if (self.identifiers is None) == (self.manifest is None):
            raise api.InputError("give exactly one of identifiers and manifest")
        if self.manifest is None:
            return fetch.rows_of(self.identifiers or ())
        columns = {"record_identifier": self.column or self.by}
        return manifest.rows(self.manifest, columns, self.manifest_conn_id, self.manifest_format)


def _run_date(context: Context) -> str:
    """Return the date of the run: of its data where it has a logical date, else of its start."""
    run = context["dag_run"]
    moment = run.logical_date or getattr(run, "run_after", None) or run.start_date or datetime.now(UTC)
    return str(moment.date())
