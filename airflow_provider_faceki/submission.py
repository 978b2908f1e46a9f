# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What a task instance remembers of a charged call over its tries, so that the next try knows what to look for.

XCom is cleared before each try and so remembers nothing. Airflow 3.3 and later have a task state store; before
that, a try number above one is all there is to go by.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_faceki import api

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_faceki.api.conversation import Endpoint
    from airflow_provider_faceki.hooks.faceki import FacekiHook

T = TypeVar("T")

_SINCE = "faceki_submitting_since"
_OUTCOME = "faceki_outcome"
_MATCHES = "faceki_matches"


class Submission:
    """The charged call of one task instance.

    :param context: The task's context.
    """

    def __init__(self, context: Context) -> None:
        self._ti = context["ti"]
        self._store = context.get("task_state_store")

    @property
    def is_open(self) -> bool:
        """Whether an earlier try is known to have begun a call that it never ended."""
        return self._store is not None and self._store.get(_SINCE) is not None

    def settled_at(self, settle_seconds: float) -> float | None:
        """Return the Unix time from which on absence at FACEKI may be believed; ``None`` if nothing was sent.

        :param settle_seconds: Seconds that FACEKI is given to finish, from the last byte on.
        """
        # Whatever an earlier try sent, it sent before this one began. Nothing else bounds it: a process may be held
        # between the mark and its last byte for as long as you like. `dag.test()` of Airflow 2 does not say when.
        start: Any = self._ti.start_date
        started: float = start.timestamp() if start else time.time()
        if self._store is None:
            return started + settle_seconds if self._ti.try_number > 1 else None
        since = self._store.get(_SINCE)
        if not isinstance(since, int | float):
            return None
        return max(since, started) + settle_seconds

    def send(self, hook: FacekiHook, endpoint: Endpoint[T]) -> T:
        """Make the call, remembering before its first byte goes out that it may have been made.

        :param hook: Who makes it.
        :param endpoint: A charged call.
        :raises AirflowException: a picture could not be sent as it was found, so FACEKI got no whole call.
        :raises FacekiError: as ``hook.ask``.
        """
        if self._store is not None:
            self._store.set(_SINCE, time.time())
        try:
            return hook.ask(endpoint)
        except api.InputError as error:
            self.forget()
            # What can never work was refused before: here a storage fails, or somebody is still writing the picture.
            raise AirflowException(str(error)) from None
        except api.FacekiError as error:
            if not error.may_have_acted:
                self.forget()
            raise

    def forget(self) -> None:
        """Take that back: FACEKI cannot have acted on the call, or what came of it is safe."""
        if self._store is not None:
            self._store.delete(_SINCE)

    def keep(self, made: api.KycVerification) -> None:
        """Remember what came of the call: FACEKI may be set up to keep no record of it."""
        if self._store is not None:
            self._store.set(_OUTCOME, made.to_dict())

    def keep_matches(self, records: Iterable[api.VerificationRecord]) -> bool:
        """Remember whom a search found, for it is paid for; return whether that is possible."""
        if self._store is None:
            return False
        self._store.set(
            _MATCHES, [api.KycVerification(record, is_whole=True).to_dict() for record in records]
        )
        self.forget()
        return True

    def matches(self) -> list[api.KycVerification] | None:
        """Return whom an earlier try found, as far as it goes; ``None`` if no search was kept."""
        kept = self._store.get(_MATCHES) if self._store is not None else None
        if not isinstance(kept, list):
            return None
        return [made for made in map(api.KycVerification.from_dict, kept) if made is not None]

    def forget_matches(self) -> None:
        """Let the next search be made anew."""
        if self._store is not None:
            self._store.delete(_MATCHES)

    def outcome(self) -> api.KycVerification | None:
        """Return what an earlier try kept, as far as it goes."""
        kept = self._store.get(_OUTCOME) if self._store is not None else None
        return api.KycVerification.from_dict(kept) if kept is not None else None
