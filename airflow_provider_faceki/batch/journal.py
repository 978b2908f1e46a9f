# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What a batch has done so far: parts that are written once and never changed, so that it works on any storage.

Under ``output_path``::

    results/part-….ndjson            one line a verified person: a summary
    errors/part-….ndjson             one line a row that cannot be verified: number, identifier, code, what to do
    records/part-….ndjson            full records, only if asked for
    _journal/begun/part-….ndjson     identifiers about to be sent, written before the first of them is
    _journal/unsent/part-….ndjson    those of them that surely were not sent after all
    _journal/void/part-….ndjson      parts that are believed no more (fetch.py: they have become tables)
    _journal/tries/try-….json        who has worked on this (turn.py)

A row that stands in ``results`` or ``errors`` is finished. One that was begun more often than taken back may have
been sent and billed, so FACEKI is asked about it first. All others have never been sent.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.batch.known import Known, row_key
from airflow_provider_faceki.batch.parts import Parts
from airflow_provider_faceki.batch.patience import insist, looking_up

log = logging.getLogger(__name__)

#: Code of the error of a row whose identifier an earlier row has.
DUPLICATE = "DUPLICATE_IDENTIFIER"
#: What a record without a decision counts as.
UNDECIDED = "UNDECIDED"


class Journal:
    """The parts of a batch.

    :param root: URI of its folder.
    :param conn_id: Connection for that storage.
    :param is_usable: Whether a line that an earlier try has left is believed. Default: each is.
    """

    def __init__(
        self,
        root: str,
        conn_id: str | None = None,
        is_usable: Callable[[Mapping[str, object]], bool] = lambda line: True,
    ) -> None:
        self.root = root.rstrip("/")
        self._is_usable = is_usable
        # Sorts by time, and no two tries on whatever workers share one.
        stem = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.urandom(4).hex()}"

        def parts(folder: str) -> Parts:
            return Parts(f"{self.root}/{folder}", stem, conn_id)

        self.results, self.errors, self.records = parts("results"), parts("errors"), parts("records")
        self._begun, self._unsent = parts("_journal/begun"), parts("_journal/unsent")
        self._void = parts("_journal/void")
        self.known = Known()
        #: Finished rows by decision, and by the code of their error, over all tries.
        self.decisions = Counter[str]()
        self.failures = Counter[str]()
        #: Finished rows over all tries.
        self.done = 0

    @property
    def tries(self) -> str:
        """URI of the folder that tells who has worked on this."""
        return f"{self.root}/_journal/tries"

    def load(self, look: Callable[[], object] = lambda: None) -> None:
        """Read what earlier tries have left.

        :param look: Called now and then.
        """
        for line in self._void.lines():
            void = line.get("void")
            for parts in (self.results, self.errors):
                parts.void.update(map(str, void if isinstance(void, list) else ()))
        for line in looking_up(self._begun.lines(), look):
            at = line.get("at")
            self.known.begun(_key(line), float(at) if isinstance(at, int | float) else 0.0)
        for line in looking_up(self._unsent.lines(), look):
            self.known.taken_back(_key(line))
        for parts in (self.results, self.errors):
            for line in looking_up(parts.lines(), look):
                key = _key(line)
                if self._is_usable(line) and not self.known.entry(key).is_done:
                    self._count(parts, line)
                    self.known.done(key)

    def load_records(self, look: Callable[[], object]) -> None:
        """Read whose records earlier tries have kept; ``look`` is called now and then."""
        for line in looking_up(self.records.lines(), look):
            self.known.recorded(_key(line))

    def delete(self) -> None:
        """Delete what is finished: it has gone elsewhere. What cannot be deleted is believed by nobody.

        :raises OSError: neither can it be deleted now, nor made void; the next try will.
        """
        self._void.add({"void": self.results.names() + self.errors.names()})
        insist(self._void.write)
        try:
            for parts in (self.results, self.errors, self._void):
                parts.delete()
        except (OSError, ValidationError) as error:
            log.warning("The output's _journal could not be deleted: %s", type(error).__name__)

    def begin(self, identifiers: Iterable[str]) -> None:
        """Have it written, with :meth:`write_begun`, who is about to be sent."""
        now = time.time()
        for identifier in identifiers:
            self._begun.add({"record_identifier": identifier, "at": now})
            self.known.begun(row_key(0, identifier), now)

    def write_begun(self) -> None:
        """Write it. Nobody may be sent before this has returned.

        :raises OSError: the store failed; the next call may succeed.
        """
        self._begun.write()

    def take_back(self, identifier: str) -> None:
        """Note that somebody who was begun was surely not sent."""
        self._unsent.add({"record_identifier": identifier})
        self.known.taken_back(row_key(0, identifier))

    def finish(self, parts: Parts, line: Mapping[str, object]) -> None:
        """Note a finished row; it is written with the next :meth:`flush`.

        :param parts: ``results`` or ``errors``.
        :param line: What became of it.
        """
        parts.add(line)
        self.known.done(_key(line))
        self._count(parts, line)

    @property
    def waiting(self) -> int:
        """How many lines are not written yet."""
        return sum(parts.waiting for parts in self._flushed)

    def flush(self) -> None:
        """Write what is waiting; what cannot be written goes on waiting.

        :raises OSError: the store failed; the next call may succeed.
        """
        for parts in self._flushed:
            parts.write()

    @property
    def _flushed(self) -> tuple[Parts, ...]:
        return (self.results, self.errors, self.records, self._unsent)

    def _count(self, parts: Parts, line: Mapping[str, object]) -> None:
        self.done += 1
        if parts is self.errors:
            self.failures[str(line.get("code"))] += 1
            return
        # A request that fetches has as many decisions as it finds records.
        found = line.get("decisions", [line.get("decision")])
        self.decisions.update(map(counted, found if isinstance(found, list) else ()))


def counted(decision: object) -> str:
    """Return the word under which a decision is counted."""
    return UNDECIDED if decision is None else str(decision)


def _key(line: Mapping[str, object]) -> str:
    key, identifier = line.get("key"), line.get("record_identifier")
    if isinstance(key, str):
        return key
    has_own = isinstance(identifier, str) and line.get("code") != DUPLICATE
    return row_key(0, str(identifier)) if has_own else f"row {line.get('row')}"
