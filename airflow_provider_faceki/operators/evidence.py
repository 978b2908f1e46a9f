# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The fingerprint of a verification's pictures, and the part of its record that a log may show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from airflow_provider_faceki import api
from airflow_provider_faceki.charged_call import digest

# FACEKI's are UUIDs. Anything else may be a sentence about the person, or lines that pass for others of the log.
_ID = re.compile(r"(?=[^0-9]*[0-9])[A-Za-z0-9_-]{1,64}")


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


def loggable_id(record: api.VerificationRecord) -> str:
    """Return the request's id for a log, or that there is none which looks like one."""
    request_id = record.request_id
    return request_id if request_id and _ID.fullmatch(request_id) else "(without a usable id)"
