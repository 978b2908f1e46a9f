# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What do the workflows ask for? Asked once for each of them, also where there is no answer."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Sequence

from airflow_provider_faceki import api
from airflow_provider_faceki.failures import are_rules_unavailable

log = logging.getLogger(__name__)

#: Workflows that are remembered; a manifest names a few.
REMEMBERED = 1000


class Rules:
    """The rules of the workflows of one batch.

    :param ask: Returns the rules of a workflow.
    """

    def __init__(self, ask: Callable[[str], api.WorkflowRules | None]) -> None:
        self._ask = ask
        self._known: dict[str, api.WorkflowRules | api.WorkflowError | None] = {}
        self._asking = threading.Lock()

    def check(self, workflow_id: str, documents: Sequence[api.Document]) -> None:
        """Hold documents against a workflow's rules, if they can be had.

        :raises ValidationError: they do not fit.
        :raises WorkflowError: the workflow is unknown or has no rules.
        :raises FacekiError: FACEKI cannot be asked now.
        """
        rules = self._rules(workflow_id)
        if isinstance(rules, api.WorkflowError):
            # Each raising adds to an exception, and threads raise at once.
            raise copy.copy(rules)
        if rules is not None:
            api.check_documents(rules, documents)

    def stores_records(self, workflow_id: str) -> bool:
        """Whether FACEKI keeps the records of a workflow; unknown counts as kept.

        :raises FacekiError: FACEKI cannot be asked now.
        """
        rules = self._rules(workflow_id)
        return rules.stores_records if isinstance(rules, api.WorkflowRules) else True

    def _rules(self, workflow_id: str) -> api.WorkflowRules | api.WorkflowError | None:
        with self._asking:
            if workflow_id not in self._known:
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[workflow_id] = self._asked(workflow_id)
            return self._known[workflow_id]

    def _asked(self, workflow_id: str) -> api.WorkflowRules | api.WorkflowError | None:
        try:
            return self._ask(workflow_id)
        except api.WorkflowError as error:
            return error
        except api.ResponseError as error:
            if not are_rules_unavailable(error):
                raise
            log.warning("The workflow's rules cannot be had, so documents go unchecked: %s", error)
            return None
