# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The documents of a verification, in every shape that a caller may give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_faceki import api

if TYPE_CHECKING:
    from airflow_provider_faceki.api.endpoints.verification import Document
    from airflow_provider_faceki.api.uploads import Image
    from airflow_provider_faceki.storage import FilePath

    #: The content of a picture, its absolute local path or URI, or an image that was checked.
    Picture: TypeAlias = bytes | FilePath | Image
    #: A document with its sides, or the front of one that has no back.
    DocumentSource: TypeAlias = Document | Picture | Mapping[str, Any]


def load_documents(load: Callable[[str, Any], Image], documents: object) -> list[Document]:
    """Return the documents that a caller gave.

    :param load: Makes a checked image of a name, for errors, and a picture.
    :param documents: One to three, each a ``Document``, ``{"front": picture, "back": picture}`` or the picture of its
        front.
    :raises ValidationError: they are something else.
    """
    if isinstance(documents, str | bytes | Mapping) or not isinstance(documents, Sequence):
        raise api.ValidationError(f"documents must be a list of documents, not {type(documents).__name__}")
    if not 1 <= len(documents) <= 3:
        raise api.ValidationError(f"documents must be one to three documents, not {len(documents)}")
    return [_document(load, f"documents[{number}]", item) for number, item in enumerate(documents)]


def _document(load: Callable[[str, Any], Image], name: str, item: object) -> Document:
    if isinstance(item, api.Document):
        return item
    sides = item if isinstance(item, Mapping) else {"front": item}
    front, back = sides.get("front"), sides.get("back")
    # Storages say what is wrong with a place; a number or a list is none.
    is_odd = any(
        isinstance(side, int | float | Sequence) and not isinstance(side, str | bytes)
        for side in sides.values()
    )
    if not front or is_odd or set(sides) - {"front", "back"}:
        raise api.ValidationError(f'{name} must be a picture, or {{"front": picture, "back": picture}}')
    return api.Document(load(f"{name} front", front), load(f"{name} back", back) if back else None)


def _is_no_place(side: object) -> bool:
    return isinstance(side, int | float | Sequence | Mapping) and not isinstance(side, str | bytes)
