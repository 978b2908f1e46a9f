# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Operators that process a whole manifest in one task. A manifest is a file with one row for each person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeGuard

from airflow_provider_faceki import api, metrics
from airflow_provider_faceki.api.arguments import check_bool, check_exactly_one, check_one_of, check_seconds
from airflow_provider_faceki.api.values import check_identifier, storable
from airflow_provider_faceki.batch.manifest_schema import COLUMNS as COLUMNS
from airflow_provider_faceki.batch.manifest_schema import MANIFEST_FORMATS, REQUIRED_COLUMNS, TABLE_FORMATS
from airflow_provider_faceki.failures import is_task_retryable, translate_errors
from airflow_provider_faceki.links.faceki import FacekiOutputLink
from airflow_provider_faceki.operators.faceki import FacekiOperator
from airflow_provider_faceki.operators.images import as_prefixes, check_resize_to, load_image
from airflow_provider_faceki.operators.verification import (
    DEFAULT_RESUBMIT_AFTER_SECONDS,
    RESUBMIT_CHOICES,
    derived_identifier,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_faceki.batch.export import ExportOptions, RecordExport
    from airflow_provider_faceki.batch.journal import Journal
    from airflow_provider_faceki.batch.row_processor import BatchOptions
    from airflow_provider_faceki.batch.rows import Row
    from airflow_provider_faceki.batch.verify import BatchVerification

#: Upper limit of ``concurrency``. It is needed because each concurrent request occupies one thread.
MAX_CONCURRENCY = 256

_BY = ("record_identifier", "request_id", "link", "face_id")


class _BatchOperator(FacekiOperator):
    """Base class of the batch operators. It contains their common parameters."""

    template_fields: Sequence[str] = (
        *FacekiOperator.template_fields,
        "output_path",
        "manifest_conn_id",
        "output_conn_id",
    )
    operator_extra_links = (FacekiOutputLink(),)

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
            check_one_of("manifest_format", manifest_format, MANIFEST_FORMATS)
        _check_concurrency(concurrency)
        _check_max_error_rate(max_error_rate)
        self.output_path = output_path
        self.manifest_format = manifest_format
        self.concurrency = concurrency
        self.max_error_rate = max_error_rate
        self.manifest_conn_id = manifest_conn_id
        self.output_conn_id = output_conn_id
        self._remember_given("output_path", "manifest_conn_id", "output_conn_id")
        # Whether Airflow has called ``on_kill``. It is a plain boolean, because Airflow copies operators, and a
        # ``threading.Event`` cannot be copied.
        self._killed = False

    def on_kill(self) -> None:
        """Tell the batch to stop. Airflow calls this method when the task is killed.

        The results of finished rows are preserved. If the request of a row is still running, the next try looks up the
        record of this row.
        """
        self._killed = True

    def _count(self, rows: Iterable[Row]) -> int:
        from airflow_provider_faceki.batch.rows import with_checkpoints
        from airflow_provider_faceki.batch.runner import raise_if_killed

        return sum(1 for _ in with_checkpoints(rows, lambda: raise_if_killed(lambda: self._killed)))

    def _load(self, journal: Journal) -> None:
        from airflow_provider_faceki.batch.runner import raise_if_killed

        journal.load(lambda: raise_if_killed(lambda: self._killed))

    def _check_arguments(self) -> None:
        self.check_rendered()
        if not isinstance(self.output_path, str):
            raise api.ValidationError(
                f"output_path must be the URI of a folder, not {type(self.output_path).__name__}"
            )
        _check_connection("manifest_conn_id", self.manifest_conn_id)
        _check_connection("output_conn_id", self.output_conn_id)
        limit = self.hook.settings.max_concurrency
        if self.concurrency > limit:
            self.log.warning(
                "concurrency=%d is more than the Connection's max_concurrency=%d, which applies",
                self.concurrency,
                limit,
            )

    def _report_batch(
        self, manifest: str | None, total: int, written: Mapping[str, int], counts: Mapping[str, int]
    ) -> None:
        """Report the lineage of this try: the manifest that it has read, and the files that it has written.

        :param manifest: URI of the manifest. ``None`` if the rows come from another source.
        :param total: Number of rows in the manifest.
        :param written: Number of rows that this try has written, by URI of the file or folder.
        :param counts: Number of rows by outcome, over all tries.
        """
        from airflow_provider_faceki.lineage import Lineage, datasets

        inputs = {manifest: total} if manifest is not None else {}
        self.report_lineage(Lineage(datasets(inputs), datasets(written), {"rows": total, **counts}))

    def _describe_outlets(self, context: Context, counts: Mapping[str, Any]) -> None:
        """Add the row counts to the events of the assets that the task declares as ``outlets``."""
        from airflow.providers.common.compat.sdk import Asset

        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra.update(storable(dict(counts)))


class FacekiBatchVerificationOperator(_BatchOperator):
    """Verify all rows of a manifest file. By default, each row is billed once, even if the task is killed and retried.

    The folder ``output_path`` contains the state of the batch. A later try or run with the same ``output_path`` and
    ``batch_id`` continues where the previous try or run stopped. By default, the operator looks up each row at FACEKI
    before the row is sent. If FACEKI already has a verification with the row's identifier, this verification becomes
    the row's result, and the row is not billed. See ``docs/batch.md``.

    XCom: ``{"rows", "decisions": {decision: count}, "errors": {code: count}, "found", "results_path", "errors_path",
    "records_path"}``. The counts cover all tries and runs of the batch. ``found`` is the number of rows that were not
    billed, because their verification already existed. If rows have errors and no row of the batch succeeded, the task
    fails.

    :param manifest: URI of the manifest, in any storage that Airflow supports. The manifest is an NDJSON, CSV or
        Parquet file with one row for each person. Parquet needs the package extra ``parquet``.
    :param output_path: URI of a folder for results and errors. Each batch needs its own folder.
    :param batch_id: Id of the batch, which is stored in ``output_path``. Default: the ids of the task instance. With
        the default, a different DAG run cannot continue the batch, and its task fails. Set an id of your own if later
        DAG runs must continue the batch.
    :param columns: Mapping from this operator's column names to the column names in the manifest. Keys:
        ``record_identifier`` (unique for each verification), ``workflow_id``, ``selfie``, ``document_1_front``,
        ``document_1_back``, and so on up to document 3. Default: the manifest uses the same names.
    :param manifest_format: ``ndjson``, ``csv`` or ``parquet``. Default: derived from the file's suffix.
    :param workflow_id: Workflow for rows that contain no workflow. Default: the Connection's default workflow.
    :param concurrency: Number of rows that are processed concurrently, 1 to 256. Default 16. The Connection's
        ``max_concurrency`` and ``max_requests_per_second`` apply too.
    :param include_records: Whether full records, which contain personal data, are written to a separate folder. This
        costs one additional request for each row. Default ``False``.
    :param check_rules: Whether documents are checked against the workflow's rules before the charged call. Default
        ``True``.
    :param resize_to: Maximum length in pixels of the longer side of an image. Larger images are reduced to this length,
        which needs the package extra ``images``. Default: images are sent unchanged.
    :param resubmit: What happens to a row whose identifier FACEKI already has, and to a row that was possibly sent
        before. With every value, a row that already has a result or an error in this batch is never sent again.

        - ``"if_absent"`` (default): If FACEKI has a verification with the row's identifier, this verification is the
          row's result, and the row is not sent. If the row was possibly sent, and FACEKI has no record of it after
          ``resubmit_after``, the row is sent again. But if the workflow stores no records, this row becomes an error
          row instead.
        - ``"never"``: Like ``"if_absent"``, but a row that would be sent again becomes an error row.
        - ``"always"``: The row is sent and billed, even if FACEKI has a verification with the row's identifier.
    :param assume_new: Whether rows are sent without a previous lookup. This saves one free request for each row. Use it
        only for identifiers that FACEKI certainly does not have. Default ``False``.
    :param max_verifications: Maximum number of rows that are billed, over all tries and runs of the batch. Rows above
        the maximum are not sent, and the task fails. A later run with a higher maximum continues with these rows.
        Default: no limit.
    :param resubmit_after: Seconds to wait after a row was possibly sent. FACEKI is assumed to store the row's record
        within this time. If there is no record after this time, the row is treated as not sent. Default 150.
    :param lookup_timeout: If the answer to a row's request is lost, the task immediately searches for the row's record.
        This is the maximum duration of the search in seconds. Default 30.
    :param max_error_rate: Share of error rows (0 to 1) above which the task fails. If the share is exceeded after 100
        finished rows or more, the task fails before the end of the manifest. Default 1, so the task never fails for
        this reason.
    :param manifest_conn_id: Connection for the manifest's storage. Default: the Connection in the URI. If the URI
        contains no Connection, none is used, not even ``aws_default``. For S3, boto3 then searches for credentials in
        environment variables and in the role of the machine. If it finds none, the task reads S3 anonymously.
    :param image_conn_id: Connection for the storage of the images. Default: the same rule as for
        ``manifest_conn_id``.
    :param output_conn_id: Connection for the output's storage. Default: the same rule as for ``manifest_conn_id``.
    :param allowed_image_prefixes: Folders from which images are accepted, as absolute local paths or as URIs without
        a Connection, such as ``s3://bucket/kyc/``. Default: any folder of a remote storage, and no local file.
    :param allowed_image_conn_ids: Connections that the manifest is allowed to name before the ``@`` of a URI. Default:
        none.
    :param faceki_conn_id: Connection of type ``faceki``.
    """

    custom_operator_name = "FACEKI batch"
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
        assume_new: bool = False,
        max_verifications: int | None = None,
        resubmit_after: float = DEFAULT_RESUBMIT_AFTER_SECONDS,
        lookup_timeout: float = 30.0,
        image_conn_id: str | None = None,
        allowed_image_prefixes: Sequence[str] | None = None,
        allowed_image_conn_ids: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check_columns(columns)
        check_resize_to(resize_to)
        check_one_of("resubmit", resubmit, RESUBMIT_CHOICES)
        check_bool("assume_new", assume_new)
        _check_max_verifications(max_verifications)
        check_seconds("resubmit_after", resubmit_after)
        check_seconds("lookup_timeout", lookup_timeout)
        self.manifest = manifest
        self.batch_id = batch_id
        self.columns = columns
        self.workflow_id = workflow_id
        self.include_records = include_records
        self.check_rules = check_rules
        self.resize_to = resize_to
        self.resubmit = resubmit
        self.assume_new = assume_new
        self.max_verifications = max_verifications
        self.resubmit_after = resubmit_after
        self.lookup_timeout = lookup_timeout
        self.image_conn_id = image_conn_id
        self.allowed_image_prefixes = allowed_image_prefixes
        self.allowed_image_conn_ids = allowed_image_conn_ids
        self._remember_given("manifest", "batch_id", "image_conn_id", "allowed_image_prefixes")

    def execute(self, context: Context) -> dict[str, Any]:
        """Verify the rows and return the counts."""
        from airflow_provider_faceki.batch.airflow_store import AirflowObjectStore
        from airflow_provider_faceki.batch.journal import Journal

        with _translate_batch_errors(context):
            self._check_arguments()
            _check_connection("image_conn_id", self.image_conn_id)
            _check_text("batch_id", self.batch_id)
            _check_text("workflow_id", self.workflow_id)
            if self.resize_to is not None and find_spec("PIL") is None:
                raise api.ConfigurationError("resize_to needs Pillow: install the extra 'images'")
            total = self._count(self._rows())
            journal = Journal(self.output_path, AirflowObjectStore(self.output_conn_id))
            self.push_output_link(context, self.output_path, self.output_conn_id, is_folder=True)
            ti = context["ti"]
            batch_id = self.batch_id or f"{ti.dag_id} {ti.run_id} {ti.task_id} {ti.map_index}"
            self._run(journal, batch_id, total)
        counts = {
            "rows": total,
            "decisions": dict(journal.decisions),
            "errors": dict(journal.failures),
            "found": journal.found,
        }
        self._describe_outlets(context, counts)
        return {
            **counts,
            "results_path": journal.results.folder,
            "errors_path": journal.errors.folder,
            "records_path": journal.records.folder if self.include_records else None,
        }

    def _run(self, journal: Journal, batch_id: str, total: int) -> None:
        from airflow_provider_faceki.batch.airflow_store import AirflowObjectStore
        from airflow_provider_faceki.batch.error_guard import ImageStorageError
        from airflow_provider_faceki.batch.lease import Lease
        from airflow_provider_faceki.batch.verify import BatchVerification
        from airflow_provider_faceki.storage import AccessPolicy

        policy = AccessPolicy.for_manifest(
            as_prefixes(self.allowed_image_prefixes), _as_conn_ids(self.allowed_image_conn_ids)
        )
        lease = Lease(AirflowObjectStore(self.output_conn_id), journal.leases, batch_id)
        # A lease is a file in output_path that shows which try is the newest. Only the newest try is allowed to send
        # rows. If output_path is not writable, the task fails here, before any charged call.
        lease.acquire()
        self._load(journal)
        self.log.info("%d rows, %d of them done by earlier tries", total, journal.done)
        before = journal.decisions.total(), journal.failures.total()
        batch = BatchVerification(
            hook=self.hook,
            load_image=lambda name, uri: load_image(
                self.hook, name, uri, self.image_conn_id, self.resize_to, policy
            ),
            journal=journal,
            lease=lease,
            options=self._options(),
            is_killed=lambda: self._killed,
            on_done=metrics.count_row,
        )
        try:
            batch.run(self._rows, total)
        except api.FacekiError as error:
            error.message += _rows_left(journal, total)
            raise
        except ImageStorageError as error:
            raise ImageStorageError(f"{error}{_rows_left(journal, total)}") from None
        finally:
            self._report_try(journal, total, *before)
        self._check_complete(batch, journal, total)

    def _report_try(self, journal: Journal, total: int, results_before: int, errors_before: int) -> None:
        results, errors = journal.decisions.total(), journal.failures.total()
        written = {
            journal.results.folder: results - results_before,
            journal.errors.folder: errors - errors_before,
        }
        if journal.found:
            self.log.info(
                "%d rows of the batch were not sent, because FACEKI already had a record of them",
                journal.found,
            )
        counts = {"succeeded": results, "failed": errors, "open": max(0, total - results - errors)}
        self._report_batch(self.manifest, total, written, {**counts, "found": journal.found})

    def _check_complete(self, batch: BatchVerification, journal: Journal, total: int) -> None:
        _check_finished(batch.unfinished, batch.problem, total)
        if batch.over_ceiling:
            raise api.ValidationError(
                f"max_verifications={self.max_verifications} is reached: {journal.charged} rows of "
                f"this batch were billed or may have been, and {batch.over_ceiling} of {total} rows "
                "were not sent. To continue with them, raise max_verifications and clear the task"
            )
        _check_any_succeeded(journal.decisions, journal.failures, journal.errors.folder)

    def _options(self) -> BatchOptions:
        from airflow_provider_faceki.batch.row_processor import BatchOptions

        return BatchOptions(
            concurrency=self.concurrency,
            workflow_id=self.workflow_id or self.hook.settings.workflow_id,
            include_records=self.include_records,
            check_rules=self.check_rules,
            resubmit=self.resubmit,
            assume_new=self.assume_new,
            resubmit_after=self.resubmit_after,
            lookup_timeout=self.lookup_timeout,
            max_error_rate=self.max_error_rate,
            max_verifications=self.max_verifications,
        )

    def _rows(self) -> Iterator[Row]:
        from airflow_provider_faceki.batch.manifest import read_manifest

        return read_manifest(
            self.manifest,
            {name: (self.columns or {}).get(name, name) for name in COLUMNS},
            self.manifest_conn_id,
            self.manifest_format,
            REQUIRED_COLUMNS,
        )


class FacekiBatchFetchRecordsOperator(_BatchOperator):
    """Fetch the records of many identifiers into the tables verifications, documents, aml_hits and images.

    By default, all columns with data about the person are dropped. The parameter ``personal_data`` can keep or hash
    such columns. ``docs/batch.md`` lists the columns. A rerun of a DAG run replaces only the files of this DAG run. A
    later try continues where the previous try stopped.

    XCom: ``{"rows", "decisions": {decision: count}, "errors": {code: count}, "tables": {name: uri}, "errors_path"}``.
    If rows have errors and no row succeeded, the task first writes the tables and then fails.

    :param output_path: URI of the folder for the tables, in any storage that Airflow supports.
    :param identifiers: The identifiers, as a list of strings or as a list of objects that contain the identifier under
        ``column``. The list is usually the output of another task, which can be a mapped task. Set exactly one of
        ``identifiers`` and ``manifest``.
    :param manifest: URI of an NDJSON, CSV or Parquet file that contains the identifiers. Parquet needs the package
        extra ``parquet``.
    :param by: Type of the identifiers: ``record_identifier`` (default), ``request_id``, ``link`` or ``face_id``. Pass
        links in a manifest and not in ``identifiers``, because links are secret, and Airflow displays the arguments of
        a task.
    :param column: Name of the column in ``manifest``, or of the field in ``identifiers``, that contains the identifier.
        Default: the value of ``by``.
    :param manifest_format: ``ndjson``, ``csv`` or ``parquet``. Default: derived from the file's suffix.
    :param output_format: ``ndjson`` (default) or ``parquet``.
    :param personal_data: Mapping from ``table.column`` or ``table.*`` to ``keep``, ``drop`` or ``hash``. Default: ids,
        decisions, codes, flags and times are kept, and everything else is dropped. ``hash`` needs ``pii_hash_secret``
        in the Connection.
    :param partition_by_date: Whether the files are written to a subfolder ``date=YYYY-MM-DD``, the date of the run
        (UTC). Default ``False``.
    :param concurrency: Number of concurrent requests, 1 to 256. Default 16.
    :param max_error_rate: Share of error rows (0 to 1) above which the task fails and writes no tables. If the share is
        exceeded after 100 finished rows or more, the task fails before the end of the input. Default 1, so the task
        never fails for this reason.
    :param manifest_conn_id: Connection for the manifest's storage. Default: the Connection in the URI. If the URI
        contains no Connection, none is used, not even ``aws_default``. For S3, boto3 then searches for credentials in
        environment variables and in the role of the machine. If it finds none, the task reads S3 anonymously.
    :param output_conn_id: Connection for the output's storage. Default: the same rule as for ``manifest_conn_id``.
    :param faceki_conn_id: Connection of type ``faceki``.
    """

    custom_operator_name = "FACEKI tables"
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
        check_one_of("by", by, _BY)
        check_one_of("output_format", output_format, TABLE_FORMATS)
        if personal_data:
            from airflow_provider_faceki.batch.table_writers import check_choices

            check_choices(personal_data)
        self.identifiers = identifiers
        self.manifest = manifest
        self.by = by
        self.column = column
        self.output_format = output_format
        self.personal_data = personal_data
        self.partition_by_date = partition_by_date
        self._remember_given("manifest")

    def execute(self, context: Context) -> dict[str, Any]:
        """Fetch the records, write the tables and return the counts."""
        from airflow_provider_faceki.api.tables import TABLES
        from airflow_provider_faceki.batch.export import RecordExport

        with _translate_batch_errors(context):
            self._check_arguments()
            export = RecordExport(self.hook, self._options(context), lambda: self._killed)
            total = self._total()
            export.check()
            self.push_output_link(context, self.output_path, self.output_conn_id, is_folder=True)
            self._load(export.journal)
            self.log.info("%d identifiers, %d of them fetched by earlier tries", total, export.journal.done)
            export.run(self._rows, total)
            _check_finished(export.unfinished, export.problem, total)
            self._report_tables(export, total)
            _check_any_succeeded(export.decisions, export.failures, export.uri("errors"))
        counts = {
            "rows": total,
            "decisions": dict(export.decisions),
            "errors": dict(export.failures),
        }
        self._describe_outlets(context, counts)
        return {
            **counts,
            "tables": {table: export.uri(table) for table in TABLES},
            "errors_path": export.uri("errors"),
        }

    def _report_tables(self, export: RecordExport, total: int) -> None:
        # Each table has a folder below ``output_path``. Each DAG run writes a file to this folder, or to a subfolder
        # for its date. All these files belong to the same table. Therefore the lineage contains the folder of the table
        # and not a subfolder.
        root = self.output_path.rstrip("/")
        written = {f"{root}/{table}": rows for table, rows in export.written.items()}
        failed = export.failures.total()
        self._report_batch(self.manifest, total, written, {"succeeded": total - failed, "failed": failed})

    def _options(self, context: Context) -> ExportOptions:
        from airflow_provider_faceki.batch.export import ExportOptions
        from airflow_provider_faceki.batch.table_writers import ColumnPolicy

        date = f"date={_run_date(context)}"
        return ExportOptions(
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

        check_exactly_one(identifiers=self.identifiers, manifest=self.manifest)
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


@contextmanager
def _translate_batch_errors(context: Context) -> Iterator[None]:
    from airflow.providers.common.compat.sdk import AirflowException

    from airflow_provider_faceki.batch.lease import LeaseLostError
    from airflow_provider_faceki.batch.runner import TaskKilledError

    def is_retryable(error: api.FacekiError) -> bool:
        return is_task_retryable(error) or (
            isinstance(error, LeaseLostError) and _has_newer_try(context["ti"])
        )

    try:
        with translate_errors(is_retryable):
            yield
    except TaskKilledError as error:
        raise AirflowException(str(error)) from None


def _has_newer_try(ti: Any) -> bool:
    """Return whether Airflow 2 has started a newer try of the same task instance. On Airflow 3, return ``False``.

    If an older try fails without a retry, Airflow 2 marks the task instance as failed, although the newest try is still
    running. Therefore the older try must fail with a retryable error. Airflow 3 ignores the end of an older try.
    """
    if not hasattr(ti, "refresh_from_db"):
        return False
    own = ti.try_number
    ti.refresh_from_db()
    return bool(ti.try_number != own)


def _rows_left(journal: Journal, total: int) -> str:
    left = max(0, total - journal.done)
    return f"; {left} of {total} rows are left, and the next try continues with them"


def _check_finished(unfinished: int, problem: Exception | None, total: int) -> None:
    """If some rows have no outcome yet, raise an error after which Airflow retries the task."""
    if not unfinished:
        return
    # The text of an unexpected exception is omitted, because it can contain the file name of an image, and such a name
    # possibly identifies a person.
    text = f": {problem}" if isinstance(problem, api.FacekiError | OSError) else ""
    cause = f" ({type(problem).__name__}{text})" if problem is not None else ""
    raise api.OutcomeUnknownError(
        f"{unfinished} of {total} rows could not be finished{cause}; the next try continues with them"
    )


def _check_any_succeeded(decisions: Mapping[str, int], failures: Mapping[str, int], errors_path: str) -> None:
    """If all rows have failed, raise an error after which Airflow does not retry the task."""
    if failures and not decisions:
        codes = ", ".join(f"{count} {code}" for code, count in sorted(failures.items()))
        raise api.ValidationError(f"no row succeeded ({codes}); see what_to_do in {errors_path}")


def _check_concurrency(value: object) -> None:
    if not _is_whole(value) or not 1 <= value <= MAX_CONCURRENCY:
        raise ValueError(f"concurrency must be a whole number from 1 to {MAX_CONCURRENCY}, not {value!r}")


def _check_max_verifications(value: object) -> None:
    if value is not None and (not _is_whole(value) or value < 0):
        raise ValueError(f"max_verifications must be a whole number from 0, or None, not {value!r}")


def _check_max_error_rate(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"max_error_rate must be a number between 0 and 1, not {value!r}")


def _check_columns(columns: Mapping[str, object] | None) -> None:
    if unknown := set(columns or ()) - set(COLUMNS):
        raise ValueError(f"columns: unknown {', '.join(sorted(unknown))}; allowed are {', '.join(COLUMNS)}")
    for name, column in (columns or {}).items():
        if not isinstance(column, str) or not column:
            raise ValueError(f"columns: {name} must have a name in the manifest, not {column!r}")


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_text(field: str, value: object) -> None:
    """Raise an error if a rendered value is not a valid id. ``None`` and the empty text are allowed."""
    if value not in (None, ""):
        check_identifier(field, value)


def _check_connection(field: str, conn_id: str | None) -> None:
    """Raise an error if a Connection does not exist. The check runs before any charged call is made."""
    _check_text(field, conn_id)
    if not conn_id:
        return
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

    try:
        BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise api.ConfigurationError(f"{field}: there is no Connection {conn_id!r}") from None


def _as_conn_ids(allowed_image_conn_ids: object) -> tuple[str, ...]:
    """Return the rendered value of ``allowed_image_conn_ids`` as a tuple.

    :raises ValidationError: if the value is not a list of strings. A single string is also refused, because it would be
        split into its letters.
    """
    if not isinstance(allowed_image_conn_ids, list | tuple) or not all(
        isinstance(conn_id, str) for conn_id in allowed_image_conn_ids
    ):
        raise api.ValidationError("allowed_image_conn_ids must be a list of Connection ids")
    return tuple(allowed_image_conn_ids)


def _run_date(context: Context) -> str:
    """Return the date of a DAG run in UTC.

    It is the date of the first of these times that is known: the logical date, the earliest start (``run_after``), the
    actual start, the current time.
    """
    run: Any = context.get("dag_run")
    found = (getattr(run, name, None) for name in ("logical_date", "run_after", "start_date"))
    moment = next(filter(None, found), None) or datetime.now(UTC)
    return str(moment.astimezone(UTC).date())
