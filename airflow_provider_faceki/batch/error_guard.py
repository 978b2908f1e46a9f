# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Guard that distinguishes systemic errors, which concern the whole batch, from errors of single rows.

A row is refused if FACEKI answers with an error instead of a decision, or if the task does not allow one of its images.
A mistake in the task or in its Connection can cause the refusal of every row. Therefore the guard first collects the
refusals. They are not errors yet:

- If a row succeeds, or if the batch ends without being stopped, the refused rows themselves are the cause. Each
  collected refusal becomes the error of its row.
- If many rows are refused with the same error and no row succeeds, the batch is the cause. The batch stops, and none of
  these rows gets an error.

A failed storage can prevent the reading of every image. If the storage fails for many rows in the same way, and works
for no row in between, the batch also stops.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_faceki.api.errors import FacekiError
from airflow_provider_faceki.batch.rows import Abort, Deferred, Failed

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

    def storage_failed(self, error: OSError) -> None:
        """Count a row that could not be processed because the storage of one of its images failed."""
        self._storage_failures[_storage_kind(error)] += 1
        self._last_failure = error

    def storage_worked(self) -> None:
        """Record that the storage of the images works, and reset the counts of its failures.

        Call this method in two cases:

        - A row was sent. Its images were readable, so the storage works.
        - A row got an error. While the storage fails, rows are postponed and get no error. So the storage works.
        """
        self._storage_worked = True
        self._storage_failures.clear()

    def systemic_error(self) -> Exception | None:
        """Return an error if the failures so far concern the whole batch. Otherwise return ``None``."""
        return self._systemic_refusal() or self._systemic_storage_failure()

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


def _kind(error: FacekiError) -> tuple[object, ...]:
    return (type(error), error.code, error.http_status)


def _storage_kind(error: OSError) -> tuple[object, ...]:
    return (type(error), getattr(error, "reason", None))
