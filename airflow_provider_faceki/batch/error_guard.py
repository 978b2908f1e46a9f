# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Distinguish systemic errors, which concern the whole batch, from errors of single rows.

Some errors are systemic by their class, such as used-up credit (:func:`is_systemic`). For other errors, the guard
(:class:`SystemicErrorGuard`) waits until several rows have failed.

A row is refused if FACEKI answers with an error instead of a decision, or if the task does not allow one of its images.
A mistake in the task or in its Connection can cause some of these errors for every row (:func:`refusal_of`). Therefore
the guard first collects these refusals. They are not errors yet:

- If a row has succeeded, in this try or in an earlier one, or if the batch ends without being stopped, the refused rows
  themselves are the cause. Each collected refusal becomes the error of its row.
- If many rows are refused with the same error and no row succeeds, the batch is the cause. The batch stops, and none of
  these rows gets an error.

A failed storage can prevent the reading of every image. If the storage fails for many rows in the same way, and works
for no row in between, the batch also stops. It also stops after many consecutive rows with a temporary FACEKI error.
"""

from __future__ import annotations

import copy
import errno
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_faceki.api.errors import (
    AuthenticationError,
    ChargeLimitError,
    ConfigurationError,
    FacekiError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaError,
    TlsError,
    ValidationError,
    WorkflowError,
)
from airflow_provider_faceki.batch.rows import Abort, Deferred, Failed, Outcome, Row, Succeeded
from airflow_provider_faceki.storage_interface import NotAllowedError

#: If this number of rows have failed in the same way, the batch stops, because the cause is probably not in the rows.
#: The rule applies in two cases:
#:
#: - This number of rows was refused with the same error, and no row has succeeded.
#: - The storage of the images has failed in the same way for this number of rows, and it has worked for no row in this
#:   try (execution of the task).
MIN_ALIKE = 20
#: This number replaces ``MIN_ALIKE`` for failures of the image storage, as soon as the storage has worked for a row in
#: this try (execution of the task). Each success of the storage restarts the count.
MIN_ALIKE_LATER = 50
#: After this number of consecutive rows with a temporary FACEKI error, the try ends, because FACEKI is probably down.
FAILURES_BEFORE_DOWN = 50


class ImageStorageError(OSError):
    """Error: the storage of the images failed for so many rows that it probably fails for every row."""


@dataclass(slots=True)
class SystemicErrorGuard:
    """Guard that finds out whether the errors of rows concern the whole batch. If so, the batch has to stop.

    The guard collects the refused rows. It also counts the rows whose images the storage could not deliver.

    :param is_released: Whether a row has succeeded, in this try or in an earlier try. If so, each later refusal
        concerns only its own row, and the guard does not collect it.
    """

    is_released: bool
    _held: list[tuple[Mapping[str, object], Abort]] = field(default_factory=list)
    _refusals: Counter[tuple[object, ...]] = field(default_factory=Counter)
    _storage_failures: Counter[tuple[object, ...]] = field(default_factory=Counter)
    _last_failure: Exception | None = None
    _storage_worked: bool = False
    _failures_in_a_row: int = 0
    _last_faceki_error: FacekiError | None = None

    @property
    def held(self) -> int:
        """Number of refused rows that the guard has collected. No errors are written for these rows yet."""
        return len(self._held)

    @property
    def held_rows(self) -> list[Deferred]:
        """The refused rows that the guard has collected, as outcomes that postpone the rows to a later try."""
        return [Deferred(refusal.row, None, refusal.sent_by) for _, refusal in self._held]

    def hold(self, failed: Failed) -> bool:
        """Keep the error of a refused row until it is known whether the row or the whole batch is the cause.

        The error is not kept in two cases:

        - A row has already succeeded. Therefore the batch is not the cause.
        - Only the row itself can cause an error of this kind.

        :returns: Whether the error was kept. If it was not kept, the caller writes it to the output folder ``errors``.
        """
        if self.is_released or failed.refusal is None:
            return False
        self._held.append((failed.line, failed.refusal))
        self._refusals[_kind(failed.refusal.error)] += 1
        return True

    def note(self, outcome: Outcome) -> None:
        """Count the temporary errors of FACEKI and of the storage of the images, by the outcome of one row."""
        error = outcome.error if isinstance(outcome, Deferred) else None
        if isinstance(error, OSError):
            # An OSError means that a storage has failed, usually the storage of an image. Therefore it is not counted
            # as a failure of FACEKI. Every error that possibly concerns all files of the storage is counted as a
            # failure of the storage. An input/output error (EIO) usually concerns a single file, so it is not counted.
            if getattr(error, "reason", None) != os.strerror(errno.EIO):
                self.storage_failed(error)
            return
        if isinstance(outcome, Failed) or (isinstance(outcome, Succeeded) and outcome.line.get("billed")):
            self.storage_worked()
        if isinstance(error, ValidationError):
            return
        if isinstance(error, FacekiError):
            self._failures_in_a_row += 1
            self._last_faceki_error = error
        else:
            self._failures_in_a_row = 0

    def storage_failed(self, error: OSError) -> None:
        """Count a row that could not be processed because the storage of one of its images failed."""
        self._storage_failures[_storage_kind(error)] += 1
        self._last_failure = error

    def storage_worked(self) -> None:
        """Record that the storage of the images works, and reset the counts of its failures.

        Call this method in two cases:

        - A row was sent. Its images were readable, so the storage works.
        - A row got an error. A row whose image cannot be read because the storage fails is postponed and gets no error.
          So the storage works, unless the row got its error before an image was read.
        """
        self._storage_worked = True
        self._storage_failures.clear()

    def systemic_error(self) -> Exception | None:
        """Return an error if the failures so far concern the whole batch. Otherwise return ``None``."""
        return self._faceki_down() or self._systemic_refusal() or self._systemic_storage_failure()

    def release(self) -> list[Mapping[str, object]]:
        """Return the error lines of the refused rows that the guard has collected. Later refusals are not collected.

        Call this method when a first row has succeeded, or at the end of a batch that was not stopped. The caller must
        write the returned lines to the output folder ``errors``.
        """
        self.is_released = True
        lines = [line for line, _ in self._held]
        self._held.clear()
        self._refusals.clear()
        return lines

    def _faceki_down(self) -> FacekiError | None:
        return self._last_faceki_error if self._failures_in_a_row >= FAILURES_BEFORE_DOWN else None

    def _systemic_refusal(self) -> FacekiError | None:
        if not self._refusals:
            return None
        kind, count = self._refusals.most_common(1)[0]
        if count < MIN_ALIKE:
            return None
        first = next(refusal.error for _, refusal in self._held if _kind(refusal.error) == kind)
        # The new message is about the whole batch. It is set in a copy of the error, because the original error is
        # still the refusal of a single row.
        error = copy.copy(first)
        error.message = (
            f"no row has succeeded and {count} rows were refused for the same reason, so the cause is "
            f"probably not in the rows, and none of them counts as an error yet: {first.message}"
        )
        return error

    def _systemic_storage_failure(self) -> ImageStorageError | None:
        needed = MIN_ALIKE_LATER if self._storage_worked else MIN_ALIKE
        count = max(self._storage_failures.values(), default=0)
        if count < needed or self._last_failure is None:
            return None
        return ImageStorageError(
            f"the storage of the images failed for {count} consecutive rows, so the cause is probably "
            f"not in the rows, and none of them counts as an error: {self._last_failure}"
        )


def refusal_of(row: Row, error: FacekiError, sent_by: float | None) -> Abort | None:
    """Return an ``Abort`` if the error of a row possibly applies to every row of the batch.

    For example, FACEKI refuses every row if a setting of the batch is wrong, and the task allows no image at all if its
    ``allowed_image_prefixes`` are wrong. If only this row can be the cause, return ``None``.
    """
    if isinstance(error, WorkflowError) and "workflow_id" in row.values:
        return None
    kinds = WorkflowError | InvalidRequestError | NotFoundError | NotAllowedError
    return Abort(row, error, sent_by) if isinstance(error, kinds) else None


def is_systemic(error: FacekiError) -> bool:
    """Return whether an error, such as used-up credit, would also occur for the other rows. If so, the batch stops."""
    kinds = QuotaError | AuthenticationError | ChargeLimitError | ConfigurationError | TlsError
    return isinstance(error, kinds)


def is_transient(error: FacekiError) -> bool:
    """Return whether a row that failed with ``error`` can succeed later. If so, the row is postponed."""
    return error.is_transient or isinstance(error, OutcomeUnknownError)


def _kind(error: FacekiError) -> tuple[object, ...]:
    return (type(error), error.code, error.http_status)


def _storage_kind(error: OSError) -> tuple[object, ...]:
    return (type(error), getattr(error, "reason", None))
