# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Process one manifest row in a worker thread: look it up at FACEKI, check its images, and send it.

If the outcome of a sent row is unknown, the row is looked up again later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeAlias, TypeVar
from urllib.parse import urlsplit

from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.endpoints.verification import (
    Document,
    FindKycVerification,
    KycVerification,
    PerformKycVerification,
    check_documents,
)
from airflow_provider_faceki.api.endpoints.workflows import WorkflowRules, are_records_stored
from airflow_provider_faceki.api.errors import (
    ConfigurationError,
    FacekiError,
    OutcomeUnknownError,
    ValidationError,
    WorkflowError,
)
from airflow_provider_faceki.api.models import Decision, VerificationRecord, latest
from airflow_provider_faceki.api.protocol.session import Endpoint
from airflow_provider_faceki.api.uploads import Image
from airflow_provider_faceki.batch.error_guard import is_systemic, is_transient, refusal_of
from airflow_provider_faceki.batch.lease import Clock, Lease, LeaseLostError, LeaseUncheckedError
from airflow_provider_faceki.batch.rows import (
    Abort,
    Deferred,
    Failed,
    Outcome,
    Recorded,
    Row,
    Succeeded,
    error_line,
    storage_line,
)
from airflow_provider_faceki.storage_interface import (
    NotAllowedError,
    StorageAccessError,
    StorageError,
    retry_storage,
    without_uri,
)

T = TypeVar("T")

#: Function that loads and checks an image. Its arguments are a name for error messages, and the image's URI.
LoadImage = Callable[[str, str], Image]
_Host: TypeAlias = "tuple[str, str] | None"

#: Pauses in seconds before a row is sent again after an incomplete request. While a row is sent, each read of an image
#: also checks whether a newer try has started. In two cases, the sending stops before the end and is then repeated:
#:
#: - An image cannot be read to its end, or its size has changed.
#: - The check for a newer try fails, because the storage of ``output_path`` fails.
SEND_PAUSES_SECONDS = (0.5, 2.0)
#: Assumed maximum difference in seconds between the clocks of FACEKI and of this machine. If FACEKI's clock is
#: behind, the creation time in a record can be earlier than the time at which its row was sent. Therefore a record is
#: accepted as the result of a row even if its creation time is up to this number of seconds before the row was sent.
CLOCK_MARGIN_SECONDS = 300.0
#: After this number of consecutive rows with unreadable images, a failed read of an image is not repeated. Without this
#: limit, the repetitions would take seconds for each row while the storage is down.
UNREADABLE_ROWS_BEFORE_NO_RETRY = 50
#: Maximum number of workflows for which the batch tests whether FACEKI stores records. For each of these workflows, the
#: identifier of one row with the decision ACCEPTED is kept in memory. The test looks up the record of this row.
MAX_WORKFLOWS = 1000


class _StoppedError(Exception):
    """The row is not sent, because the batch is already stopping."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Options of a batch verification.

    ``FacekiBatchVerificationOperator`` describes these options. Its parameters have the same names.

    :param workflow_id: Workflow for rows that contain no workflow. If it is ``None``, such a row stops the batch.
    """

    concurrency: int
    workflow_id: str | None
    include_records: bool
    check_rules: bool
    resubmit: str
    assume_new: bool
    resubmit_after: float
    lookup_timeout: float
    max_error_rate: float
    max_verifications: int | None


class BatchHook(Protocol):
    """The calls to FACEKI that a batch verification makes. The class ``FacekiHook`` has these methods."""

    def call(self, endpoint: Endpoint[T]) -> T:
        """Perform one call to FACEKI and return its typed result.

        :raises FacekiError: if the call fails.
        """

    def get_workflow_rules(self, workflow_id: str) -> WorkflowRules:
        """Fetch the rules of a workflow, such as the documents that it requires.

        :raises FacekiError: if the call fails.
        """

    def workflow_rules(self, workflow_id: str) -> WorkflowRules | None:
        """Return the rules of a workflow, such as the documents that it requires, from a cache or from FACEKI.

        Return ``None`` if the rules cannot be fetched, but a verification is still possible: the URL of the rules does
        not exist, the answer is unreadable, or the service fails or does not answer.

        :raises FacekiError: if the request fails for another reason, such as wrong credentials.
        """


