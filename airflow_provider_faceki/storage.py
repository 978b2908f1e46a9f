# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Where do full records go, and where do images come from?

To and from any storage that Airflow's ``ObjectStoragePath`` reaches: local files, S3, GCS, Azure and so on. A reader
sees the old content or the new, never a part: a local file is written beside its place and then moved there, readable
by its owner only; in an object store one upload is one step already. Nothing that is read or written is logged.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

from airflow_provider_faceki.api.errors import ValidationError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_faceki.api.uploads import Image

#: A file: its absolute local path, its URI, or an object that stands for either.
Place: TypeAlias = "str | os.PathLike[str] | ObjectStoragePath"

# Bytes that an object store is asked for beyond what is read; by default it would be 5 MiB, of each picture, twice.
_FIRST_LOOK = 4 * 1024
_READ_AHEAD = 256 * 1024
_ALLOWED = "give the absolute path or the URI of a file, such as s3://bucket/key"
_LOCAL_SCHEMES = ("file", "local")
# What waiting does not mend; a full disk or a failing one may be better at the next try.
_FOR_GOOD = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
    | {errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
)


def check_path(uri: Place, conn_id: str | None = None) -> None:
    """Refuse a place where nothing can ever be written, while nothing has been asked of FACEKI or paid.

    Nothing is written, and a remote storage is not asked: it may still refuse, or be away.

    :param uri: Absolute local path or URI of a file.
    :param conn_id: Connection for that storage, as for :func:`write_json`.
    :raises ValidationError: it is relative, a folder, a device, or below a file; or no storage is known for it.
    """
    path, text = _path(uri, conn_id)
    if _is_local(path):
        with _told_clearly("write to", text):
            _refuse_special(path.path)


def write_json(uri: Place, document: object, conn_id: str | None = None) -> str:
    """Write ``document`` as one line of JSON, replacing what is there, and return ``uri``.

    :param uri: Absolute local path or URI of a file; folders on the way are made.
    :param document: What ``json`` can write. Non-ASCII is escaped, so that any reader's encoding will do.
    :param conn_id: Connection for that storage. Default: the one in the URI, else the storage's own default.
    :raises ValidationError: nothing can be written there.
    """
    return write_bytes(uri, json.dumps(document, allow_nan=False).encode() + b"\n", conn_id)


def write_bytes(uri: Place, content: bytes, conn_id: str | None = None) -> str:
    """Write ``content``, replacing what is there, and return ``uri``; parameters as for :func:`write_json`."""
    path, text = _path(uri, conn_id)
    with _told_clearly("write to", text):
        if _is_local(path):
            _write_local(path.path, io.BytesIO(content))
        else:
            path.fs.pipe_file(path.path, content)
    return text


def write_file(uri: Place, source: BinaryIO, conn_id: str | None = None) -> str:
    """Copy ``source`` from where it stands to its end, in small pieces; else as :func:`write_bytes`."""
    path, text = _path(uri, conn_id)
    with _told_clearly("write to", text):
        if _is_local(path):
            _write_local(path.path, source)
        else:
            _upload(path, source)
    return text


def image(name: str, uri: Place, max_bytes: int, conn_id: str | None = None) -> Image:
    """Return the image at ``uri``, looked at but not loaded.

    :param name: What the image is for; an error names it.
    :param uri: Absolute local path or URI of a file.
    :param max_bytes: Largest size that is accepted; see :meth:`Image.checked`.
    :param conn_id: Connection for that storage, as for :func:`write_json`.
    :raises ValidationError: it is missing, empty, too large, or not an image.
    """
    from airflow_provider_faceki.api.uploads import Image

    try:
        path, text = _path(uri, conn_id)

        def opened(ahead: int) -> BinaryIO:
            with _told_clearly("read", text):
                return cast("BinaryIO", path.fs.open(path.path, "rb", block_size=ahead))

        with _told_clearly("read", text):
            looked_at = Image.checked(name, partial(opened, _FIRST_LOOK), _size(path, text), max_bytes)
            return replace(looked_at, open=partial(opened, _READ_AHEAD))
    except ValidationError as error:
        if error.message.startswith(name):
            raise
        raise ValidationError(f"{name}: {error.message}") from None


def open_binary(uri: Place, conn_id: str | None = None) -> BinaryIO:
    """Open a file for reading; parameters as for :func:`write_json`."""
    path, text = _path(uri, conn_id)
    with _told_clearly("read", text):
        return cast("BinaryIO", path.open("rb"))


def list_files(uri: Place, conn_id: str | None = None) -> list[str]:
    """Return the URIs of the files in a folder, sorted by name; a folder that is not there holds none.

    :param uri: Absolute local path or URI of the folder.
    :param conn_id: Connection for that storage, as for :func:`write_json`.
    """
    path, text = _path(str(uri).rstrip("/"), conn_id)
    with _told_clearly("list", text):
        # A filesystem may remember what it listed, while other workers write.
        path.fs.invalidate_cache(path.path)
        try:
            entries = path.fs.ls(path.path, detail=True)
        except FileNotFoundError:
            return []
    names = [os.path.basename(entry["name"]) for entry in entries if entry["type"] == "file"]
    return [f"{text}/{name}" for name in sorted(names) if not name.startswith(".")]


def delete(uri: Place, conn_id: str | None = None) -> None:
    """Delete a file, if it is there; parameters as for :func:`write_json`."""
    path, text = _path(uri, conn_id)
    with _told_clearly("delete", text), suppress(FileNotFoundError):
        path.fs.rm_file(path.path)


