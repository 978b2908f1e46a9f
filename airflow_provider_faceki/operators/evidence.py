# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Which pictures make up a verification, and what does its workflow ask for? Found out before anything is paid.

And what of its record may a log show?
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from airflow_provider_faceki import api
from airflow_provider_faceki.charged_call import digest
from airflow_provider_faceki.failures import are_rules_unavailable

if TYPE_CHECKING:
    from airflow_provider_faceki.hooks.faceki import FacekiHook

log = logging.getLogger(__name__)

# FACEKI's are UUIDs. Anything else may be a sentence about the person, or lines that pass for others of the log.
_ID = re.compile(r"(?=[^0-9]*[0-9])[A-Za-z0-9_-]{1,64}")

#: Gives the checked image for a name and a URI.
Load = Callable[[str, str], api.Image]


def load_documents(load: Load, documents: object) -> list[api.Document]:
    """Return the documents that an operator was given, once its templates are rendered.

    :param load: How a picture is had.
    :param documents: One to three, each ``{"front": uri, "back": uri}`` or the URI of its front.
    :raises ValidationError: they are something else.
    """
    if isinstance(documents, str | Mapping) or not isinstance(documents, Sequence):
        raise api.ValidationError(f"documents must be a list of documents, not {type(documents).__name__}")
    if not 1 <= len(documents) <= 3:
        raise api.ValidationError(f"documents must be one to three documents, not {len(documents)}")
    return [_document(load, f"documents[{number}]", item) for number, item in enumerate(documents)]


def _document(load: Load, name: str, item: object) -> api.Document:
    sides = {"front": item} if isinstance(item, str) else item
    front = sides.get("front") if isinstance(sides, Mapping) else None
    if not front or not isinstance(sides, Mapping) or set(sides) - {"front", "back"}:
        raise api.ValidationError(f'{name} must be a URI, or {{"front": uri, "back": uri}}')
    back = sides.get("back")
    return api.Document(load(f"{name} front", front), load(f"{name} back", back) if back else None)


def images_fingerprint(selfie: object, documents: object) -> str:
    """Return what tells the pictures of one verification from those of another: where they are.

    :param selfie: The selfie's URI, rendered.
    :param documents: The documents, rendered, of whatever shape.
    """
    places = [selfie]
    for item in documents if isinstance(documents, Sequence) else ():
        sides = item if isinstance(item, Mapping) else {"front": item}
        places += [sides.get("front"), sides.get("back")]
    return digest(*places)


def rules_or_none(hook: FacekiHook, workflow_id: str) -> api.WorkflowRules | None:
    """Return the rules of a workflow; ``None``, and a warning, where FACEKI tells none.

    :param hook: Whom to ask.
    :param workflow_id: The workflow.
    :raises FacekiError: what FACEKI said holds for the verification too.
    """
    try:
        return hook.workflow_rules(workflow_id)
    except api.FacekiError as error:
        if not are_rules_unavailable(error):
            raise
        log.warning("The workflow's rules cannot be had, so documents go unchecked: %s", error)
        return None


def loggable_id(record: api.VerificationRecord) -> str:
    """Return the request's id for a log, or that there is none which looks like one."""
    request_id = record.request_id
    return request_id if request_id and _ID.fullmatch(request_id) else "(without a usable id)"