@dataclass(slots=True, repr=False)
class VerificationGateway:
    """The calls to FACEKI and to the image storage for one batch. The class is thread-safe.

    :param hook: Hook for the calls to FACEKI.
    :param load_image: Function that returns a checked image for a name and a URI.
    :param options: Options of the batch.
    :param fence: Function that raises an error if a newer try has started. It is called while the images are sent,
        because only the newest try is allowed to send rows.
    :param clock: Clock of this machine. Tests replace it.
    """

    hook: BatchHook
    load_image: LoadImage
    options: BatchOptions
    fence: Callable[[], None]
    clock: Clock
    #: For each workflow: the identifier of one row that got the decision ACCEPTED in this try, and the Unix time of the
    #: decision. The batch looks up this row to find out whether FACEKI stores records of the workflow.
    _accepted: dict[str, tuple[str, float]] = field(default_factory=dict)
    #: For each workflow: whether FACEKI had a record of the accepted row when the batch looked up this row.
    _shows_records: dict[str, bool] = field(default_factory=dict)
    _shows_records_lock: threading.Lock = field(default_factory=threading.Lock)
    #: For each storage: column name and URI of one image that was read successfully. If another image in the storage
    #: cannot be read, the remembered image is read again. If that fails too, the whole storage is assumed to fail.
    _readable: dict[_Host, tuple[str, str]] = field(default_factory=dict)

    def endpoint(
        self, row: Row, not_before: float | None, known_request_ids: frozenset[str]
    ) -> PerformKycVerification:
        """Check a row and its images, and return the call that verifies the row. The call is not sent yet.

        If the answer to the call is lost, the call looks up the record of the verification. ``not_before`` and
        ``known_request_ids`` exclude the records of other verifications from this lookup.

        :param not_before: Unix time. Records that FACEKI created before this time are ignored. ``None`` means that a
            record of any age is accepted.
        :param known_request_ids: FACEKI's ids of earlier verifications with the same identifier. Their records are
            ignored.
        :raises ValidationError: if the row or one of its images is not valid.
        :raises ConfigurationError: if neither the row nor the batch nor the Connection contains a workflow.
        :raises FacekiError: if the rules of the workflow cannot be fetched; see :meth:`BatchHook.workflow_rules`.
        :raises OSError: if the storage does not deliver an image. The message does not contain the URI of the image.
        """
        workflow_id = self._workflow(row)
        documents = list(self._documents(row.values))
        selfie = self._image("selfie", row.values)
        if self.options.check_rules:
            rules = self.hook.workflow_rules(workflow_id)
            if rules is not None:
                check_documents(rules, documents)
        return PerformKycVerification(
            workflow_id=workflow_id,
            selfie=selfie,
            documents=documents,
            record_identifier=row.values["record_identifier"],
            lookup_timeout=self.options.lookup_timeout,
            known_request_ids=known_request_ids,
            not_before=not_before,
        )

    def verify(self, endpoint: PerformKycVerification) -> KycVerification:
        """Send the verification of a row to FACEKI and return the result. FACEKI bills the verification."""
        verification = self.hook.call(endpoint)
        if verification.decision is Decision.ACCEPTED and len(self._accepted) < MAX_WORKFLOWS:
            accepted = (endpoint.record_identifier, self.clock.time())
            self._accepted.setdefault(endpoint.workflow_id, accepted)
        return verification

    def find(self, row: Row, not_before: float | None) -> KycVerification | None:
        """Look up FACEKI's verification of the row. If there is none, return ``None``. FACEKI does not bill the lookup.

        :param not_before: Unix time. Older verifications are ignored. If it is ``None``, verifications of any age are
            found.
        """
        identifier = row.values["record_identifier"]
        return self.hook.call(FindKycVerification(record_identifier=identifier, not_before=not_before))

    def known_request_ids(self, row: Row) -> frozenset[str]:
        """Look up FACEKI's ids of the verifications with the row's identifier. FACEKI does not bill the lookup."""
        records = self.hook.call(FetchRecords(record_identifier=row.values["record_identifier"]))
        return frozenset(record.request_id for record in records if record.request_id)

    def stores_records(self, row: Row) -> bool:
        """Return ``False`` if FACEKI seems to store no records of the row's workflow. Otherwise return ``True``.

        The result is ``False`` in two cases:

        - The rules of the workflow say that FACEKI stores no records.
        - Another row of this workflow got the decision ACCEPTED in this try, and FACEKI has no record of that row.

        If the result is ``False``, FACEKI has possibly verified ``row`` even if it has no record of ``row``.

        :raises FacekiError: if FACEKI cannot be called now.
        """
        workflow_id = self._workflow(row)
        return self._are_records_stored(workflow_id) and self._shows_record(workflow_id)

    def record(self, identifier: str, request_id: str | None) -> VerificationRecord | None:
        """Return the full record of a verification. If FACEKI stores no record, return ``None``."""
        # FACEKI's response to a verification sometimes contains no request id, for example if an image was refused. In
        # this case, the record is selected by the identifier.
        by: dict[str, str] = {"request_id": request_id} if request_id else {"record_identifier": identifier}
        return latest(self.hook.call(FetchRecords(**by)))

    def records_testable_from(self) -> float:
        """Return the Unix time from which it can be tested whether FACEKI stores records of the workflows.

        For each workflow, the test looks up one row that got the decision ACCEPTED in this try. FACEKI is assumed to
        store the record of such a row within ``resubmit_after`` seconds. If the record is missing after this time,
        FACEKI stores no records of the workflow. If no row has the decision ACCEPTED yet, there is nothing to test, and
        the result is 0.
        """
        accepted_at = [accepted_at for _, accepted_at in self._accepted.values()]
        return max(accepted_at) + self.options.resubmit_after if accepted_at else 0.0

    def is_storage_healthy(self, row: Row) -> bool:
        """Return ``True`` if each storage of the row's images works.

        The caller needs this result if an image of the row cannot be read. If the storages work, the row gets an error.
        If a storage does not work, the row is postponed. To test a storage, the method reads an image that the storage
        has already delivered in this try. If the storage has delivered no image yet, the result is ``False``.
        """
        images = (place for name, place in row.values.items() if name.startswith(("selfie", "document_")))
        return all(self._is_readable(host) for host in set(map(_host_of, images)) if host is not None)

    def _is_readable(self, host: _Host) -> bool:
        image = self._readable.get(host)
        if image is None:
            return False
        try:
            self.load_image(*image)
        except Exception:  # noqa: BLE001 - a storage can raise any exception, and each means that it is not readable
            return False
        return True

    def _are_records_stored(self, workflow_id: str) -> bool:
        """Return ``False`` if the rules of a workflow say that FACEKI stores no records. Otherwise return ``True``.

        If FACEKI has no rules of the workflow, or has no endpoint for rules, the result is ``True``.

        :raises FacekiError: if FACEKI does not deliver the rules now, so that the result is unknown.
        """
        try:
            rules = self.hook.workflow_rules(workflow_id)
            return are_records_stored(rules, partial(self.hook.get_workflow_rules, workflow_id))
        except WorkflowError:
            return True

    def _shows_record(self, workflow_id: str) -> bool:
        """Test with one row whether FACEKI stores records of the workflow. Return ``False`` if it stores none.

        The method looks up a row of the workflow that got the decision ACCEPTED in this try. If FACEKI has no record of
        this row, the result is ``False``. If there is no such row yet, or if FACEKI possibly needs more time to store
        its record, the result is ``True``.

        The rules of a workflow also say whether FACEKI stores records. But FACEKI does not document this part of the
        rules, so the rules alone are not reliable.
        """
        with self._shows_records_lock:
            if workflow_id not in self._shows_records:
                identifier, accepted_at = self._accepted.get(workflow_id, ("", self.clock.time()))
                if self.clock.time() < accepted_at + self.options.resubmit_after or not identifier:
                    # The test is not possible yet: no row of the workflow has the decision ACCEPTED, or FACEKI possibly
                    # needs more time to store the record of this row. Until the test is possible, the batch assumes
                    # that FACEKI stores records.
                    return True
                found = self.hook.call(FindKycVerification(record_identifier=identifier))
                self._shows_records[workflow_id] = found is not None
            return self._shows_records[workflow_id]

    def _workflow(self, row: Row) -> str:
        workflow_id = row.values.get("workflow_id") or self.options.workflow_id
        if not workflow_id:
            raise ConfigurationError(
                f"row {row.number} has no workflow: set the workflow_id of the row, of the task or of "
                "the Connection"
            )
        return workflow_id

    def _documents(self, values: Mapping[str, str]) -> Iterator[Document]:
        for number in (1, 2, 3):
            front, back = f"document_{number}_front", f"document_{number}_back"
            if front in values:
                yield Document(
                    self._image(front, values), self._image(back, values) if back in values else None
                )
            elif back in values:
                raise ValidationError(f"{back} is given without {front}")

    def _image(self, name: str, values: Mapping[str, str]) -> Image:
        if name not in values:
            raise ValidationError(f"{name} is missing")
        place = values[name]
        try:
            image = self.load_image(name, place)
        except NotAllowedError:
            # The error message does not contain the URI.
            raise
        except ValidationError as error:
            # The URI is removed from the error message, because the file name of an image often contains a person's
            # name.
            raise ValidationError(without_uri(error.message, place)) from None
        except FacekiError:
            raise
        except StorageError as error:
            raise error.without_uri(name) from None
        except Exception as error:  # noqa: BLE001 - a storage can raise any exception, and nothing is sent yet
            # The text of the exception is omitted, because it can contain the file name of the image. Such a file name
            # often contains a person's name.
            raise OSError(f"{name} cannot be read now: {type(error).__name__}") from None
        self._readable[_host_of(place)] = (name, place)
        return replace(image, fence=self.fence)