def size(uri: Place, conn_id: str | None = None) -> int:
    """Return how many bytes a file has; parameters as for :func:`write_json`."""
    path, text = _path(uri, conn_id)
    with _told_clearly("read", text):
        return _size(path, text)


def _size(path: ObjectStoragePath, text: str) -> int:
    info = path.fs.info(path.path)
    if info["type"] != "file" or info["size"] is None:
        raise ValidationError(f"cannot read {_shown(text)}: it is not a file of known size")
    return int(info["size"])


def _path(uri: object, conn_id: str | None) -> tuple[ObjectStoragePath, str]:
    """Return the place that ``uri`` means, and its text, or say why it means none."""
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    # As text a path of Airflow's keeps its scheme and its Connection; as a file name it would lose both.
    text = str(uri) if isinstance(uri, ObjectStoragePath) else uri
    text = os.fspath(text) if isinstance(text, os.PathLike) else text
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ValidationError(f"storage path: {_ALLOWED}")
    _check_shape(text)
    with _told_clearly("reach", text):
        return _reached(text, conn_id), text


def _reached(text: str, conn_id: str | None) -> ObjectStoragePath:
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, ObjectStoragePath

    try:
        path = ObjectStoragePath(text, conn_id=conn_id) if conn_id else ObjectStoragePath(text)
        path.fs  # noqa: B018 - Airflow makes the filesystem only when asked for it, of a Connection perhaps
    except AirflowNotFoundException as error:
        named = re.search(r"conn_id `([\w.-]+)`", str(error))
        told = named[1] if named else conn_id or "of its own"
        raise ValidationError(f"no storage for {_shown(text)}: there is no Connection {told}") from None
    except ImportError as error:
        raise ValidationError(
            f"no storage for {_shown(text)}: {error.name or 'a package'} is missing; is the Airflow provider for it "
            "installed, with all that it needs?"
        ) from None
    except ValueError:
        # Airflow's own names the scheme; one of the storage's may hold what its Connection holds.
        raise ValidationError(
            f"no storage for {_shown(text)}: is the Airflow provider for it installed, and its Connection right?"
        ) from None
    return path


def _check_shape(text: str) -> None:
    # Airflow 2.11 takes "a.json" for "/a.json", Airflow 3 for a file wherever the worker happens to run; both take
    # "file://a/b" for the relative "a/b". So nothing relative gets through.
    scheme, separator, rest = text.partition("://")
    place, _, key = rest.partition("/")
    if not separator or "/" in scheme:
        if not text.startswith("/"):
            raise ValidationError(f"storage path {_shown(text)}: {_ALLOWED}")
        key = text
    elif scheme.lower() in _LOCAL_SCHEMES and place:
        raise ValidationError(f"storage path {_shown(text)}: a local file's URI begins with {scheme}:///")
    if not key or key.endswith("/"):
        raise ValidationError(f"storage path {_shown(text)}: this is a folder; name a file in it")


def _is_local(path: ObjectStoragePath) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(path.fs, LocalFileSystem)


def _upload(path: ObjectStoragePath, source: BinaryIO) -> None:
    """Copy ``source`` to an object store, which shows the object when the upload is closed, and not before."""
    from fsspec.spec import AbstractBufferedFile

    target = path.fs.open(path.path, "wb")
    try:
        shutil.copyfileobj(source, target)
    except BaseException:
        # Whatever it was goes on its way; but to close the upload would publish the part that was sent.
        if isinstance(target, AbstractBufferedFile):
            target.discard()
            target.closed = True
        raise
    target.close()


def _write_local(target: str, source: BinaryIO) -> None:
    folder = os.path.dirname(target)
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, "a folder on the way to it is a file") from None
    _refuse_special(target)
    # mkstemp makes the file with mode 0600. A short name of its own, since the target's may be as long as allowed.
    handle, temporary = tempfile.mkstemp(prefix=".faceki-", suffix=".part", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    _sync_folder(folder)


def _refuse_special(target: str) -> None:
    """Refuse what a move would destroy, such as ``/dev/null``, or what it cannot replace."""
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        return
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, "this is a folder; name a file in it")
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise FileExistsError(errno.EEXIST, "this is not a regular file")


def _sync_folder(folder: str) -> None:
    # So that the move survives a power cut. Not every filesystem can do it, and the content is complete without it.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _told_clearly(doing: str, uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # An object store's errors are of these classes too, but carry neither number nor text that is fit to show.
        why = {PermissionError: "permission denied", FileNotFoundError: "no such file or bucket"}.get(
            type(error)
        )
        if why or error.errno in _FOR_GOOD:
            why = error.strerror or why
            raise ValidationError(f"cannot {doing} {_shown(uri)}: {why}") from None
        raise
    except ValidationError:
        raise
    except Exception as error:  # noqa: BLE001 - some object stores raise what no class of Python's names
        # To whoever asked, the storage failed; the text may hold whatever was sent.
        raise OSError(f"cannot {doing} {_shown(uri)} now: {type(error).__name__}") from None


def _shown(uri: str) -> str:
    """Show where, without what may be a credential: a user part, or the query of a signed web address."""
    text = re.sub(r"://[^/]*@", "://…@", uri)
    if text.lower().startswith("http"):
        text = re.sub(r"[?#].*", "?…", text, flags=re.DOTALL)
    return repr(text)
