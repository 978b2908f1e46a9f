# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What a task instance remembers of a charged call over its tries, so that the next try knows what to look for.

XCom is cleared before each try and so remembers nothing. Airflow 3.3 and later have a task state store; before
that, a try number above one is all there is to go by.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_faceki import api

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_faceki.api.protocol.session import Endpoint
    from airflow_provider_faceki.hooks.faceki import FacekiHook

T = TypeVar("T")

_SINCE = "faceki_submitting_since"
_OUTCOME = "faceki_outcome"
_MATCHES = "faceki_matches"


class Submission:
    """The charged call of one task instance.

    :param context: The task's context.
    :param identifier: What FACEKI keeps it under, as it is sent; ``None`` for a call of which FACEKI keeps nothing.
    :param pictures: What tells its pictures from others, where the identifier does not change with the person.
    """

    def __init__(self, context: Context, identifier: str | None = None, pictures: str | None = None) -> None:
        self._ti = context["ti"]
        self._store = context.get("task_state_store")
        self._pictures = pictures
        # A hash, for a key has to fit into the path of a URL.
        apart = "" if identifier is None else f"_{digest(identifier)}"
        self._since, self._outcome = _SINCE + apart, _OUTCOME + apart

    @property
    def is_open(self) -> bool:
        """Whether an earlier try is known to have begun a call that it never ended."""
        return self._kept(self._since) is not None

    def check_pictures(self) -> None:
        """Refuse to take what was made of other pictures for an outcome of these.

        :raises AirflowFailException: under the same identifier, others were sent or may have been.
        """
        if self._pictures is None:
            return
        for kept in (self._kept(self._since), self._kept(self._outcome)):
            pictures = kept.get("pictures") if isinstance(kept, Mapping) else None
            if pictures not in (None, self._pictures):
                raise AirflowFailException(
                    "this task instance has verified other pictures, perhaps of another person, under the identifier "
                    "that is derived from it: give a record_identifier of the person's own, or let the URIs of the "
                    "pictures be the same in each try; nothing was sent"
                )

    def settled_at(self, resubmit_after: float) -> float | None:
        """Return the Unix time from which on absence at FACEKI may be believed; ``None`` if nothing was sent.

        :param resubmit_after: Seconds that FACEKI is given to finish, from the last byte on.
        """
        # Whatever an earlier try sent, it sent before this one began. Nothing else bounds it: a process may be held
        # between the mark and its last byte for as long as you like. `dag.test()` of Airflow 2 does not say when.
        start: Any = self._ti.start_date
        started: float = start.timestamp() if start else time.time()
        if self._store is None:
            return started + resubmit_after if self._ti.try_number > 1 else None
        kept = self._kept(self._since)
        since = kept.get("at") if isinstance(kept, Mapping) else None
        if not isinstance(since, int | float):
            return None
        return max(since, started) + resubmit_after

    def send(self, hook: FacekiHook, endpoint: Endpoint[T]) -> T:
        """Make the call, remembering before its first byte goes out that it may have been made.

        :param hook: Who makes it.
        :param endpoint: A charged call.
        :raises AirflowException: a picture could not be sent as it was found, so FACEKI got no whole call.
        :raises FacekiError: as ``hook.call``.
        """
        if self._store is not None:
            self._store.set(self._since, {"at": time.time(), "pictures": self._pictures})
        try:
            return hook.call(endpoint)
        except api.ValidationError as error:
            self.forget()
            # What can never work was refused before: here a storage fails, or somebody is still writing the picture.
            raise AirflowException(str(error)) from None
        except api.FacekiError as error:
            if not error.is_ambiguous:
                self.forget()
            raise

    def forget(self) -> None:
        """Take that back: FACEKI cannot have acted on the call, or what came of it is safe."""
        if self._store is not None:
            self._store.delete(self._since)

    def keep(self, made: api.KycVerification) -> None:
        """Remember what came of the call: FACEKI may be set up to keep no record of it."""
        if self._store is not None:
            self._store.set(self._outcome, {**made.to_dict(), "pictures": self._pictures})

    def outcome(self) -> api.KycVerification | None:
        """Return what an earlier try kept, as far as it goes."""
        return api.KycVerification.from_dict(self._kept(self._outcome))

    def keep_matches(self, records: Iterable[api.VerificationRecord], place: str, size: int | None) -> bool:
        """Remember whom a search found, for it is paid for; return whether that is possible.

        :param records: They.
        :param place: Where the picture is that was searched for.
        :param size: How many bytes it has, if that tells it from others.
        """
        if self._store is None:
            return False
        found: list[Any] = [api.KycVerification(record, is_whole=True).to_dict() for record in records]
        self._store.set(_MATCHES, {"place": digest(place), "size": size, "found": found})
        self.forget()
        return True

    def matches(self, place: str, size: Callable[[], int | None]) -> list[api.KycVerification] | None:
        """Return whom an earlier try found by the same picture, as far as it goes; ``None`` if no search was kept.

        :param place: Where the picture is.
        :param size: Says how many bytes it has now, if that is known.
        """
        kept = self._kept(_MATCHES)
        found = kept.get("found") if isinstance(kept, Mapping) else None
        if not isinstance(kept, Mapping) or not isinstance(found, list) or kept.get("place") != digest(place):
            return None
        known = kept.get("size")
        if known is not None and size() not in (None, known):
            return None
        return [made for made in map(api.KycVerification.from_dict, found) if made is not None]

    def forget_matches(self) -> None:
        """Let the next search be made anew."""
        if self._store is not None:
            self._store.delete(_MATCHES)

    def _kept(self, key: str) -> Any:
        return self._store.get(key) if self._store is not None else None


def digest(*things: object) -> str:
    """Return what tells these from others and does not tell what they are: a URI may be named after a person."""
    text = chr(0).join(map(str, things))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