@dataclass(slots=True)
class RowProcessor:
    """Processor of single manifest rows in one try of a batch. The class is thread-safe.

    :param gateway: The calls to FACEKI and to the image storage.
    :param lease: Lease of this try, which is checked before each billed call. Only the newest try has a valid lease.
    :param started: Unix time at which this try began.
    :param options: Options of the batch.
    :param clock: Clock of this machine. Tests replace it.
    :param is_stopped: Function that returns whether the batch is stopping. While it stops, no further row is sent.
    """

    gateway: VerificationGateway
    lease: Lease
    started: float
    options: BatchOptions
    clock: Clock = field(default_factory=Clock)
    is_stopped: Callable[[], bool] = lambda: False
    _unreadable_in_a_row: int = 0

    @property
    def _accepts_older_records(self) -> bool:
        # An older record has the identifier of the row, but FACEKI created it before this batch sent the row. By
        # default, such a record is accepted: the batch looks up each row first, and a record of any age becomes the
        # result of the row. With ``resubmit="always"`` or ``assume_new``, older records are not accepted.
        return self.options.resubmit != "always" and not self.options.assume_new

    def still_open(self, row: Row) -> Deferred:
        """Return an outcome that postpones a row that an earlier try possibly sent.

        The outcome contains the latest time at which the row was possibly sent, which is the start of this try. If an
        earlier try still runs, it notices within seconds that this try has started, and sends no further row; see
        ``lease.py``.
        """
        return Deferred(row, None, sent_by=self.started)

    def look_up(self, row: Row, since: float) -> Outcome:
        """Look up a row that an earlier try possibly sent.

        - If FACEKI has a record with a decision, the record is the result of the row.
        - If FACEKI has no record or no decision yet, or if the lookup fails, the row is postponed. This try processes
          the row again when it reads the manifest for the second time.
        - If the lookup fails with an error that concerns every row, such as wrong credentials, the batch stops.

        :param since: Unix time before which the row was certainly not sent.
        """
        try:
            found = self._find(row, since)
        except FacekiError as error:
            return _lookup_failed(row, error, sent_by=self.started)
        if found is None or found.decision is None:
            return self.still_open(row)
        return _succeeded(row, found, is_billed=_is_since(found, since))

    def reconcile(self, row: Row, since: float) -> Outcome:
        """Look up a possibly sent row, after FACEKI has had time to finish it. Send the row again if this is allowed.

        If FACEKI has a record of the row, the record is the result. Every record with the row's identifier counts as a
        record of the row. Exception: with ``assume_new`` or ``resubmit="always"``, older records do not count. A record
        is older if FACEKI certainly created it more than :data:`CLOCK_MARGIN_SECONDS` before ``since``.

        If FACEKI has no record of the row, the first matching rule applies:

        1. ``resubmit`` is ``"always"``: The row is sent again.
        2. ``resubmit`` is ``"never"``: The row gets an error.
        3. FACEKI seems to store no records of the row's workflow: The row gets an error.
        4. FACEKI has an older record, which does not count because of ``assume_new``: The row gets an error.
        5. In all other cases: The row is sent again.

        The error says that the row was possibly sent and billed. If a lookup fails, the row is left to the next try. If
        the lookup fails with an error that concerns every row, such as wrong credentials, the batch stops.

        :param since: Unix time before which the row was certainly not sent.
        """
        try:
            found = self._find(row, since)
        except FacekiError as error:
            return _lookup_failed(row, error, sent_by=None)
        if found is not None:
            return _succeeded(row, found, is_billed=_is_since(found, since))
        return self._resubmit(row, since)

    def verify(self, row: Row, since: float, *, is_last: bool) -> Outcome:
        """Send a row. By default, look up the row first.

        If the lookup finds a record with the row's identifier, the row is not sent, and the record is its result. If
        the record has no decision yet, the row is postponed. This try processes the row again when it reads the
        manifest for the second time. With ``assume_new`` or ``resubmit="always"``, a found record is not used as the
        result. With ``resubmit="always"``, its id is remembered, so that it is not taken for the record of the new
        verification.

        :param since: Unix time shortly before the row is sent. It is used only with ``assume_new`` or
            ``resubmit="always"``: if FACEKI's answer is lost, the record is looked up after the row was sent, and
            records that are clearly older than ``since`` are ignored.
        :param is_last: Whether this try reads the manifest for the last time. If so, a record without a decision is
            also accepted as the result.
        """
        try:
            known = self._known_request_ids(row)
            if self._accepts_older_records:
                found = self.gateway.find(row, None)
                if found is not None and (found.decision is not None or is_last):
                    return _succeeded(row, found, is_billed=False)
                if found is not None:
                    return Deferred(row, None, sent_by=None, is_pending=True)
        except FacekiError as error:
            return _lookup_failed(row, error, sent_by=None)
        return self._send(row, since, known, is_last=is_last)

    def record(self, line: Mapping[str, object]) -> Outcome:
        """Fetch the full record of a row that has a result.

        :param line: Line of the row in the output folder ``results``.
        """
        identifier, request_id = str(line.get("record_identifier")), line.get("request_id")
        try:
            record = self.gateway.record(identifier, request_id if isinstance(request_id, str) else None)
        except FacekiError as error:
            return Deferred(row_of(line), error, sent_by=self.started)
        document = dict(record.document) if record is not None else None
        return Recorded({"record_identifier": identifier, "request_id": request_id, "record": document})

    def _find(self, row: Row, since: float) -> KycVerification | None:
        return self.gateway.find(row, None if self._accepts_older_records else since - CLOCK_MARGIN_SECONDS)

    def _resubmit(self, row: Row, since: float) -> Outcome:
        """Send a possibly sent row again, or return an error for it; see :meth:`reconcile`."""
        try:
            problem = self._problem_of_resubmitting(row)
            if problem is None:
                known = self._known_request_ids(row)
                return self._send(row, since, known, is_last=True)
        except FacekiError as error:
            return _lookup_failed(row, error, sent_by=None)
        unknown = OutcomeUnknownError(f"the row may have been sent and billed, and {problem}")
        return _failed(error_line(row, unknown), is_billed=None)

    def _known_request_ids(self, row: Row) -> frozenset[str]:
        """Return the ids of the row's records with ``resubmit="always"``; otherwise nothing, and send no request."""
        return self.gateway.known_request_ids(row) if self.options.resubmit == "always" else frozenset()

    def _problem_of_resubmitting(self, row: Row) -> str | None:
        if self.options.resubmit == "always":
            return None
        # With ``assume_new``, the search for the record of this row has ignored all records that are older than the
        # sending of the row. The next line looks up records of any age. If it finds an older record, there are two
        # explanations. Usually, the record belongs to another verification. But if FACEKI's clock is behind by more
        # than CLOCK_MARGIN_SECONDS, the record belongs to this row, and sending the row again would bill it twice. The
        # two cases cannot be distinguished. Therefore the row is not sent again, and gets an error.
        if not self._accepts_older_records and self.gateway.find(row, None) is not None:
            return (
                "FACEKI's record with this identifier belongs to another verification, or FACEKI's clock "
                "and this clock differ"
            )
        if self.options.resubmit == "never":
            return "FACEKI has no record of it"
        if not self.gateway.stores_records(row):
            return "FACEKI has no record of it, and its workflow stores no records, or stores them late"
        return None

    def _send(self, row: Row, since: float, known: frozenset[str], *, is_last: bool) -> Outcome:
        try:
            endpoint = self._endpoint(row, since, known)
        except FacekiError as error:
            return _not_sent(row, error)
        except OSError as error:
            return self._unreadable(row, error, is_last=is_last)
        try:
            retry_storage(self.lease.ensure_fresh, self.clock.sleep)
            return _succeeded(row, self._perform(endpoint), is_billed=True)
        except LeaseLostError as error:
            return Abort(row, error, sent_by=None)
        except _StoppedError:
            return Deferred(row, None, sent_by=None)
        # The errors of the lease are subclasses of ValidationError, so they are handled before it.
        except LeaseUncheckedError as error:
            return Deferred(row, error, sent_by=None)
        except ValidationError as error:
            # The images were readable a moment ago, and now they are not. Either the storage fails, or another process
            # is changing the images. Both can be temporary, so the row is processed again later in this try or in the
            # next try. The row gets an error only when this try reads the manifest for the last time, and only if the
            # storage works.
            is_own = is_last and self.gateway.is_storage_healthy(row)
            return _failed(error_line(row, error)) if is_own else Deferred(row, error, sent_by=None)
        except FacekiError as error:
            return _outcome_of_error(row, error, sent_by=self.clock.time() if error.is_ambiguous else None)
        except OSError as error:
            # It could not be checked whether a newer try has started, so the row was not sent. It is processed again
            # later.
            return Deferred(row, error, sent_by=None)

    def _endpoint(self, row: Row, since: float, known: frozenset[str]) -> PerformKycVerification:
        not_before = None if self._accepts_older_records else since - CLOCK_MARGIN_SECONDS
        make = partial(self.gateway.endpoint, row, not_before, known)
        try:
            if self._unreadable_in_a_row < UNREADABLE_ROWS_BEFORE_NO_RETRY:
                endpoint = retry_storage(make, self.clock.sleep)
            else:
                endpoint = make()
        except OSError:
            self._unreadable_in_a_row += 1
            raise
        self._unreadable_in_a_row = 0
        return endpoint

    def _unreadable(self, row: Row, error: OSError, *, is_last: bool) -> Outcome:
        # If the storage refuses access, its credentials have possibly expired. Therefore the row gets no error, and the
        # next try processes it again.
        is_own = (
            is_last and not isinstance(error, StorageAccessError) and self.gateway.is_storage_healthy(row)
        )
        return _failed(storage_line(row, error)) if is_own else Deferred(row, error, sent_by=None)

    def _perform(self, endpoint: PerformKycVerification) -> KycVerification:
        for pause in SEND_PAUSES_SECONDS:
            try:
                return self._perform_once(endpoint)
            except LeaseLostError:
                raise
            except ValidationError:
                # The sending stopped before the end of the request, so FACEKI cannot process the request, and the row
                # can be sent again. There are three possible reasons: an image could not be read to its end, the size
                # of an image had changed, or it could not be checked whether a newer try has started.
                self.clock.sleep(pause)
        return self._perform_once(endpoint)

    def _perform_once(self, endpoint: PerformKycVerification) -> KycVerification:
        if self.is_stopped():
            raise _StoppedError
        return self.gateway.verify(endpoint)


