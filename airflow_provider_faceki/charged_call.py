# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""State of a charged call over the tries of a task instance: the intent to send, the outcome, and a fence.

XCom is cleared before each try, so it cannot hold this. Airflow 3.3 and later have a task state store; before that, a
try number above one is the only sign of an earlier call.

The fence keeps two executions of one task instance from sending at the same time. The store has no compare-and-set, so
it is Fischer's algorithm: write a nonce, wait for longer than a write takes, and send only if the nonce is still there.
The mark is read before FACEKI is asked for a record and compared again before the nonce is written, and it stays after
the call: whatever another execution sent in between has changed it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import uuid4

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_faceki import api
from airflow_provider_faceki.api.values import storable

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_faceki.api.protocol.session import Endpoint
    from airflow_provider_faceki.hooks.faceki import FacekiHook

T = TypeVar("T")

#: Seconds between writing the nonce and reading it back. It must exceed the time between another execution's read and
#: its write, which are two requests to Airflow's API server.
MIN_FENCE_SECONDS = 1.0
#: The wait is at least this many times as long as this execution's own read and write took.
_FENCE_FACTOR = 3.0

_PENDING_KEY = "faceki_submitting_since"
_OUTCOME_KEY = "faceki_outcome"
_MATCHES_KEY = "faceki_matches"
_UNREAD = object()


