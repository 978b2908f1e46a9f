# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Datasets that a task has read and written, for OpenLineage and for Airflow's hook lineage.

The name of a dataset is the location of the file or folder, without a Connection id and without the query of a web
address. For a file about one person, only its folder is reported, because the file name usually identifies the person.
For the same reason, an image is not reported as a dataset.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from airflow_provider_faceki.storage import FilePath

log = logging.getLogger(__name__)

#: Name of the OpenLineage run facet that contains the row counts of a batch.
BATCH_FACET = "faceki_batch"

#: A folder is not reported if its name contains an identifier of a person. An identifier with at least this many
#: characters is searched for anywhere in the folder's name. A shorter identifier is found only as a whole word, because
#: a short text such as 7 occurs in many names by chance.
MIN_IDENTIFIER_LENGTH = 4

_LOCAL_SCHEMES = ("file", "local")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A file or a folder that a task has read or written.

    :param uri: Location without credentials, as :func:`file_uri` or :func:`folder_uri` returns it.
    :param rows: Number of rows that the task has read or written, if it is known.
    """

    uri: str
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Lineage:
    """Datasets of one execution of a task.

    :param inputs: Datasets that were read.
    :param outputs: Datasets that were written.
    :param counts: Number of rows of a batch by outcome, such as ``succeeded`` or ``failed``, over all tries of the
        task. The key ``rows`` contains the total. The mapping is empty if the task is not a batch.
    """

    inputs: Sequence[Dataset] = ()
    outputs: Sequence[Dataset] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


def file_uri(uri: FilePath) -> str | None:
    """Return the location of a file or folder as a URI, without credentials and without the query of a web address.

    If ``uri`` is not a location, return ``None``. For example, a relative path is not a location.

    :param uri: Absolute local path, URI, or path object.
    """
    text = str(uri)
    try:
        parts = urlsplit(f"file://{text}" if text.startswith("/") else text)
    except ValueError:
        return None
    scheme = "file" if parts.scheme in _LOCAL_SCHEMES else parts.scheme
    if not scheme or not (parts.netloc or scheme == "file"):
        return None
    host = parts.netloc.rpartition("@")[2]
    # The query is removed only from a web address. In an object store, `?` and `#` are part of the name.
    is_web = scheme in ("http", "https")
    rest = "" if is_web else re.sub(r"^[^?#]*", "", text)
    return urlunsplit((scheme, host, f"{parts.path}{rest}".rstrip("/"), "", ""))


def datasets(rows: Mapping[str, int | None]) -> list[Dataset]:
    """Return a :class:`Dataset` for each location.

    A location for which :func:`file_uri` returns no URI, such as an empty text, is omitted.

    :param rows: Mapping from a location to its number of rows. A location is a path or a URI. ``None`` means that the
        number of rows is unknown.
    """
    return [Dataset(uri, count) for place, count in rows.items() if (uri := file_uri(place))]


def folder_uri(
    uri: FilePath, identifiers: Iterable[object] = (), images: Iterable[object] = ()
) -> str | None:
    """Return the URI of the folder that contains a file about one person, without identifiers of the person.

    The file's name is omitted, because it usually contains an identifier of the person. If the name of a folder
    contains an identifier, this folder and all folders below it are omitted too. Credentials are omitted as in
    :func:`file_uri`. Return ``None`` if nothing remains.

    :param uri: Location of the file.
    :param identifiers: JSON values that contain identifiers of the person: for example an id, or the path of an API
        call such as ``/records/42``, whose parts are all treated as identifiers. If a value is a list or a mapping, the
        values in it are searched too.
    :param images: JSON values that contain URIs of images of the person. The name of an image and the name of its
        folder possibly identify the person. Therefore both names are treated as identifiers.
    """
    found = file_uri(uri)
    if found is None:
        return None
    scheme, _, rest = found.partition("://")
    host, *folders = rest.split("/")[:-1] or [""]
    texts = [part for text in _texts(list(identifiers)) for part in _parts(text)]
    texts += [name for text in _texts(list(images)) for name in _image_names(text)]
    hidden = set(map(unquote, texts)) - {""}
    kept = list(takewhile(lambda folder: not any(_shows(unquote(folder), each) for each in hidden), folders))
    return f"{scheme}://{'/'.join((host, *kept))}" if host or kept else None


def _shows(folder: str, identifier: str) -> bool:
    is_long = len(identifier) >= MIN_IDENTIFIER_LENGTH
    return identifier in (folder if is_long else re.split(r"[\W_]+", folder))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str | int):
        yield str(value)


def _parts(text: str) -> Iterator[str]:
    """Yield a text and its parts: the segments of a path, and the values of a query (``42`` for ``person=42``)."""
    yield text
    for segment in re.split(r"[/?#&]", text):
        yield segment.rpartition("=")[2]


def _image_names(uri: str) -> list[str]:
    """Return the name of an image without its extension, and the name of its folder."""
    return re.sub(r"\.\w+$", "", file_uri(uri) or uri).split("/")[-2:]


def collect(lineage: Lineage, context: object) -> None:
    """Report datasets to Airflow's hook lineage.

    An error is only logged and not raised, because the work of the task is already done and paid.

    :param context: Hook or path object that has read or written the datasets.
    """
    try:
        from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

        collector = get_hook_lineage_collector()
        for dataset in lineage.inputs:
            collector.add_input_asset(context, uri=dataset.uri)
        for dataset in lineage.outputs:
            collector.add_output_asset(context, uri=dataset.uri)
    except Exception as error:  # noqa: BLE001 - URI handlers are plugins and can raise any error
        log.debug("Datasets could not be reported: %s", type(error).__name__)


def to_openlineage(lineage: Lineage) -> Any:
    """Return the datasets as the ``OperatorLineage`` of the OpenLineage provider.

    :raises ImportError: if the OpenLineage provider is not installed.
    """
    from airflow.providers.common.compat.openlineage.facet import (
        InputDataset,
        OutputDataset,
        OutputStatisticsOutputDatasetFacet,
    )
    from airflow.providers.openlineage.extractors import OperatorLineage

    return OperatorLineage(
        inputs=[
            InputDataset(*_name(each.uri), inputFacets=_input_facets(each.rows)) for each in lineage.inputs
        ],
        outputs=[
            OutputDataset(
                *_name(each.uri),
                outputFacets={}
                if each.rows is None
                else {"outputStatistics": OutputStatisticsOutputDatasetFacet(rowCount=each.rows)},
            )
            for each in lineage.outputs
        ],
        run_facets={BATCH_FACET: _batch_facet(lineage.counts)} if lineage.counts else {},
    )


def _name(uri: str) -> tuple[str, str]:
    """Return the namespace and the name of a dataset for OpenLineage.

    Both have the same form as in the lineage of Airflow's other providers.
    """
    scheme, _, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    if scheme == "file":
        return (f"file://{host}" if host else "file"), slash + path
    return f"{scheme}://{host}", path or "/"


def _input_facets(rows: int | None) -> dict[str, Any]:
    try:
        from openlineage.client.generated.input_statistics_input_dataset import (
            InputStatisticsInputDatasetFacet,
        )
    except ImportError:  # an older version of openlineage-python
        return {}
    return {} if rows is None else {"inputStatistics": InputStatisticsInputDatasetFacet(rowCount=rows)}


def _batch_facet(counts: Mapping[str, int]) -> Any:
    import attrs
    from airflow.providers.common.compat.openlineage.facet import RunFacet

    # The base class RunFacet exists only if OpenLineage is installed. Therefore the subclass is created here and not at
    # the import of this module.
    facet = attrs.make_class("FacekiBatchRunFacet", list(counts), bases=(RunFacet,))
    return facet(**counts)
