# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Whose turn is it? Two tries that send at the same time would bill twice.

It happens: Airflow loses sight of a worker that lives on, and starts the next try elsewhere. So each try puts a
marker of its own into a folder, numbered higher than all that it finds there, before it reads what has been begun;
and it looks for a higher one each time after it has written what it begins, before it sends that. So of two tries,
the newer one knows what the older one has begun, or the older one sees the newer one's marker and stops. That needs
a store that shows a file as soon as it is written, as the large ones do, and neither locks nor clocks.
"""

from __future__ import annotations

import json
import os
from functools import partial

from airflow_provider_faceki import storage
from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.batch.patience import insist


class Turn:
    """One try's claim on a batch.

    :param folder: URI of the folder with the markers.
    :param batch_id: Which batch this is; another one has no business there.
    :param conn_id: Connection for that storage.
    """

    def __init__(self, folder: str, batch_id: str, conn_id: str | None = None) -> None:
        self._folder = folder
        self._batch_id = batch_id
        self._conn_id = conn_id
        self._name = ""

    def take(self) -> None:
        """Begin, and end the turn of whoever had it.

        :raises ValidationError: the folder is another batch's, or somebody came later still.
        """
        found = insist(self._names)
        owner = next(filter(None, (insist(partial(self._owner, name)) for name in reversed(found))), None)
        if owner is not None and owner != self._batch_id:
            raise ValidationError(
                f"output_path holds another batch, {owner!r}; this one is {self._batch_id!r}. Give each batch an "
                "output_path of its own (in a template: run_id, map_index), or both the same batch_id"
            )
        numbers = [int(name[4:10]) for name in found if name[4:10].isdigit()]
        self._name = f"try-{max(numbers, default=0) + 1:06d}-{os.urandom(4).hex()}.json"
        marker = f"{self._folder}/{self._name}"
        insist(lambda: storage.write_json(marker, {"batch": self._batch_id}, self._conn_id))
        try:
            insist(self.check)
        except ValidationError:
            # Of two that begin at the same moment, whoever loses leaves nothing behind that would keep the other out.
            insist(lambda: storage.delete(marker, self._conn_id))
            raise

    def check(self) -> None:
        """Go on only if nobody came later.

        :raises ValidationError: somebody did.
        :raises OSError: the store failed.
        """
        if self._names()[-1:] != [self._name]:
            raise ValidationError("another try has begun to work on this output_path, so this one stops")

    def _names(self) -> list[str]:
        found = storage.list_files(self._folder, self._conn_id)
        return [name for uri in found if (name := uri.rpartition("/")[2]).startswith("try-")]

    def _owner(self, name: str) -> str | None:
        """Return whose marker it is, unless a store keeps half of it, or its maker has taken it back."""
        try:
            with storage.open_binary(f"{self._folder}/{name}", self._conn_id) as file:
                document = json.loads(file.read())
        except ValueError:
            return None
        owner = document.get("batch") if isinstance(document, dict) else None
        return owner if isinstance(owner, str) else None