class ChargedCallState:
    """State of one task instance's charged call in Airflow's task state store.

    :param context: Context of the task.
    :param identifier: Identifier under which FACEKI keeps the result; ``None`` for a call that leaves no record.
    :param images: Fingerprint of the images, where the identifier does not change with the person.
    """

    def __init__(self, context: Context, identifier: str | None = None, images: str | None = None) -> None:
        self._ti = context["ti"]
        self._store = context.get("task_state_store")
        self._images = images
        # A hash, as a key has to fit into the path of a URL.
        suffix = "" if identifier is None else f"_{digest(identifier)}"
        self._pending_key, self._outcome_key = _PENDING_KEY + suffix, _OUTCOME_KEY + suffix
        #: The mark as this execution first read it: that of an earlier try, or none.
        self._mark: Any = _UNREAD

    @property
    def has_pending(self) -> bool:
        """Whether an earlier try is known to have begun a call that it never ended."""
        mark = self._pending()
        return mark is not None and not (isinstance(mark, Mapping) and mark.get("is_finished"))

    @property
    def is_duplicate(self) -> bool:
        """Whether another execution of this very try has begun the call: Airflow numbers each try anew."""
        mark = self._pending()
        return isinstance(mark, Mapping) and mark.get("try_number") == self._ti.try_number

    def check_images(self) -> None:
        """Refuse the outcome of other images as the outcome of these.

        :raises AirflowFailException: other images were sent, or may have been, under the same identifier.
        """
        if self._images is None:
            return
        for saved in (self._pending(), self._load(self._outcome_key)):
            images = saved.get("images") if isinstance(saved, Mapping) else None
            if images not in (None, self._images):
                raise AirflowFailException(
                    "this task instance has verified other images, perhaps of another person, under the identifier "
                    "that is derived from it: give a record_identifier of the person's own, or keep the URIs of the "
                    "images the same in each try; nothing was sent"
                )

    def settled_at(self, resubmit_after: float) -> float | None:
        """Return the Unix time from which a missing record means that nothing was sent; ``None`` if nothing was.

        :param resubmit_after: Seconds that FACEKI is given to finish, from the last byte on.
        """
        # An earlier try sent whatever it sent before this one began. No other bound exists: a process may be held
        # up between its mark and its last byte. `dag.test()` of Airflow 2 sets no start date.
        start: Any = self._ti.start_date
        started: float = start.timestamp() if start else time.time()
        if self._store is None:
            return started + resubmit_after if self._ti.try_number > 1 else None
        pending = self._pending()
        since = pending.get("at") if isinstance(pending, Mapping) else None
        if not isinstance(since, int | float):
            return None
        return max(since, started) + resubmit_after

    def acquire(self) -> bool:
        """Mark that the call may have been made; return whether this execution may make it.

        ``False`` means that another execution of this task instance is making it. Without a store there is no fence.
        """
        if self._store is None:
            return True
        began, before = time.monotonic(), self._pending()
        mine: dict[str, Any] = {
            "at": time.time(),
            "try_number": self._ti.try_number,
            "images": self._images,
            "nonce": uuid4().hex,
        }
        if (current := self._load(self._pending_key)) == before:
            self._store.set(self._pending_key, mine)
            time.sleep(max(MIN_FENCE_SECONDS, _FENCE_FACTOR * (time.monotonic() - began)))
            current = self._load(self._pending_key)
        self._mark = current
        return bool(current == mine)

    def send(self, hook: FacekiHook, endpoint: Endpoint[T]) -> T:
        """Make the call, after :meth:`acquire`.

        :param hook: Hook that makes it.
        :param endpoint: A charged call.
        :raises AirflowException: an image could not be sent as it was found, so FACEKI got no whole call.
        :raises FacekiError: as ``hook.call``.
        """
        try:
            return hook.call(endpoint)
        except api.ValidationError as error:
            self.clear()
            # Arguments were checked before: here a storage fails, or the image is still being written.
            raise AirflowException(str(error)) from None
        except api.FacekiError as error:
            if not error.is_ambiguous:
                self.clear()
            raise

    def clear(self) -> None:
        """Remove the mark: FACEKI cannot have acted on the call, or its result is safe."""
        self._mark = None
        if self._store is not None:
            self._store.delete(self._pending_key)

    def finish(self) -> None:
        """Mark the call as made and its result as safe, so that no other execution of this try makes it again."""
        if self._store is not None:
            self._store.set(self._pending_key, {"is_finished": True, "try_number": self._ti.try_number})

    def save(self, made: api.KycVerification) -> None:
        """Save the outcome: FACEKI may be set up to keep no record of it."""
        if self._store is not None:
            saved = {**made.to_dict(), "images": self._images}
            self._store.set(self._outcome_key, cast("Any", storable(saved)))

    def load(self) -> api.KycVerification | None:
        """Return the outcome that an earlier try saved, as far as it goes."""
        return api.KycVerification.from_dict(self._load(self._outcome_key))

    def save_matches(
        self, records: Iterable[api.VerificationRecord], location: str, size: int | None
    ) -> bool:
        """Save the records that a paid search found; return whether that is possible.

        :param records: Records of the persons found.
        :param location: URI of the image that was searched for.
        :param size: Its size in bytes, if that tells it from others.
        """
        if self._store is None:
            return False
        found: list[Any] = [
            storable(api.KycVerification(record, is_whole=True).to_dict()) for record in records
        ]
        self._store.set(_MATCHES_KEY, {"location": digest(location), "size": size, "found": found})
        self.finish()
        return True

    def load_matches(self, location: str, size: Callable[[], int | None]) -> list[api.KycVerification] | None:
        """Return what an earlier try found by the same image; ``None`` if no search was saved.

        :param location: URI of the image.
        :param size: Returns its size in bytes now, if that is known.
        """
        saved = self._load(_MATCHES_KEY)
        found = saved.get("found") if isinstance(saved, Mapping) else None
        if not isinstance(saved, Mapping) or not isinstance(found, list):
            return None
        if saved.get("location") != digest(location):
            return None
        known = saved.get("size")
        if known is not None and size() not in (None, known):
            return None
        return [made for made in map(api.KycVerification.from_dict, found) if made is not None]

    def clear_matches(self) -> None:
        """Remove saved matches, so that the next search is made anew."""
        if self._store is not None:
            self._store.delete(_MATCHES_KEY)

    def _pending(self) -> Any:
        """Return the mark as it was when this execution first read it."""
        if self._mark is _UNREAD:
            self._mark = self._load(self._pending_key)
        return self._mark

    def _load(self, key: str) -> Any:
        return self._store.get(key) if self._store is not None else None


def digest(*values: object) -> str:
    """Return a short hash that tells values apart and hides them: a URI may be named after a person."""
    text = chr(0).join(map(str, values))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
