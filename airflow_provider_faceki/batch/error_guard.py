# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tell systemic errors from bad rows: hold refusals until one row succeeds.

FACEKI may refuse every row because of one mistake in the batch or its Connection, and a storage may refuse every
picture. So refusals are held until one row succeeds. Then they become errors of their rows. If many are alike and no
row succeeds, the batch ends and no row gets an error.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_faceki import api
from airflow_provider_faceki.batch.outcomes import Deferred, Failed

#: Number of refusals of one kind, with no row that succeeded, from which on the cause is the batch and not its rows.
MIN_ALIKE = 20
#: The same number of storage failures in succession, after the storage has given pictures in this try.
MIN_ALIKE_LATER = 50


@dataclass(slots=True)
class SystemicErrorGuard:
    """The refusals that are held, and the storage failures in succession.

    :param is_released: Whether a row has succeeded, in this try or an earlier one.
    """

    is_released: bool
    _held: list[Failed] = field(default_factory=list)
    _refusals: Counter[tuple[object, ...]] = field(default_factory=Counter)
    _storage_failures: Counter[tuple[object, ...]] = field(default_factory=Counter)
    _last_failure: Exception | None = None
    _storage_worked: bool = False

    @property
    def held(self) -> int:
        """Number of refusals that are held."""
        return len(self._held)

    def hold(self, failed: Failed) -> bool:
        """Hold an error that may be systemic; return whether it is held."""
        if self.is_released or failed.refusal is None:
            return False
        self._held.append(failed)
        self._refusals[_kind(failed.refusal.error)] += 1
        return True

    def storage_failed(self, error: OSError) -> None:
        """Count a failure of a storage of pictures."""
        self._storage_failures[_storage_kind(error)] += 1
        self._last_failure = error

    def storage_worked(self) -> None:
        """Note that a storage has given all pictures of a row."""
        self._storage_worked = True
        self._storage_failures.clear()

    def systemic_error(self) -> Exception | None:
        """Return an error that says what is wrong with the batch; ``None`` if the rows may be the cause."""
        return self._systemic_refusal() or self._systemic_storage_failure()

    def release(self) -> list[Mapping[str, object]]:
        """Return the lines of the held refusals: a row has succeeded, so they are errors of their rows."""
        self.is_released = True
        return [failed.line for failed in self._take_held()]

    def drain(self) -> list[Deferred]:
        """Return the rows of the held refusals as deferred: they get no error."""
        return [failed.refusal.deferred for failed in self._take_held() if failed.refusal is not None]

    def _take_held(self) -> list[Failed]:
        held, self._held = self._held, []
        self._refusals.clear()
        return held

    def _systemic_refusal(self) -> api.FacekiError | None:
        if not self._refusals:
            return None
        kind, count = self._refusals.most_common(1)[0]
        if count < MIN_ALIKE:
            return None
        first = next(
            failed.refusal.error
            for failed in self._held
            if failed.refusal is not None and _kind(failed.refusal.error) == kind
        )
        # A copy: the held error keeps its own text.
        error = copy.copy(first)
        error.message = (
            f"no row has succeeded and {count} rows were refused alike, so the cause is likely not in the rows, and "
            f"none of them counts as an error yet: {first.message}"
        )
        return error

    def _systemic_storage_failure(self) -> OSError | None:
        needed = MIN_ALIKE_LATER if self._storage_worked else MIN_ALIKE
        count = max(self._storage_failures.values(), default=0)
        if count < needed or self._last_failure is None:
            return None
        return OSError(
            f"the storage of the pictures failed for {count} rows in succession, so the cause is likely not in the "
            f"rows, and none of them counts as an error: {self._last_failure}"
        )


def _kind(error: api.FacekiError) -> tuple[object, ...]:
    return (type(error), error.code, error.http_status)


def _storage_kind(error: OSError) -> tuple[object, ...]:
    return (type(error), getattr(error, "reason", None))
