# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What is asked of FACEKI about one person of a batch?"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from airflow_provider_faceki import api, storage
from airflow_provider_faceki.batch.manifest import Row
from airflow_provider_faceki.batch.rules import REMEMBERED, Rules

if TYPE_CHECKING:
    from airflow_provider_faceki.hooks.faceki import FacekiHook

LoadImage = Callable[[str, str], "api.Image"]

DOCUMENTS = (1, 2, 3)


class People:
    """The questions of one batch; used by many threads at once.

    :param hook: Whom to ask.
    :param load_image: Gives a checked image for a name and a URI.
    :param workflow_id: Workflow of the rows that name none.
    :param check_rules: Whether documents are held against the workflow's rules before paying.
    :param lookup_timeout: Seconds to look for a record right after its answer was lost.
    """

    def __init__(
        self,
        hook: FacekiHook,
        load_image: LoadImage,
        workflow_id: str | None,
        check_rules: bool,
        lookup_timeout: float,
    ) -> None:
        self._hook = hook
        self._load_image = load_image
        self._workflow_id = workflow_id
        self._rules = Rules(hook.workflow_rules)
        self._check_rules = check_rules
        self._lookup_timeout = lookup_timeout
        #: Somebody accepted, and whether FACEKI shows a record of that, by workflow.
        self._accepted: dict[str, str] = {}
        self._shown: dict[str, bool] = {}
        self._looking = threading.Lock()

    def endpoint(self, row: Row, not_before: float) -> api.PerformKycVerification:
        """Return the call that verifies the person, everything that can be checked before paying checked.

        :param not_before: Unix time; a record that FACEKI made before it is of another verification.
        :raises ValidationError: the row, or a picture that it names, cannot work.
        :raises ConfigurationError: neither the row nor anybody else names a workflow.
        :raises OSError: a storage does not give a picture; the text tells which, and not where it is.
        """
        workflow_id = self._workflow(row)
        documents = list(self._documents(row.values))
        selfie = self._image("selfie", row.values)
        if self._check_rules:
            self._rules.check(workflow_id, documents)
        return api.PerformKycVerification(
            workflow_id=workflow_id,
            selfie=selfie,
            documents=documents,
            record_identifier=row.values["record_identifier"],
            lookup_timeout=self._lookup_timeout,
            not_before=not_before,
        )

    def verify(self, endpoint: api.PerformKycVerification) -> api.KycVerification:
        """Have the person verified. Billed."""
        made = self._hook.call(endpoint)
        if made.decision is api.Decision.ACCEPTED and len(self._accepted) < REMEMBERED:
            self._accepted.setdefault(endpoint.workflow_id, endpoint.record_identifier)
        return made

    def find(self, row: Row, not_before: float | None) -> api.KycVerification | None:
        """Look for a verification of the person that was made since Unix time ``not_before``, or ever."""
        return self._hook.call(
            api.FindKycVerification(record_identifier=row.values["record_identifier"], not_before=not_before)
        )

    def keeps_records(self, row: Row) -> bool:
        """Whether FACEKI keeps a record of the person's verification, so that it means something if there is none.

        :raises FacekiError: FACEKI cannot be asked now.
        """
        workflow_id = self._workflow(row)
        return self._rules.stores_records(workflow_id) and self._shows_records(workflow_id)

    def _shows_records(self, workflow_id: str) -> bool:
        """Whether FACEKI has a record of somebody whom it has accepted in this try: what the rules say of it is in no
        documentation.
        """
        with self._looking:
            if workflow_id not in self._shown:
                accepted = self._accepted.get(workflow_id)
                if accepted is None:
                    return True
                look = api.FindKycVerification(record_identifier=accepted)
                self._shown[workflow_id] = self._hook.call(look) is not None
            return self._shown[workflow_id]

    def record(self, identifier: str, request_id: str | None) -> api.VerificationRecord | None:
        """Return the whole record of a verification that was made, if FACEKI keeps one."""
        # FACEKI need not tell the request's id, such as with a code about a picture.
        by: dict[str, str] = {"request_id": request_id} if request_id else {"record_identifier": identifier}
        return api.latest(self._hook.call(api.FetchRecords(**by)))

    def _workflow(self, row: Row) -> str:
        named = row.values.get("workflow_id") or self._workflow_id or self._hook.settings.workflow_id
        if not named:
            raise api.ConfigurationError(
                f"row {row.number} names no workflow, and neither do workflow_id and the Connection"
            )
        return named

    def _documents(self, values: Mapping[str, str]) -> Iterator[api.Document]:
        for number in DOCUMENTS:
            front, back = f"document_{number}_front", f"document_{number}_back"
            if front in values:
                yield api.Document(
                    self._image(front, values), self._image(back, values) if back in values else None
                )
            elif back in values:
                raise api.ValidationError(f"{back} is given, but no {front}")

    def _image(self, name: str, values: Mapping[str, str]) -> api.Image:
        if name not in values:
            raise api.ValidationError(f"{name} is missing")
        place = values[name]
        try:
            return self._load_image(name, place)
        except api.ValidationError as error:
            raise api.ValidationError(_without_place(error.message, place)) from None
        except api.FacekiError:
            raise
        except storage.StorageError as error:
            raise error.without_uri(name) from None
        except Exception as error:  # noqa: BLE001 - a storage raises what it likes, and nothing is sent yet
            # Its words may be the picture's name, which may be a person's.
            number = error.errno if isinstance(error, OSError) else None
            told = os.strerror(number) if number else type(error).__name__
            raise OSError(f"{name} cannot be read now: {told}") from None


def _without_place(message: str, place: str) -> str:
    """Return ``message`` without where a picture is: pictures are named after people."""
    return re.sub(r"""(['"])(?:(?!\1).)*/.*?\1""", "…", message.replace(repr(place), "…"))
