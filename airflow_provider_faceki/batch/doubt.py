# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Is it the rows' fault? What FACEKI refuses of everybody is a mistake of the batch, or of its Connection.

So the first refusals are held back: one row that goes through makes them errors of their rows, and many that are all
alike, with none that goes through, end the batch with nothing final said of anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_faceki import api
from airflow_provider_faceki.batch.outcomes import Failed, Later

#: Refusals alike, and nothing else, after which it is not the rows' fault.
REFUSALS_ALIKE = 20


@dataclass(slots=True)
class Doubt:
    """The refusals that are held back.

    :param is_over: Whether a row has gone through, be it in an earlier try.
    """

    is_over: bool
    _held: list[Failed] = field(default_factory=list)

    def holds(self, failed: Failed) -> bool:
        """Whether an error may be everybody's, in which case it is held back."""
        if self.is_over or failed.refusal is None:
            return False
        if self._held and _kind(self._held[0]) != _kind(failed):
            return False
        self._held.append(failed)
        return True

    @property
    def verdict(self) -> api.FacekiError | None:
        """What is wrong with the batch, if it is not its rows."""
        refusal = self._held[0].refusal if len(self._held) >= REFUSALS_ALIKE else None
        if refusal is None:
            return None
        error = refusal.error
        error.message = (
            f"the first {len(self._held)} rows that were sent failed alike, so it is likely not their fault, and "
            f"none of them counts as an error yet: {error.message}"
        )
        return error

    def dispelled(self) -> list[Mapping[str, object]]:
        """Return the lines of what was held back: they are the rows' own errors after all."""
        self.is_over = True
        held, self._held = self._held, []
        return [failed.line for failed in held]

    def confirmed(self) -> list[Later]:
        """Return the rows whose errors were held back: they are for later."""
        held, self._held = self._held, []
        return [failed.refusal.later for failed in held if failed.refusal is not None]


def _kind(failed: Failed) -> tuple[object, ...]:
    error = failed.refusal.error if failed.refusal else None
    return (type(error), error.code, error.http_status) if error else ()
