# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Operators that process a whole manifest in one task."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeGuard

from airflow_provider_faceki import api
from airflow_provider_faceki.api.arguments import check_seconds
from airflow_provider_faceki.batch.manifest import COLUMNS as COLUMNS
from airflow_provider_faceki.batch.manifest import MANIFEST_FORMATS, REQUIRED_COLUMNS
from airflow_provider_faceki.batch.tables import TABLE_FORMATS
from airflow_provider_faceki.failures import translate_errors
from airflow_provider_faceki.operators.faceki import FacekiOperator
from airflow_provider_faceki.operators.images import as_prefixes, check_resize_to, load_image
from airflow_provider_faceki.operators.verification import DEFAULT_RESUBMIT_AFTER_SECONDS, derived_identifier

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_faceki.batch.export import ExportOptions
    from airflow_provider_faceki.batch.journal import Journal
    from airflow_provider_faceki.batch.manifest import Row
    from airflow_provider_faceki.batch.runner import Progress
    from airflow_provider_faceki.batch.verify import BatchOptions, BatchVerification
    from airflow_provider_faceki.storage import AccessPolicy

#: Each request in flight is a thread.
MAX_CONCURRENCY = 256

_BY = ("record_identifier", "request_id", "link", "face_id")
_RESUBMIT = ("if_absent", "never", "always")


