# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Store the state of a charged call across the tries of a task instance, so that the call is not charged twice.

The state consists of an intent and the result of the call. The intent is written before the call is sent, as in a
write-ahead log. A stored intent means that the call was possibly sent. Airflow clears XCom before each try, so XCom
cannot store this state. In Airflow 3.3 and later, Airflow's task state store contains the state. Before Airflow 3.3, a
try number above 1 is the only sign of an earlier call.

The intent also prevents two executions of one task instance from sending the call at the same time (a fence). The store
has no compare-and-set, so the fence uses Fischer's algorithm for mutual exclusion. An execution writes an intent with a
random value (nonce) and waits longer than a write needs. It sends the call only if its nonce is still stored.

An execution works in this order:

1. It reads the stored intent.
2. It looks for the record at FACEKI, if the call leaves a record.
3. It reads the stored intent again.
4. It writes its own intent.

If the intents of steps 1 and 3 differ, another execution has possibly sent the call after step 2. In this case the
execution does not send the call. When a call has finished, a mark replaces its intent in the store. Therefore the
comparison detects a call of another execution even if this call has already finished.

While a verification is sent, the execution renews the time in its intent, and checks that its nonce is still stored.
Other executions wait for the record of the verification, and their waiting time starts at the time in the intent.
Because the time in the intent is renewed, their waiting time does not end during the upload.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import uuid4

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_faceki import api
from airflow_provider_faceki.api.lazy import lazy_property
from airflow_provider_faceki.api.values import storable

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_faceki.api.protocol.session import Endpoint
    from airflow_provider_faceki.hooks.faceki import FacekiHook

T = TypeVar("T")

#: Minimum seconds that an execution waits after it has written its intent (a stored note that the call is about to be
#: sent). After the wait, it reads the intent again. It sends the call only if no other execution has replaced the
#: intent. The wait must be longer than another execution needs to read and to write the intent, which are two requests
#: to Airflow's API server.
MIN_FENCE_SECONDS = 1.0
#: An execution reads the stored intent (a note that the call is about to be sent), and then writes its own intent. If
#: both together need more than this number of seconds, the execution does not send the call.
#:
#: Without this limit, two executions A and B could both send the call:
#:
#: 1. A reads the stored intent.
#: 2. B writes its intent, waits :data:`MIN_FENCE_SECONDS`, finds its own intent, and sends the call.
#: 3. A writes its intent, waits, finds its own intent, and sends the call too.
_MAX_WRITE_SECONDS = MIN_FENCE_SECONDS
#: After an execution has written its intent (a stored note that the call is about to be sent), it waits, and then reads
#: the intent again. So it notices whether another execution has replaced the intent. If the task state store is slow,
#: the wait is longer: at least this factor times the seconds that the read and the write before the wait needed.
_FENCE_FACTOR = 3.0
#: Maximum seconds between two reads of an image while a verification is sent. If more time passes, the process was
#: suspended, and it stops sending.
#:
#: The reason is the next try, which Airflow starts after 300 seconds without a heartbeat (Airflow's default). The next
#: try first looks for the record. If FACEKI has no record within ``resubmit_after``, the next try sends the
#: verification. If the suspended try then continued to send, the person would be verified and billed twice.
#:
#: The hook pauses before it repeats a failed request, and reads no image during this pause. Therefore the longest
#: possible pause (``max_wait`` of the Connection, default 30 seconds) is added to this maximum.
MAX_SUSPENSION_SECONDS = 180.0
#: Interval in seconds at which an execution renews the time in its intent (a stored note that the call is about to be
#: sent), while it sends a verification.
_RENEW_SECONDS = 10.0
#: Clock that also counts the time in which the machine is suspended, if the system has such a clock.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_PENDING_KEY = "faceki_submitting_since"
_OUTCOME_KEY = "faceki_outcome"
_MATCHES_KEY = "faceki_matches"


class FenceError(api.ValidationError):
    """Error: another execution of the task possibly sends the same verification, so this execution stops sending.

    There are three possible causes. This process was suspended, another execution has stored its intent (a note that
    the call is about to be sent), or Airflow's task state store failed or was slow.
    """


