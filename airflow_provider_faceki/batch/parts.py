# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Files that are written once and never changed, so that what is kept in them can be kept on any storage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial

from airflow_provider_faceki import storage
from airflow_provider_faceki.batch.patience import insist


class Parts:
    """The NDJSON parts of one folder.

    :param folder: URI of the folder.
    :param stem: What this writer's parts are called and nobody else's; parts of a later stem sort later.
    :param conn_id: Connection for that storage.
    """

    def __init__(self, folder: str, stem: str, conn_id: str | None = None) -> None:
        self.folder = folder
        self._stem = stem
        self._conn_id = conn_id
        self._number = 0
        self._lines: list[bytes] = []
        #: Names of parts that are believed no more.
        self.void: set[str] = set()
        self._cut: tuple[str, list[bytes]] | None = None

    def add(self, line: Mapping[str, object]) -> None:
        """Have ``line`` written with the next part."""
        self._lines.append(json.dumps(line, allow_nan=False).encode() + b"\n")

    @property
    def waiting(self) -> int:
        """How many lines are not written yet."""
        return len(self._lines) + (len(self._cut[1]) if self._cut else 0)

    def write(self) -> None:
        """Write what is waiting. What cannot be written goes on waiting.

        A store may fail after it has written, so a part that failed is written again just as it was: the same
        lines under the same name.

        :raises OSError: the store failed; the next call may succeed.
        :raises ValidationError: nothing can be written there.
        """
        while self._cut or self._lines:
            if self._cut is None:
                name = f"{self.folder}/part-{self._stem}-{self._number:06d}.ndjson"
                self._number += 1
                # One step for whoever interrupts: Airflow may raise between any two.
                self._cut, self._lines = (name, self._lines), []
            storage.write_bytes(self._cut[0], b"".join(self._cut[1]), self._conn_id)
            self._cut = None

    def lines(self) -> Iterator[Mapping[str, object]]:
        """Yield the lines of all parts that are written, whoever wrote them, and not void."""
        for uri in self._uris():
            if _name(uri) in self.void:
                continue
            for line in insist(partial(self._read, uri)):
                try:
                    document = json.loads(line)
                except ValueError:
                    # Cut by a store that does not keep its word. What it told is found out again.
                    continue
                if isinstance(document, dict):
                    yield document

    def names(self) -> list[str]:
        """Return what all parts are called that are written, whoever wrote them."""
        return [_name(uri) for uri in self._uris()]

    def _uris(self) -> list[str]:
        return insist(lambda: storage.list_files(self.folder, self._conn_id))

    def _read(self, uri: str) -> list[bytes]:
        with storage.open_binary(uri, self._conn_id) as file:
            return file.readlines()

    def delete(self) -> None:
        """Delete all parts, whoever wrote them."""
        for uri in self._uris():
            insist(partial(storage.delete, uri, self._conn_id))


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]