class _BatchOperator(FacekiOperator):
    """Base of the batch operators.

    :param output_path: URI of the output folder, in any storage that Airflow knows.
    :param manifest_format: ``ndjson``, ``csv`` or ``parquet``. Default: by the file's ending.
    :param concurrency: Requests in flight at once, 1 to 256. Default 16.
    :param max_error_rate: Share of error rows (0 to 1) above which the batch ends early. Default 1: never.
    :param manifest_conn_id: Connection for the manifest's storage. Default: the one in its URI, else none.
    :param output_conn_id: Connection for the output's storage. Default: the one in its URI, else none.
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
            _check_one_of("manifest_format", manifest_format, MANIFEST_FORMATS)
        _check_concurrency("concurrency", concurrency)
        _check_rate("max_error_rate", max_error_rate)
        self.output_path = output_path
        self.manifest_format = manifest_format
        self.concurrency = concurrency
        self.max_error_rate = max_error_rate
        self.manifest_conn_id = manifest_conn_id
        self.output_conn_id = output_conn_id
        # A plain value: an operator is copied, which no lock or event can be.
        self._killed = False

    def on_kill(self) -> None:
        """End soon. What is done is kept; the next try looks up what is in flight."""
        self._killed = True

    def _count(self, rows: Iterable[Row]) -> int:
        from airflow_provider_faceki.batch.runner import raise_if_killed
        from airflow_provider_faceki.batch.store import with_checkpoints

        return sum(1 for _ in with_checkpoints(rows, lambda: raise_if_killed(lambda: self._killed)))

    def _load(self, journal: Journal) -> None:
        from airflow_provider_faceki.batch.runner import raise_if_killed

        journal.load(lambda: raise_if_killed(lambda: self._killed))

    def _check_connections(self) -> None:
        _check_connection("manifest_conn_id", self.manifest_conn_id)
        _check_connection("output_conn_id", self.output_conn_id)

    def _warn_of_limit(self) -> None:
        limit = self.hook.settings.max_concurrency
        if self.concurrency > limit:
            self.log.warning(
                "concurrency=%d is more than the Connection's max_concurrency=%d, which applies",
                self.concurrency,
                limit,
            )


class FacekiBatchVerificationOperator(_BatchOperator):
    """Verify all rows of a manifest. Each is billed once, also when the task is killed and tried again.

    ``output_path`` is the batch's memory: a further try or run with the same ``output_path`` and ``batch_id`` goes on
    where the last one was. Before a row is sent, FACEKI is asked whether it already has a verification under the row's
    identifier; if so, that is the row's result, and it is not billed. See ``docs/batch.md``.

    XCom: ``{"rows", "decisions": {word: count}, "errors": {code: count}, "found", "results_path", "errors_path",
    "records_path"}``, the counts over all tries and runs of the batch. ``found`` counts the results that were not
    billed. A batch in which no row succeeded fails.

    :param manifest: URI of the manifest, in any storage that Airflow knows: NDJSON, CSV or Parquet (extra
        ``parquet``), one row for each person.
    :param output_path: URI of a folder for results and errors. Each batch needs its own.
    :param batch_id: The batch's id, which its ``output_path`` keeps. Default: the ids of the task instance, so that
        another run is refused. Give an id of your own if further runs are to go on with the batch.
    :param columns: Names of the columns in the manifest, by their names here: ``record_identifier`` (one for each
        verification), ``workflow_id``, ``selfie``, ``document_1_front``, ``document_1_back``, and so on to 3.
        Default: the same names.
    :param manifest_format: ``ndjson``, ``csv`` or ``parquet``. Default: by the file's suffix.
    :param workflow_id: Workflow of rows that name none. Default: the Connection's.
    :param concurrency: Rows in flight at once, 1 to 256. Default 16. The Connection's ``max_concurrency`` and
        ``max_requests_per_second`` apply too.
    :param include_records: Whether full records, with personal data, are written to a folder of their own; one more
        request for each row. Default ``False``.
    :param check_rules: Whether documents are checked against the workflow's rules before paying. Default ``True``.
    :param resize_to: Pixels of the longer side to which larger pictures are reduced (extra ``images``).
    :param resubmit: ``"if_absent"`` (default) to send a row unless FACEKI already has a verification under its
        identifier; a row that may have been sent is sent again if FACEKI, asked after ``resubmit_after``, has no record
        of it. ``"never"`` makes it an error row instead, and so does a workflow that keeps no records. ``"always"``
        sends each row of the batch, and bills it, whatever FACEKI has under its identifier.
    :param assume_new: Whether rows are sent without being looked up first, for identifiers that FACEKI certainly does
        not have: saves one free request for each row. Default ``False``.
    :param max_verifications: Number of rows, over all tries and runs of the batch, that may be billed. Rows beyond it
        stay open, and the task fails; a run with a higher number goes on. Default: no limit.
    :param resubmit_after: Seconds that FACEKI has to finish what may have been sent, before the absence of a record
        means anything. Default 150.
    :param lookup_timeout: Seconds to look for a record right after its answer was lost. Default 30.
    :param max_error_rate: Share of error rows (0 to 1) above which the batch ends early. Default 1: never.
    :param manifest_conn_id: Connection for the manifest's storage. Default: the one in the URI, else the storage's own.
    :param image_conn_id: Connection for the images' storage. Default: the same.
    :param output_conn_id: Connection for the output's storage. Default: the same.
    :param allowed_image_prefixes: Folders in which images may lie: absolute local paths, or URIs without a Connection
        such as ``s3://bucket/kyc/``. Default: any folder of a remote storage, and no local file.
    :param allowed_image_conn_ids: Connections that the manifest may name before the ``@`` of a URI. Default: none.
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
        _check_one_of("resubmit", resubmit, _RESUBMIT)
        _check_bool("assume_new", assume_new)
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

    def execute(self, context: Context) -> dict[str, Any]:
        """Verify the rows."""
        from airflow_provider_faceki.batch.journal import Journal
        from airflow_provider_faceki.batch.runner import Progress
        from airflow_provider_faceki.batch.store import ObjectStore

        with _translate_batch_errors():
            self._warn_of_limit()
            self._check_connections()
            _check_connection("image_conn_id", self.image_conn_id)
            if self.resize_to is not None:
                _check_pillow()
            total = self._count(self._rows())
            journal = Journal(self.output_path, ObjectStore(self.output_conn_id))
            self._run(journal, self.batch_id or _default_batch_id(context["ti"]), Progress(total))
        return {
            "rows": total,
            "decisions": dict(journal.decisions),
            "errors": dict(journal.failures),
            "found": journal.found,
            "results_path": journal.results.folder,
            "errors_path": journal.errors.folder,
            "records_path": journal.records.folder if self.include_records else None,
        }

    def _run(self, journal: Journal, batch_id: str, progress: Progress) -> None:
        from airflow_provider_faceki.batch.lease import Lease
        from airflow_provider_faceki.batch.store import ObjectStore
        from airflow_provider_faceki.batch.verify import BatchVerification

        lease = Lease(ObjectStore(self.output_conn_id), journal.leases, batch_id)
        # Writes to output_path, so an output that cannot be written ends the task before anything is paid.
        lease.acquire()
        self._load(journal)
        self.log.info("%d rows, %d of them done by earlier tries", progress.total, journal.done)
        batch = BatchVerification(
            hook=self.hook,
            load_image=partial(self._load_image, self._access_policy()),
            journal=journal,
            lease=lease,
            options=self._options(),
            is_killed=lambda: self._killed,
        )
        try:
            batch.run(self._rows, progress)
        except api.FacekiError as error:
            left = max(0, progress.total - journal.done)
            error.message += (
                f"; {left} of {progress.total} rows are left, and a further try goes on with them"
            )
            raise
        self._check_complete(batch, journal, progress.total)

    def _check_complete(self, batch: BatchVerification, journal: Journal, total: int) -> None:
        _check_finished(batch.unfinished, batch.problem, total)
        if batch.over_ceiling:
            raise api.ValidationError(
                f"max_verifications={self.max_verifications} is reached: {journal.charged} rows of this batch were "
                f"billed or may have been, and {batch.over_ceiling} of {total} rows were not sent. They stay open: a "
                "run with a higher max_verifications goes on with them"
            )
        _check_any_succeeded(journal.decisions, journal.failures, journal.errors.folder)

    def _access_policy(self) -> AccessPolicy:
        from airflow_provider_faceki.storage import AccessPolicy

        return AccessPolicy.for_manifest(
            as_prefixes(self.allowed_image_prefixes), self.allowed_image_conn_ids
        )

    def _load_image(self, policy: AccessPolicy, name: str, uri: str) -> api.Image:
        return load_image(self.hook, name, uri, self.image_conn_id, self.resize_to, policy)

    def _options(self) -> BatchOptions:
        from airflow_provider_faceki.batch.verify import BatchOptions

        return BatchOptions(
            concurrency=self.concurrency,
            workflow_id=self.workflow_id,
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
    """Fetch the records of many identifiers into tables: verifications, documents, aml_hits, images.

    All data about the person is dropped unless ``personal_data`` says otherwise; see ``docs/batch.md`` for the
    columns. A rerun of the same run replaces its own files only; a further try goes on where the last one was.

    XCom: ``{"rows", "decisions": {word: count}, "errors": {code: count}, "tables": {name: uri}, "errors_path"}``. A
    task in which no row succeeded fails after it has written the tables.

    :param output_path: URI of the folder for the tables, in any storage that Airflow knows.
    :param identifiers: The identifiers, such as another task's output, mapped or not: a list of texts, or of
        objects that hold them under ``column``; or
    :param manifest: URI of a manifest with them: NDJSON, CSV or Parquet (extra ``parquet``).
    :param by: What they are: ``record_identifier`` (default), ``request_id``, ``link`` or ``face_id``. Links belong
        in a manifest: Airflow shows a task's arguments.
    :param column: The column, or field, that holds them. Default: the value of ``by``.
    :param manifest_format: ``ndjson``, ``csv`` or ``parquet``. Default: by the file's suffix.
    :param output_format: ``ndjson`` (default) or ``parquet``.
    :param personal_data: ``keep``, ``drop`` or ``hash`` by ``table.column`` or ``table.*``. Default: ids,
        decisions, codes, flags and times are kept, all else is dropped. ``hash`` needs ``pii_hash_secret`` in the
        Connection.
    :param partition_by_date: Whether the files are in a folder ``date=YYYY-MM-DD`` of the run (UTC). Default
        ``False``.
    :param concurrency: Requests in flight at once, 1 to 256. Default 16.
    :param max_error_rate: Share of error rows (0 to 1) above which the task ends early. Default 1: never.
    :param manifest_conn_id: Connection for the manifest's storage. Default: the one in the URI, else the storage's own.
    :param output_conn_id: Connection for the output's storage. Default: the same.
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
        _check_one_of("by", by, _BY)
        _check_one_of("output_format", output_format, TABLE_FORMATS)
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
        """Fetch the records."""
        from airflow_provider_faceki.api.tables import TABLES
        from airflow_provider_faceki.batch.export import RecordExport
        from airflow_provider_faceki.batch.runner import Progress

        with _translate_batch_errors():
            self._warn_of_limit()
            self._check_connections()
            export = RecordExport(self.hook, self._options(context), lambda: self._killed)
            total = self._total()
            export.check()
            self._load(export.journal)
            self.log.info("%d identifiers, %d of them fetched by earlier tries", total, export.journal.done)
            export.run(self._rows, Progress(total))
            _check_finished(export.unfinished, export.problem, total)
            _check_any_succeeded(export.decisions, export.failures, export.uri("errors"))
        return {
            "rows": total,
            "decisions": dict(export.decisions),
            "errors": dict(export.failures),
            "tables": {table: export.uri(table) for table in TABLES},
            "errors_path": export.uri("errors"),
        }

    def _options(self, context: Context) -> ExportOptions:
        from airflow_provider_faceki.batch.export import ExportOptions
        from airflow_provider_faceki.batch.tables import ColumnPolicy

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


@contextmanager
def _translate_batch_errors() -> Iterator[None]:
    from airflow.providers.common.compat.sdk import AirflowException

    from airflow_provider_faceki.batch.runner import TaskKilledError

    try:
        with translate_errors():
            yield
    except TaskKilledError as error:
        raise AirflowException(str(error)) from None


def _check_finished(unfinished: int, problem: Exception | None, total: int) -> None:
    """Fail, so that a further try goes on, if rows are open."""
    if not unfinished:
        return
    # The text of an unexpected exception may name a picture, and so a person.
    text = f": {problem}" if isinstance(problem, api.FacekiError | OSError) else ""
    cause = f" ({type(problem).__name__}{text})" if problem is not None else ""
    raise api.OutcomeUnknownError(
        f"{unfinished} of {total} rows could not be finished{cause}; the next try goes on with them"
    )


def _check_any_succeeded(decisions: Mapping[str, int], failures: Mapping[str, int], errors_path: str) -> None:
    """Fail for good if all rows are errors."""
    if failures and not decisions:
        codes = ", ".join(f"{count} {code}" for code, count in sorted(failures.items()))
        raise api.ValidationError(f"no row succeeded ({codes}); see what_to_do in {errors_path}")


def _check_one_of(name: str, value: object, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def _check_bool(name: str, value: object) -> None:
    # The text "False" would be true.
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")


def _check_concurrency(name: str, value: object) -> None:
    if not _is_whole(value) or not 1 <= value <= MAX_CONCURRENCY:
        raise ValueError(f"{name} must be a whole number from 1 to {MAX_CONCURRENCY}, not {value!r}")


def _check_max_verifications(value: object) -> None:
    if value is not None and (not _is_whole(value) or value < 0):
        raise ValueError(f"max_verifications must be a whole number from 0, or None, not {value!r}")


def _check_rate(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number between 0 and 1, not {value!r}")


def _check_columns(columns: Mapping[str, object] | None) -> None:
    if unknown := set(columns or ()) - set(COLUMNS):
        raise ValueError(f"columns: unknown {', '.join(sorted(unknown))}; allowed are {', '.join(COLUMNS)}")
    for name, column in (columns or {}).items():
        if not isinstance(column, str) or not column:
            raise ValueError(f"columns: {name} must have a name in the manifest, not {column!r}")


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_connection(field: str, conn_id: str | None) -> None:
    """Refuse, before anything is paid, a Connection that does not exist."""
    if not conn_id:
        return
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

    try:
        BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise api.ConfigurationError(f"{field}: there is no Connection {conn_id!r}") from None


def _check_pillow() -> None:
    if find_spec("PIL") is None:
        raise api.ConfigurationError("resize_to needs Pillow: install the extra 'images'")


def _default_batch_id(ti: Any) -> str:
    return f"{ti.dag_id} {ti.run_id} {ti.task_id} {ti.map_index}"


def _run_date(context: Context) -> str:
    """Return the date of the run: its logical date if it has one, else the date of its start."""
    run: Any = context.get("dag_run")
    found = (getattr(run, name, None) for name in ("logical_date", "run_after", "start_date"))
    moment = next(filter(None, found), None) or datetime.now(UTC)
    return str(moment.astimezone(UTC).date())