def row_of(line: Mapping[str, object]) -> Row:
    """Return a row that contains only the identifier of a line in ``results``."""
    return Row(0, {"record_identifier": str(line.get("record_identifier"))})


def _succeeded(row: Row, verification: KycVerification, *, is_billed: bool) -> Succeeded:
    # The output line contains the identifier from the manifest row, because FACEKI possibly returns a different one.
    # The output line does not contain the link of the verification, because only the person who is verified is allowed
    # to open it.
    line: dict[str, object] = {"row": row.number, **verification.summary()}
    del line["link"]
    return Succeeded({**line, "record_identifier": row.values["record_identifier"], "billed": is_billed})


def _failed(line: Mapping[str, object], *, is_billed: bool | None = False) -> Failed:
    return Failed({**line, "billed": is_billed})


def _is_since(found: KycVerification, since: float) -> bool:
    created_at = found.record.created_at
    return created_at is None or created_at.timestamp() >= since - CLOCK_MARGIN_SECONDS


def _not_sent(row: Row, error: FacekiError) -> Outcome:
    # If a row contains no workflow, a workflow error is about the default workflow of the batch. The same error would
    # occur for every other row without a workflow. Therefore the batch stops.
    if isinstance(error, WorkflowError) and "workflow_id" not in row.values:
        return Abort(row, error, sent_by=None)
    return _outcome_of_error(row, error, sent_by=None)


def _outcome_of_error(row: Row, error: FacekiError, sent_by: float | None) -> Outcome:
    if is_systemic(error):
        return Abort(row, error, sent_by)
    if is_transient(error):
        return Deferred(row, error, sent_by)
    line = {**error_line(row, error), "billed": None if sent_by is not None else False}
    return Failed(line, refusal_of(row, error, sent_by))


def _lookup_failed(row: Row, error: FacekiError, sent_by: float | None) -> Outcome:
    # After a failed lookup, the row gets no error, because FACEKI has possibly verified and billed it. The row is
    # postponed, or the batch stops.
    return Abort(row, error, sent_by) if is_systemic(error) else Deferred(row, error, sent_by)


def _host_of(place: str) -> _Host:
    """Return the scheme and the host of an image's URI. If the URI is not valid, return ``None``."""
    try:
        parts = urlsplit(place)
    except ValueError:
        return None
    return parts.scheme, parts.netloc
