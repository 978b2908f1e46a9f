# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Whole manifests as one task each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_faceki import api
from airflow_provider_faceki.batch import arguments
from airflow_provider_faceki.batch.manifest import COLUMNS as COLUMNS
from airflow_provider_faceki.batch.manifest import MANIFEST_FORMATS, REQUIRED_COLUMNS
from airflow_provider_faceki.batch.tables import TABLE_FORMATS
from airflow_provider_faceki.failures import translate_errors
from airflow_provider_faceki.operators.faceki import FacekiOperator
from airflow_provider_faceki.operators.images import as_prefixes, check_resize_to, load_image
from airflow_provider_faceki.operators.verification import DEFAULT_RESUBMIT_AFTER_SECONDS, derived_identifier

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_faceki.batch.fetch import FetchOptions
    from airflow_provider_faceki.batch.journal import Journal
    from airflow_provider_faceki.batch.manifest import Row
    from airflow_provider_faceki.batch.progress import Progress
    from airflow_provider_faceki.batch.verification import BatchOptions
    from airflow_provider_faceki.storage import AccessPolicy

_BY = ("record_identifier", "request_id", "link", "face_id")
_RESUBMIT = ("if_absent", "never")


class _BatchOperator(FacekiOperator):
    """What the operators for many share.

    :param output_path: URI of the folder for what comes out, in any storage that Airflow knows.
    :param manifest_format: ``ndjson``, ``csv`` or ``parquet``. Default: by the file's ending.
    :param concurrency: Requests in flight at once, 1 to 256. Default 16.
    :param max_error_rate: Share of error rows (0 to 1) above which the batch ends early. Default 1: never.
    :param manifest_conn_id: Connection for the manifest's storage. Default: the storage's own default.
    :param output_conn_id: Connection for the output's storage. Default: the storage's own default.
    """

    template_fields: Sequence[str] = (
        *FacekiOperator.template_fields,
        "output_path",
        "manifest_conn_id",
        "output_conn_id",
    )

    def __init__(
        self,
        *,
        output_path: str,
        manifest_format: str | None = None,
        concurrency: int = 16,
        max_error_rate: float = 1.0,
        manifest_conn_id: str | None = None,
        output_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if manifest_format is not None:
            arguments.check_one_of("manifest_format", manifest_format, MANIFEST_FORMATS)
        arguments.check_concurrency("concurrency", concurrency)
        arguments.check_share("max_error_rate", max_error_rate)
        self.output_path = output_path
        self.manifest_format = manifest_format
        self.concurrency = concurrency
        self.max_error_rate = max_error_rate
        self.manifest_conn_id = manifest_conn_id
        self.output_conn_id = output_conn_id
        # A plain value: an operator is copied, which no lock or event can be.
        self._killed = False

    def on_kill(self) -> None:
        """End soon: what is finished is kept, what is in flight is looked for by the next try."""
        self._killed = True

    def _leave_if_killed(self) -> None:
        from airflow_provider_faceki.batch.shift import leave_if

        leave_if(lambda: self._killed)

    def _count(self, rows: Iterable[Row]) -> int:
        from airflow_provider_faceki.batch.patience import looking_up

        return sum(1 for _ in looking_up(rows, self._leave_if_killed))

    def _warn_of_limit(self) -> None:
        limit = self.hook.settings.max_concurrency
        if self.concurrency > limit:
            self.log.warning(
                "concurrency=%d is more than the Connection's max_concurrency=%d, which holds",
                self.concurrency,
                limit,
            )

    def _check_finished(self, unfinished: int, problem: Exception | None, total: int) -> None:
        if unfinished:
            # What is not of our own making may name a picture, and so a person.
            text = f": {problem}" if isinstance(problem, api.FacekiError) else ""
            told = f" ({type(problem).__name__}{text})" if problem is not None else ""
            raise api.OutcomeUnknownError(
                f"{unfinished} of {total} rows could not be finished{told}; the next try goes on with them"
            )


class FacekiBatchVerificationOperator(_BatchOperator):
    """Verify everybody in a manifest. Each is billed once, also when the task is killed and tried again.

    ``output_path`` is the batch's memory: a further try with the same one goes on where the last one was. See
    ``docs/batch.md``.

    XCom: ``{"rows", "decisions": {word: count}, "errors": {code: count}, "results_path", "errors_path",
    "records_path"}``, the counts over all tries.

    :param manifest: URI of the manifest, in any storage that Airflow knows: NDJSON, CSV or Parquet (extra
        ``parquet``), a row a person.
    :param output_path: URI of a folder for results and errors. Each batch needs its own.
    :param batch_id: What the batch is called, in its ``output_path``. Default: the task instance's ids, so that
        another run cannot go on with it by mistake; to have it do so on purpose, give both the same.
    :param columns: What columns are called in the manifest, by what they are called here: ``record_identifier``
        (a new one for each verification), ``workflow_id``, ``selfie``, ``document_1_front``,
        ``document_1_back``, and so on to 3. Default: just so.
    :param manifest_format: ``ndjson``, ``csv`` or ``parquet``. Default: by the file's ending.
    :param workflow_id: Workflow of rows that name none. Default: the Connection's.
    :param concurrency: Verifications in flight at once, 1 to 256. Default 16. The Connection's ``max_concurrency`` and
        ``max_requests_per_second`` hold too.
    :param include_records: Whether full records, with personal data, are written to a folder of their own; a
        further request each. Default ``False``.
    :param check_rules: Whether documents are held against the workflow's rules before paying. Default ``True``.
    :param resize_to: Pixels of the longer side to which larger pictures are reduced (extra ``images``).
    :param resubmit: ``"if_absent"`` (default) to send a row again that may have been sent if FACEKI, asked after
        ``resubmit_after``, has no record of it; ``"never"`` to make it an error row. Where the workflow keeps no
        records, it always is one.
    :param resubmit_after: Seconds that FACEKI is given to finish what may have been sent, before its absence is
        believed. Default 150.
    :param lookup_timeout: Seconds to look for a record right after its answer was lost. Default 30.
    :param max_error_rate: Share of error rows (0 to 1) above which the batch ends early. Default 1: never.
    :param manifest_conn_id: Connection for the manifest's storage. Default: the storage's own default.
    :param image_conn_id: Connection for the images' storage. Default: the storage's own default.
    :param output_conn_id: Connection for the output's storage. Default: the storage's own default.
    :param allowed_image_prefixes: Folders in which images may lie: absolute local paths, or URIs without a Connection
        such as ``s3://bucket/kyc/``. Default: any folder of a remote storage, and no local file.
    :param allowed_image_conn_ids: Connections that the manifest may name before the ``@`` of a URI. Default: none.
    :param faceki_conn_id: Connection of type ``faceki``.
    """

    template_fields: Sequence[str] = (
        *_BatchOperator.template_fields,
        "manifest",
        "batch_id",
        "workflow_id",
        "image_conn_id",
        "allowed_image_prefixes",
        "allowed_image_conn_ids",
    )

    def __init__(
        self,
        *,
        manifest: str,
        batch_id: str | None = None,
        columns: Mapping[str, str] | None = None,
        workflow_id: str | None = None,
        include_records: bool = False,
        check_rules: bool = True,
        resize_to: int | None = None,
        resubmit: str = "if_absent",
        resubmit_after: float = DEFAULT_RESUBMIT_AFTER_SECONDS,
        lookup_timeout: float = 30.0,
        image_conn_id: str | None = None,
        allowed_image_prefixes: Sequence[str] | None = None,
        allowed_image_conn_ids: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        arguments.check_columns(columns)
        check_resize_to(resize_to)
        arguments.check_one_of("resubmit", resubmit, _RESUBMIT)
        arguments.check_seconds("resubmit_after", resubmit_after)
        arguments.check_seconds("lookup_timeout", lookup_timeout)
        self.manifest = manifest
        self.batch_id = batch_id
        self.columns = columns
        self.workflow_id = workflow_id
        self.include_records = include_records
        self.check_rules = check_rules
        self.resize_to = resize_to
        self.resubmit = resubmit
        self.resubmit_after = resubmit_after
        self.lookup_timeout = lookup_timeout
        self.image_conn_id = image_conn_id
        self.allowed_image_prefixes = allowed_image_prefixes
        self.allowed_image_conn_ids = allowed_image_conn_ids

    def execute(self, context: Context) -> dict[str, Any]:
        """Go through the manifest."""
        from airflow_provider_faceki.batch.journal import Journal
        from airflow_provider_faceki.batch.progress import Progress

        with translate_errors():
            self._warn_of_limit()
            _check_connection("image_conn_id", self.image_conn_id)
            total = self._count(self._rows())
            journal = Journal(self.output_path, self.output_conn_id)
            batch_id = self.batch_id or _name_of(context["ti"])
            self._run(journal, batch_id, Progress(total))
        return {
            "rows": total,
            "decisions": dict(journal.decisions),
            "errors": dict(journal.failures),
            "results_path": journal.results.folder,
            "errors_path": journal.errors.folder,
            "records_path": journal.records.folder if self.include_records else None,
        }

    def _run(self, journal: Journal, batch_id: str, progress: Progress) -> None:
        from airflow_provider_faceki.batch.turn import Turn
        from airflow_provider_faceki.batch.verification import BatchVerification

        turn = Turn(journal.tries, batch_id, self.output_conn_id)
        turn.take()
        journal.load(self._leave_if_killed)
        self.log.info("%d rows, %d of them done by earlier tries", progress.total, journal.done)
        batch = BatchVerification(
            hook=self.hook,
            load_image=partial(self._load_image, self._access_policy()),
            journal=journal,
            turn=turn,
            options=self._options(),
            killed=lambda: self._killed,
        )
        try:
            batch.run(self._rows, progress)
        except api.FacekiError as error:
            left = max(0, progress.total - journal.done)
            error.message += (
                f"; {left} of {progress.total} rows are left, and a further try goes on with them"
            )
            raise
        self._check_finished(batch.unfinished, batch.problem, progress.total)

    def _access_policy(self) -> AccessPolicy:
        from airflow_provider_faceki.storage import AccessPolicy

        return AccessPolicy.for_manifest(
            as_prefixes(self.allowed_image_prefixes), self.allowed_image_conn_ids
        )

    def _load_image(self, policy: AccessPolicy, name: str, uri: str) -> api.Image:
        return load_image(self.hook, name, uri, self.image_conn_id, self.resize_to, policy)

    def _options(self) -> BatchOptions:
        from airflow_provider_faceki.batch.verification import BatchOptions

        return BatchOptions(
            concurrency=self.concurrency,
            workflow_id=self.workflow_id,
            include_records=self.include_records,
            check_rules=self.check_rules,
            resubmit_after=self.resubmit_after,
            lookup_timeout=self.lookup_timeout,
            max_error_rate=self.max_error_rate,
            resubmit=self.resubmit,
        )

    def _rows(self) -> Iterator[Row]:
        from airflow_provider_faceki.batch.manifest import read_manifest

        return read_manifest(
            self.manifest,
            arguments.named(self.columns),
            self.manifest_conn_id,
            self.manifest_format,
            REQUIRED_COLUMNS,
        )


class FacekiBatchFetchRecordsOperator(_BatchOperator):
    """Fetch the records of many identifiers into tables: verifications, documents, aml_hits, images.

    All about the person is dropped unless ``personal_data`` says otherwise; see ``docs/batch.md`` for the
    columns. A rerun of the same run replaces its own files and nobody else's; a further try goes on where the
    last one was.

    XCom: ``{"rows", "decisions": {word: count}, "errors": {code: count}, "tables": {name: uri}, "errors_path"}``.

    :param output_path: URI of the folder for the tables, in any storage that Airflow knows.
    :param identifiers: The identifiers, such as another task's output, mapped or not: a list of them, or of
        objects that hold them under ``column``; or
    :param manifest: URI of a manifest with them: NDJSON, CSV or Parquet (extra ``parquet``).
    :param by: What they are: ``record_identifier`` (default), ``request_id``, ``link`` or ``face_id``. Links are
        better in a manifest: Airflow shows what a task is given.
    :param column: The column, or field, that holds them. Default: what ``by`` says.
    :param manifest_format: ``ndjson``, ``csv`` or ``parquet``. Default: by the file's ending.
    :param output_format: ``ndjson`` (default) or ``parquet``.
    :param personal_data: ``keep``, ``drop`` or ``hash`` by ``table.column`` or ``table.*``. Default: ids,
        decisions, codes, flags and times are kept, all else is dropped. ``hash`` needs ``pii_hash_secret`` in the
        Connection.
    :param partition_by_date: Whether the files go into a folder ``date=YYYY-MM-DD`` of the run (UTC). Default
        ``False``.
    :param concurrency: Requests in flight at once, 1 to 256. Default 16.
    :param max_error_rate: Share of error rows (0 to 1) above which it ends early. Default 1: never.
    :param manifest_conn_id: Connection for the manifest's storage. Default: the storage's own default.
    :param output_conn_id: Connection for the output's storage. Default: the storage's own default.
    :param faceki_conn_id: Connection of type ``faceki``.
    """

    template_fields: Sequence[str] = (*_BatchOperator.template_fields, "identifiers", "manifest")

    def __init__(
        self,
        *,
        identifiers: Sequence[Any] | None = None,
        manifest: str | None = None,
        by: str = "record_identifier",
        column: str | None = None,
        output_format: str = "ndjson",
        personal_data: Mapping[str, str] | None = None,
        partition_by_date: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        arguments.check_one_of("by", by, _BY)
        arguments.check_one_of("output_format", output_format, TABLE_FORMATS)
        if personal_data:
            from airflow_provider_faceki.batch.tables import check_choices

            check_choices(personal_data)
        self.identifiers = identifiers
        self.manifest = manifest
        self.by = by
        self.column = column
        self.output_format = output_format
        self.personal_data = personal_data
        self.partition_by_date = partition_by_date

    def execute(self, context: Context) -> dict[str, Any]:
        """Fetch all."""
        from airflow_provider_faceki.api.tables import TABLES
        from airflow_provider_faceki.batch.fetch import BatchFetch
        from airflow_provider_faceki.batch.progress import Progress

        with translate_errors():
            self._warn_of_limit()
            total = self._total()
            fetch = BatchFetch(self.hook, self._options(context), lambda: self._killed)
            fetch.journal.load(self._leave_if_killed)
            self.log.info("%d identifiers, %d of them fetched by earlier tries", total, fetch.journal.done)
            fetch.run(self._rows, Progress(total))
            self._check_finished(fetch.unfinished, fetch.problem, total)
        return {
            "rows": total,
            "decisions": dict(fetch.decisions),
            "errors": dict(fetch.failures),
            "tables": {table: fetch.uri(table) for table in TABLES},
            "errors_path": fetch.uri("errors"),
        }

    def _options(self, context: Context) -> FetchOptions:
        from airflow_provider_faceki.batch.fetch import FetchOptions
        from airflow_provider_faceki.batch.tables import ColumnPolicy

        date = f"date={_run_date(context)}"
        return FetchOptions(
            by=self.by,
            concurrency=self.concurrency,
            policy=ColumnPolicy(self.personal_data or {}, self.hook.settings.pii_hash_secret),
            format=self.output_format,
            output_path=self.output_path,
            output_conn_id=self.output_conn_id,
            run=derived_identifier(context["ti"]).removeprefix("airflow-")[:16],
            partition=date if self.partition_by_date else "",
            partitions=("", date),
            max_error_rate=self.max_error_rate,
        )

    def _total(self) -> int:
        from airflow_provider_faceki.batch.manifest import check_identifiers

        if (self.identifiers is None) == (self.manifest is None):
            raise api.ValidationError("give exactly one of identifiers and manifest")
        return (
            len(check_identifiers(self.identifiers)) if self.manifest is None else self._count(self._rows())
        )

    def _rows(self) -> Iterator[Row]:
        from airflow_provider_faceki.batch.manifest import (
            check_identifiers,
            read_manifest,
            rows_from_identifiers,
        )

        column = self.column or self.by
        if self.manifest is None:
            return rows_from_identifiers(check_identifiers(self.identifiers), column)
        return read_manifest(
            self.manifest, {"record_identifier": column}, self.manifest_conn_id, self.manifest_format
        )


def _check_connection(field: str, conn_id: str | None) -> None:
    """Refuse, before anything is paid, a Connection that is not there."""
    if not conn_id:
        return
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

    try:
        BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise api.ConfigurationError(f"{field}: there is no Connection {conn_id!r}") from None


def _name_of(ti: Any) -> str:
    return f"{ti.dag_id} {ti.run_id} {ti.task_id} {ti.map_index}"


def _run_date(context: Context) -> str:
    """Return the date of the run: of its data where it has a logical date, else of its start."""
    run: Any = context.get("dag_run")
    found = (getattr(run, name, None) for name in ("logical_date", "run_after", "start_date"))
    moment = next(filter(None, found), None) or datetime.now(UTC)
    return str(moment.astimezone(UTC).date())
