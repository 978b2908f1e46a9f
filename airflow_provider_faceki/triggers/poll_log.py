# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Log the polls of a task that waits for FACEKI.

About one short line is logged per minute. Two longer lines are logged at most once: a warning with a hint if no record
appears, and the names of the record's fields if a record has no decision.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_faceki import api
from airflow_provider_faceki.api.values import format_duration, loggable

#: Minimum seconds between two log lines about the polls of one waiting task.
LOG_INTERVAL_SECONDS = 60.0
#: If FACEKI has no record after this number of seconds of waiting, a hint is logged. The hint says which parameter of
#: the task is possibly wrong.
NO_RECORD_WARNING_SECONDS = 900.0

_HINTS = {
    "link": "the person has not finished the page of this link; otherwise check that link= is the output of "
    "FacekiGenerateKycLinkOperator, and neither a request id nor a record identifier",
    "request_id": "check that request_id= is FACEKI's id of a verification; pass a link as link=, and your own id "
    "as record_identifier=",
    "record_identifier": "check that the link or the verification was made with this record_identifier; pass a link as "
    "link=, and FACEKI's id of a verification as request_id=",
}


def wait_subject(
    *, link: object = None, request_id: object = None, record_identifier: object = None
) -> tuple[str, str]:
    """Return the name of the parameter that is set, and a text for log lines that describes its value.

    Exactly one of ``link``, ``request_id`` and ``record_identifier`` must be set. It selects the records for which a
    task waits. The text never contains a link, because a link must stay secret.
    """
    if link is not None:
        return "link", "this link"
    if request_id is not None:
        return "request_id", f"request {loggable(request_id)}"
    return "record_identifier", f"record identifier {loggable(record_identifier)}"


class PollLog:
    """Log of the polls of one waiting task.

    :param log: Logger of the task or trigger.
    :param parameter: Name of the parameter that selects the records: ``link``, ``request_id`` or ``record_identifier``.
    :param subject: Text for log lines that describes the selected records, such as ``request 1234``.
    :param started_at: Unix time at which the task began to wait. Default: the current time.
    """

    def __init__(self, log: Any, parameter: str, subject: str, started_at: float | None = None) -> None:
        self._log = log
        self._parameter = parameter
        self._subject = subject
        self._started_at = time.time() if started_at is None else started_at
        self._polls = 0
        self._logged_at = 0.0
        self._has_warned = False
        self._has_named_keys = False

    def polled(
        self,
        records: Sequence[api.VerificationRecord],
        next_in: float | None = None,
        may_warn: Callable[[], bool] = lambda: True,
    ) -> None:
        """Count a poll after which the task continues to wait.

        A line about the poll is logged if the last line is at least :data:`LOG_INTERVAL_SECONDS` old. If FACEKI still
        has no record after :data:`NO_RECORD_WARNING_SECONDS`, a warning is logged once.

        :param records: Records that the poll returned.
        :param next_in: Seconds until the next poll. It is ``None`` if the time is not known.
        :param may_warn: Function that is called before the warning that there is no record. If it returns ``False``,
            the warning is not logged, because another process has already logged it during this wait.
        """
        self._polls += 1
        now = time.time()
        waited = now - self._started_at
        newest = api.latest(records)
        if newest is not None and newest.decision is None and not self._has_named_keys:
            # FACEKI possibly returned the decision in a field that this provider does not know. Therefore the names of
            # the record's fields are logged once, even if the last log line is less than a minute old.
            self._has_named_keys, self._logged_at = True, now
            self._log.info(
                "FACEKI has a record for %s without a decision. It contains %s",
                self._subject,
                newest.describe(),
            )
        elif not records and waited >= NO_RECORD_WARNING_SECONDS and not self._has_warned and may_warn():
            self._has_warned, self._logged_at = True, now
            self._log.warning(
                "FACEKI still has no record for %s after %s: %s",
                self._subject,
                format_duration(waited),
                _HINTS[self._parameter],
            )
        elif now - self._logged_at >= LOG_INTERVAL_SECONDS:
            self._logged_at = now
            then = "" if next_in is None else f"; next poll within {format_duration(next_in)}"
            self._log.info("Poll %d: FACEKI has %s%s", self._polls, self._state(newest), then)

    def _state(self, newest: api.VerificationRecord | None) -> str:
        if newest is None:
            return f"no record for {self._subject} yet"
        if newest.decision is None:
            return f"a record for {self._subject}, and no decision yet"
        return f"a record for {self._subject}, with decision {newest.decision}"
