# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Convert the documents that a caller gives for a verification into ``Document`` objects.

A caller can give each document in several ways, for example as a path, a URI or a mapping of sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_faceki import api
from airflow_provider_faceki.api.values import is_missing

if TYPE_CHECKING:
    from airflow_provider_faceki.api.endpoints.verification import Document
    from airflow_provider_faceki.api.uploads import Image
    from airflow_provider_faceki.storage import FilePath

    #: Bytes of an image, its absolute local path, its URI, or an ``Image``, which is an image that is already
    #: checked.
    ImageSource: TypeAlias = bytes | FilePath | Image
    #: Accepted types for one document: a ``Document``, a mapping with the images ``front`` and ``back``, or only the
    #: image of the front, if the document has no back.
    DocumentSource: TypeAlias = Document | ImageSource | Mapping[str, Any]


def load_documents(load: Callable[[str, Any], Image], documents: object) -> list[Document]:
    """Load the images of the documents, and return the documents as ``Document`` objects.

    An item that is already a ``Document`` is returned unchanged.

    :param load: Function that checks an image and returns an ``Image``. Its first argument is a name for error
        messages. Its second argument is the image.
    :param documents: One to three documents. Each is a ``Document``, ``{"front": image, "back": image}``, or the
        image of its front. If the back is a value such as ``None`` or an empty text, the document has no back.
    :raises ValidationError: if ``documents`` or one of its items has another form.
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
    given = [side for side in (front, back) if not is_missing(side)]
    if is_missing(front) or any(map(_is_no_place, given)) or set(sides) - {"front", "back"}:
        raise api.ValidationError(f'{name} must be an image, or {{"front": image, "back": image}}')
    return api.Document(
        load(f"{name} front", front), None if is_missing(back) else load(f"{name} back", back)
    )


def _is_no_place(side: object) -> bool:
    # The result is `True` for a number, a list or a mapping. Such a value is neither an image nor the location of an
    # image, so the caller refuses the document. Whether a text is a valid location is checked later, when the image is
    # loaded.
    return isinstance(side, int | float | Sequence | Mapping) and not isinstance(side, str | bytes)