class ChargedCallState:
    """State of one task instance's charged call in Airflow's task state store.

    Airflow before 3.3 has no such store. Without the store, the methods save nothing and find nothing.

    :param identifier: Identifier under which FACEKI stores the result. ``None`` for a call that leaves no record.
    :param images: Fingerprint of the images. It shows whether other images were sent under the same identifier.
    """

    def __init__(self, context: Context, identifier: str | None = None, images: str | None = None) -> None:
        self._ti = context["ti"]
        self._store = context.get("task_state_store")
        self._images = images
        # Airflow puts the key of a stored value into a URL path, and an identifier can contain characters such as `/`.
        # Therefore the key contains a hash of the identifier.
        suffix = "" if identifier is None else f"_{digest(identifier)}"
        self._pending_key, self._outcome_key = _PENDING_KEY + suffix, _OUTCOME_KEY + suffix
        #: The intent (a stored note that the call is about to be sent) that this execution has written.
        self._mine: dict[str, Any] | None = None
        #: Values for :meth:`check_fence`: the time of its last call, the time at which the intent was last written, and
        #: the maximum number of seconds between two calls.
        self._checked_at = self._renewed_at = 0.0
        self._max_pause = MAX_SUSPENSION_SECONDS

    @lazy_property
    def _intent(self) -> Any:
        """The stored note about the call, as this object knows it. ``None`` if there is no note.

        The note is called intent. Before the call is sent, it says that the call is about to be sent. After the call,
        it says that the call has ended. The value is the note that this object has last read or written, or ``None``
        after this object has removed the note. A later change by another execution does not change the value.
        """
        return self._load(self._pending_key)

    @property
    def intent_at(self) -> float | None:
        """Unix time in the intent, the stored note that the call is about to be sent. ``None`` if there is no time.

        While an execution sends a verification, it renews this time.
        """
        at = self._intent.get("at") if isinstance(self._intent, Mapping) else None
        return at if isinstance(at, int | float) else None

    @property
    def has_pending(self) -> bool:
        """Whether an earlier try or another execution has possibly sent a call whose end is not stored."""
        intent = self._intent
        return intent is not None and not (isinstance(intent, Mapping) and intent.get("is_finished"))

    @property
    def was_made_before_retry(self) -> bool:
        """Whether an earlier try has ended the charged call, and Airflow has then retried the task automatically.

        A try ends the call with :meth:`finish` or :meth:`give_up`. If a person has cleared the task after the earlier
        try, this try is not an automatic retry, and the result is ``False``.
        """
        intent = self._intent
        if not isinstance(intent, Mapping) or not intent.get("is_finished"):
            return False
        return not self.is_duplicate and intent.get("max_tries") == self._max_tries

    @property
    def is_given_up(self) -> bool:
        """Whether an execution has given the call up; see :meth:`give_up`."""
        intent = self._intent
        return isinstance(intent, Mapping) and bool(intent.get("is_given_up"))

    @property
    def _max_tries(self) -> int | None:
        # Airflow does not change ``max_tries`` when it retries a task. When a person clears a task, Airflow sets
        # ``max_tries`` to the number of the last try plus the task's retries. So if the current ``max_tries`` differs
        # from the stored ``max_tries`` of an earlier try, the task was cleared after this earlier try.
        return getattr(self._ti, "max_tries", None)

    @property
    def is_duplicate(self) -> bool:
        """Whether another execution has started the call with the same try number.

        Airflow increases the try number for each try. Therefore the same number means that Airflow executes one try
        twice.
        """
        intent = self._intent
        return isinstance(intent, Mapping) and intent.get("try_number") == self._ti.try_number

    def check_images(self) -> None:
        """Check that no earlier execution has sent, or has possibly sent, other images under the same identifier.

        :raises AirflowFailException: if an earlier execution has stored an intent (a note that the call is about to be
            sent) or an outcome for other images.
        """
        if self._images is None:
            return
        for saved in (self._intent, self._load(self._outcome_key)):
            images = saved.get("images") if isinstance(saved, Mapping) else None
            if images not in (None, self._images):
                raise AirflowFailException(
                    "this task instance has verified other images, perhaps of another person, under "
                    "the identifier that is derived from it: set a record_identifier for each person, "
                    "or keep the URIs of the images the same in each try; nothing was sent"
                )

    def resubmit_at(self, resubmit_after: float, started_at: float) -> float | None:
        """Return the Unix time from which a missing record proves that no earlier try has sent the call.

        Before this time, FACEKI possibly still works on a call that an earlier try sent. If FACEKI has no record at
        this time or later, the caller can send the call, and the call is not charged twice.

        The result is ``None`` if the caller does not need to wait for the record of an earlier call:

        - With a task state store (Airflow 3.3 and later): no note is stored that the call is about to be sent, or
          :meth:`finish` or :meth:`give_up` has replaced this note.
        - Without a task state store: this try is the first try.

        :param resubmit_after: Maximum seconds that FACEKI needs to finish a call after the last byte is sent.
        :param started_at: Unix time at which this try started.
        """
        # FACEKI finishes a call at most ``resubmit_after`` seconds after the last byte of the call is sent. Nobody
        # knows when the last byte was sent, so the seconds are counted from the latest possible time:
        #
        # - Usually the start of this try. An earlier try sends nothing after this start; see MAX_SUSPENSION_SECONDS.
        #   The time in the intent (the note that the call is about to be sent) can be too early: if the earlier try was
        #   suspended after it wrote the intent, it possibly sent the last byte much later.
        # - If the intent is newer than the start of this try, another execution of the same try has written it. In this
        #   case, the seconds are counted from the time in the intent.
        if self._store is None:
            return started_at + resubmit_after if self._ti.try_number > 1 else None
        since = self.intent_at
        return None if since is None else max(since, started_at) + resubmit_after

    def acquire(self) -> bool:
        """Write an intent before the call is sent, and return whether this execution is allowed to send the call.

        The intent is a stored note that the call is about to be sent. ``False`` means that another execution of this
        task instance sends or has sent the call. The result is also ``False`` if Airflow's task state store responds so
        slowly that another execution possibly sends the call. Without a task state store (Airflow before 3.3), the
        result is always ``True``.
        """
        self._checked_at = self._renewed_at = time.clock_gettime(_CLOCK)
        if self._store is None:
            return True
        before = self._intent
        mine: dict[str, Any] = {
            "at": time.time(),
            "try_number": self._ti.try_number,
            "images": self._images,
            "nonce": uuid4().hex,
        }
        began = time.monotonic()
        if (current := self._load(self._pending_key)) != before:
            self._intent = current
            return False
        self._store.set(self._pending_key, mine)
        self._mine = mine
        took = time.monotonic() - began
        time.sleep(max(MIN_FENCE_SECONDS, _FENCE_FACTOR * took))
        self._intent = self._load(self._pending_key)
        return bool(self._intent == mine) and took <= _MAX_WRITE_SECONDS

    @property
    def is_store_slow(self) -> bool:
        """Whether :meth:`acquire` returned ``False`` only because the task state store responded slowly."""
        return self._mine is not None and bool(self._intent == self._mine)

    def send(self, hook: FacekiHook, endpoint: Endpoint[T]) -> T:
        """Send the call. :meth:`acquire` must have returned ``True`` before.

        Before the call, :meth:`acquire` has stored a note that the call is about to be sent. If the call fails and
        FACEKI has certainly not processed it, the note is removed, so that the next try sends the call. After a
        :class:`FenceError`, the note is not removed, because another execution has possibly replaced the note.

        :raises AirflowException: in three cases, in which FACEKI has not received the complete call:

            - An image could not be read.
            - An image has changed.
            - Another execution possibly sends the call. A :class:`FenceError` reports this case, and the method raises
              an ``AirflowException`` with the same text in its place.
        :raises FacekiError: if the call fails; see ``hook.call``.
        """
        self._max_pause = MAX_SUSPENSION_SECONDS + hook.settings.max_wait
        try:
            return hook.call(endpoint)
        except FenceError as error:
            # The intent (the stored note that the call is about to be sent) is not removed. Another execution has
            # possibly started, and can write its own intent at any moment. The store cannot compare and delete in one
            # step, so ``clear`` could delete the intent of the other execution.
            raise AirflowException(str(error)) from None
        except api.ValidationError as error:
            self.clear()
            # The arguments of the call were checked earlier. Therefore a ``ValidationError`` during the call means
            # that an image could not be read from its storage, or that the image is still being written. In both cases
            # the next try can succeed.
            raise AirflowException(str(error)) from None
        except api.FacekiError as error:
            if not error.is_ambiguous:
                self.clear()
            raise

    def check_fence(self) -> None:
        """Check that no other execution sends the verification. Call this method often while the verification is sent.

        The check is necessary, because Airflow starts the next try if a worker is suspended. When the worker resumes,
        two tries exist. Without the check, both would send the verification.

        Every ten seconds, the method also renews the time in the intent (the stored note that the call is about to be
        sent).

        :raises FenceError: in three cases:

            - This process was suspended so long that the next try has possibly sent the verification.
            - The stored intent belongs to another execution.
            - The intent cannot be renewed in time.
        """
        now = time.clock_gettime(_CLOCK)
        if now - self._checked_at > self._max_pause:
            raise FenceError(
                f"this task was suspended for {now - self._checked_at:.0f} s while it sent the verification, so it "
                "stops sending: the next try has possibly begun, and it looks for the record first"
            )
        self._checked_at = now
        if self._mine is not None and now - self._renewed_at >= _RENEW_SECONDS:
            self._mine = self._intent = self._renew(self._mine)
            self._renewed_at = now

    def _renew(self, mine: dict[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        try:
            is_mine = self._load(self._pending_key) == mine
            if is_mine and self._store is not None:
                mine = {**mine, "at": time.time()}
                self._store.set(self._pending_key, mine)
        except Exception as error:  # noqa: BLE001 - Airflow's client raises errors of many kinds
            raise FenceError(
                f"Airflow's task state store failed: {type(error).__name__}; the verification was not sent completely"
            ) from None
        if not is_mine:
            raise FenceError(
                "another execution of this task instance sends or has sent this verification, so this "
                "execution stops sending it"
            )
        if time.monotonic() - began > _MAX_WRITE_SECONDS:
            raise FenceError(
                "Airflow's task state store is slow, so another execution is possibly sending this verification, and "
                "this execution stops sending"
            )
        return mine

    def clear(self) -> None:
        """Remove the stored note that the call is about to be sent, so that the next try is allowed to send the call.

        Call this method if FACEKI has not processed the call, or if a second call does no harm. A note of another
        execution is not removed. After a successful call, use :meth:`finish`. Before the task fails without a further
        try, use :meth:`give_up`.
        """
        if self._store is not None and self._mine is not None:
            if self._load(self._pending_key) == self._mine:
                self._store.delete(self._pending_key)
            self._intent = self._mine = None

    def finish(self) -> None:
        """Mark the call as finished and its result as saved, so that the call is not sent again.

        - If Airflow executes the same try again, the new execution finds the mark and does not send the call.
        - If Airflow retries the task, the retry does not send the call; see :attr:`was_made_before_retry`.
        - If a person clears the task, the task sends a new call.
        """
        self._end(is_given_up=False)

    def give_up(self) -> None:
        """Mark the call as given up. Call this method before the task fails without a further try.

        The call was possibly sent. A person reads the error and decides whether to clear the task. If Airflow does not
        receive the failure, Airflow possibly retries the task. This retry finds the mark and does not send the call.
        """
        self._end(is_given_up=True)

    def _end(self, *, is_given_up: bool) -> None:
        if self._store is not None:
            self._intent = {
                "is_finished": True,
                "is_given_up": is_given_up,
                "try_number": self._ti.try_number,
                "max_tries": self._max_tries,
            }
            self._store.set(self._pending_key, self._intent)

    def save(self, made: api.KycVerification) -> None:
        """Save the outcome of the call for later tries, because FACEKI possibly stores no record of the call."""
        if self._store is not None:
            saved = {**made.to_dict(), "images": self._images}
            self._store.set(self._outcome_key, cast("Any", storable(saved)))

    def load(self) -> api.KycVerification | None:
        """Return the outcome that an earlier try saved, or ``None``.

        The full record is never saved. The outcome contains only ids, the decision and FACEKI's codes.
        """
        return api.KycVerification.from_dict(self._load(self._outcome_key))

    def save_matches(
        self, records: Iterable[api.VerificationRecord], location: str, size: int | None
    ) -> bool:
        """Save the records that a charged face search found, and mark the call as finished.

        A later try then does not search again. If Airflow has no task state store, save nothing and return ``False``.
        The caller must call :meth:`finish_matches` when it has used the records.

        :param records: Records of the persons that the search found.
        :param location: URI of the image with the face.
        :param size: Size of the sent image in bytes. ``None`` if the image was resized before it was sent, because
            its size then depends on the version of Pillow.
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
        """Return the records that an earlier try found with the same image, or ``None`` if no such records are saved.

        If a person clears the task after :meth:`finish_matches`, the saved records are no longer valid, and the result
        is ``None``.

        :param location: URI of the image.
        :param size: Function that returns the current size of the image in bytes, or ``None`` if the size is unknown.
            If the current size or the saved size is unknown, only the URIs are compared.
        """
        saved = self._load(_MATCHES_KEY)
        found = saved.get("found") if isinstance(saved, Mapping) else None
        if not isinstance(saved, Mapping) or not isinstance(found, list):
            return None
        if saved.get("location") != digest(location):
            return None
        if saved.get("is_used") and saved.get("max_tries") != self._max_tries:
            return None
        known = saved.get("size")
        if known is not None and size() not in (None, known):
            return None
        return [made for made in map(api.KycVerification.from_dict, found) if made is not None]

    def finish_matches(self) -> None:
        """Note that the task has used the saved records of a face search.

        After that, an automatic retry still gets the records from :meth:`load_matches`. If a person clears the task,
        :meth:`load_matches` returns ``None``, so the task searches again.
        """
        saved: Any = self._load(_MATCHES_KEY)
        if self._store is not None and isinstance(saved, Mapping):
            self._store.set(_MATCHES_KEY, {**saved, "is_used": True, "max_tries": self._max_tries})

    def _load(self, key: str) -> Any:
        return self._store.get(key) if self._store is not None else None


def digest(*values: object) -> str:
    """Return a short hash of values. The hash does not show the values, which possibly contain the name of a person."""
    text = chr(0).join(map(str, values))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
