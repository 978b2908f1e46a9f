# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What is done about one row by a thread of the crew, and what becomes of the row by that?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from airflow_provider_faceki import api
from airflow_provider_faceki.batch import outcomes
from airflow_provider_faceki.batch.manifest import Row
from airflow_provider_faceki.batch.outcomes import Failed, Finished, Later, Outcome, Recorded, Stopped
from airflow_provider_faceki.batch.patience import insist
from airflow_provider_faceki.batch.person import People

#: Seconds after which a verification is sent again whose pictures a storage failed to give to their end.
PAUSES_BEFORE_SENDING = (0.5, 2.0)
#: Seconds by which FACEKI's clock may differ from ours for a record to count as one of this batch.
CLOCK_MARGIN = 300.0
#: Rows in a row without their pictures, after which a storage counts as down and is asked only once for each.
LOST_BEFORE_HASTE = 50


@dataclass(slots=True)
class Work:
    """The work of one try; done by many threads at once.

    :param people: Asks FACEKI.
    :param started: Unix time at which this try began.
    :param resubmit: ``never`` if somebody who may have been sent is not sent again, whatever FACEKI shows.
    :param has_results: Whether the batch, over all tries, has any result.
    """

    people: People
    started: float
    resubmit: str
    has_results: Callable[[], bool]
    _lost_in_a_row: int = 0

    def still_open(self, row: Row) -> Later:
        """Leave somebody for later whom an earlier try may have sent: no later than this one began."""
        return Later(row, None, sent_by=self.started)

    def look(self, row: Row, first: float) -> Outcome:
        """Look for somebody whom an earlier try may have sent.

        :param first: Unix time since which.
        """
        try:
            found = self.people.find(row, first - CLOCK_MARGIN)
        except api.FacekiError as error:
            return _not_found_out(row, error, sent_by=self.started)
        if found is None or found.decision is None:
            return self.still_open(row)
        return _finished(row, found)

    def settle(self, row: Row, first: float) -> Outcome:
        """Look once more, now that FACEKI has had its time, and send whoever is not there.

        :param first: As for :meth:`look`.
        """
        try:
            found = self.people.find(row, first - CLOCK_MARGIN)
        except api.FacekiError as error:
            return _not_found_out(row, error, sent_by=None)
        return _finished(row, found) if found is not None else self._again(row, first)

    def _again(self, row: Row, first: float) -> Outcome:
        """Send somebody again of whom FACEKI has no record, if that means that nothing came of the first time."""
        try:
            why_not = self._why_not_again(row)
            if why_not is None:
                return self.verify(row, first, is_last=True)
        except api.FacekiError as error:
            return _not_found_out(row, error, sent_by=None)
        lost = api.OutcomeUnknownError(f"this may have been sent and billed, and {why_not}")
        return Failed(outcomes.of_error(row, lost))

    def _why_not_again(self, row: Row) -> str | None:
        # By the clocks it is older than this batch; where they differ by more than the margin, it need not be.
        if self.people.find(row, None) is not None:
            return "what FACEKI has under its identifier is of another verification, or of another clock"
        if self.resubmit == "never":
            return "FACEKI has no record of it"
        if not self.people.keeps_records(row):
            return "FACEKI has no record of it, as its workflow keeps none"
        return None

    def verify(self, row: Row, first: float, *, is_last: bool) -> Outcome:
        """Send somebody.

        :param first: Unix time since which somebody may have been sent.
        :param is_last: Whether the row is not put off once more where its pictures cannot be read.
        """
        try:
            endpoint = self._endpoint(row, first - CLOCK_MARGIN)
        except api.FacekiError as error:
            return _outcome(row, error, sent_by=None)
        except OSError as error:
            # The row's own fault only if nothing is wrong with the storage as a whole.
            is_final = is_last and self.has_results()
            return Failed(outcomes.of_picture(row, error)) if is_final else Later(row, error, sent_by=None)
        try:
            return _finished(row, self._sent(endpoint))
        except api.ValidationError as error:
            # The pictures were good a moment ago: a storage fails, or somebody writes them. Once more, then no more.
            return Failed(outcomes.of_error(row, error)) if is_last else Later(row, error, sent_by=None)
        except api.FacekiError as error:
            return _outcome(row, error, sent_by=time.time() if error.is_ambiguous else None)

    def record(self, line: Mapping[str, object]) -> Outcome:
        """Fetch the whole record of somebody who has a result.

        :param line: The result.
        """
        identifier, request_id = str(line.get("record_identifier")), line.get("request_id")
        try:
            record = self.people.record(identifier, request_id if isinstance(request_id, str) else None)
        except api.FacekiError as error:
            return Later(row_of(line), error, sent_by=self.started)
        document = dict(record.document) if record is not None else None
        return Recorded({"record_identifier": identifier, "request_id": request_id, "record": document})

    def _endpoint(self, row: Row, not_before: float) -> api.PerformKycVerification:
        make = partial(self.people.endpoint, row, not_before)
        try:
            # Of a storage that is down, not every picture is asked for again and again.
            endpoint = insist(make) if self._lost_in_a_row < LOST_BEFORE_HASTE else make()
        except OSError:
            self._lost_in_a_row += 1
            raise
        self._lost_in_a_row = 0
        return endpoint

    def _sent(self, endpoint: api.PerformKycVerification) -> api.KycVerification:
        for pause in PAUSES_BEFORE_SENDING:
            try:
                return self.people.verify(endpoint)
            except api.ValidationError:
                # A picture broke off on its way, so FACEKI has nothing to act on.
                time.sleep(pause)
        return self.people.verify(endpoint)


def row_of(line: Mapping[str, object]) -> Row:
    """Return the row of a result, as far as that tells it."""
    return Row(0, {"record_identifier": str(line.get("record_identifier"))})


def _finished(row: Row, made: api.KycVerification) -> Finished:
    # FACEKI's echo of the identifier need not be what was sent, and a link is for its person only.
    told: dict[str, object] = {"row": row.number, **made.summary()}
    del told["link"]
    return Finished({**told, "record_identifier": row.values["record_identifier"]})


def _outcome(row: Row, error: api.FacekiError, sent_by: float | None) -> Outcome:
    if outcomes.is_for_all(error):
        return Stopped(row, error, sent_by)
    if outcomes.is_passing(error):
        return Later(row, error, sent_by)
    return Failed(outcomes.of_error(row, error), outcomes.refusal(row, error, sent_by))


def _not_found_out(row: Row, error: api.FacekiError, sent_by: float | None) -> Outcome:
    # However the search failed, it is no fault of somebody who may have been verified and billed.
    return Stopped(row, error, sent_by) if outcomes.is_for_all(error) else Later(row, error, sent_by)
