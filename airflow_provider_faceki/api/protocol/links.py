# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Read the filter of a record request in the shapes in which pipelines hold it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.api.protocol.arguments import check_identifier, is_web_url

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def read_link_id(name: str, value: object) -> str:
    """Return the link id of a link.

    :param name: Parameter that an error names.
    :param value: Link id; URL of the hosted page, whose last part is the id; or a mapping with ``link``, as the link
        operator returns it.
    :raises ValidationError: it is none of these. The error never shows the link.
    """
    if isinstance(value, Mapping):
        if "link" not in value:
            raise ValidationError(
                f"{name} is a mapping without 'link'; give a link id, or the link task's output"
            )
        value = value["link"]
    if not isinstance(value, str):
        raise ValidationError(
            f"{name} must be a link id, the hosted page's URL or the link task's output, not {type(value).__name__}"
        )
    if is_web_url(value.strip()):
        value = urlsplit(value.strip()).path.rstrip("/").rpartition("/")[2]
        if not value:
            raise ValidationError(f"{name} is a URL without a link id at its end")
    check_identifier(name, value)
    return value


def check_not_link(name: str, value: object) -> None:
    """Refuse a link's URL or a task's whole output where an id belongs.

    :param name: Parameter that an error names.
    :param value: Its value.
    :raises ValidationError: it is such a value; the error names ``link=`` as its place.
    """
    if isinstance(value, Mapping):
        place = "; a link task's output belongs into link=" if "link" in value else ""
        raise ValidationError(f"{name} must be text, not a mapping{place}")
    if isinstance(value, str) and is_web_url(value.strip()):
        raise ValidationError(f"{name} is a URL, not an id; a hosted page's URL belongs into link=")


def looks_like_uuid(value: object) -> bool:
    """Whether ``value`` has the shape of FACEKI's own ids."""
    return isinstance(value, str) and _UUID.fullmatch(value.strip()) is not None
