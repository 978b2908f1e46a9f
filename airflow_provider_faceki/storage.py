# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Read and write files in any storage of Airflow's ``ObjectStoragePath``: local, S3, GCS, Azure and others.

A reader sees either the complete old content or the complete new content of a file. No content is logged.

The functions of this module raise only the errors that ``storage_interface.py`` lists. The same is true for the methods
of the file objects that they return.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias
from urllib.parse import unquote, urlsplit

# The two names below are imported at the top and not inside functions, so that each name is imported only once. On
# Airflow 2.11, each import of such a name first tries to import a module that does not exist. During this attempt,
# Python holds an import lock. If the process is forked while another thread holds this lock, the child process waits
# for the lock forever.
from airflow.providers.common.compat.sdk import AirflowNotFoundException, ObjectStoragePath
from fsspec.implementations.local import LocalFileSystem

try:
    from airflow.sdk.io.store import attach as attach
except ImportError:  # Airflow 2.11
    from airflow.io.store import attach as attach  # type: ignore[import-not-found, no-redef]

from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.api.values import check_identifier, is_missing
from airflow_provider_faceki.local_files import (
    check_folder_writable,
    check_replaceable,
    open_regular,
    write_atomically,
)
from airflow_provider_faceki.storage_interface import (
    NotAllowedError,
    StorageAccessError,
    StorageError,
    StorageFileNotFoundError,
    StorageUnavailableError,
    redact_uri,
)

if TYPE_CHECKING:
    from airflow_provider_faceki.api.uploads import Image

#: Location of a file: its absolute local path, its URI, or a path object.
FilePath: TypeAlias = "str | os.PathLike[str] | ObjectStoragePath"

# Number of bytes that are requested from an object store in advance when an image is checked. The check needs only the
# first bytes of the image, so fsspec's default of 5 MiB would be too much.
_HEADER_READ_AHEAD_BYTES = 4 * 1024
# Number of bytes that are requested in advance when an image is uploaded. For the upload, the image is opened a second
# time.
_READ_AHEAD_BYTES = 256 * 1024
# Number of bytes that are requested in advance when a file that is not an image, such as a manifest, is read. The
# default of s3fs, 50 MiB, is too much, because a manifest stays open during the whole batch. With this default, the
# needed memory would grow with the size of the manifest, up to three times 50 MiB.
_FILE_READ_AHEAD_BYTES = 1024 * 1024
_BUFFER_BYTES = 64 * 1024
# Size in bytes of one part of an upload: 5 MiB, which is the minimum of S3. An upload needs up to four times as much
# memory, because s3fs keeps several copies of a part. So the default of s3fs, 50 MiB, is too much. S3 allows at most
# 10 000 parts, so a file of up to 48 GiB can be uploaded. Google Cloud Storage requires a multiple of 256 KiB.
_UPLOAD_PART_BYTES = 5 * 1024 * 1024

_ALLOWED = "give the absolute path or the URI of a file, such as s3://bucket/key"
_LOCAL_SCHEMES = ("file", "local")
# Control characters are refused, because URL parsers remove some of them, so a check would examine another path than
# the storage uses.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# Error numbers of local files after which a retry does not help. The errors of a full or faulty disk are not in the
# list, because a retry on another worker can succeed.
_PERMANENT_ERRNOS = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
)
_ACCESS_ERRNOS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
# Class names and codes in the errors of object store libraries. These errors share no base class, so only their names
# and codes show what they mean.
_ACCESS_NAMES = re.compile(
    r"Credential|Unauthorized|Forbidden|AccessDenied|AuthError|Authentication|RefreshError|TokenRetrieval|SSOToken"
)
_ACCESS_CODES = frozenset(
    {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed"}
    # The response to a HEAD request has no body with an error code. Therefore the S3 library reports the HTTP status as
    # the code. S3 answers with status 400 if the credentials have expired, so 400 is treated as refused access.
    | {"400", "401", "403", "407"}
)
_INVALID_NAMES = re.compile(r"ParamValidation|InvalidBucketName")
_INVALID_CODES = frozenset({"InvalidBucketName", "KeyTooLongError", "InvalidURI"})
_MISSING_CODES = frozenset({"404", "410", "NoSuchKey", "NoSuchBucket"})


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """Rules that say which files a URI is allowed to name.

    The rules are necessary for URIs that the author of the DAG has not written, such as the URIs in a manifest.

    :param prefixes: Allowed folders, as absolute local paths or as URIs without a Connection. For a local folder,
        symbolic links are resolved before the check. ``None`` allows every folder of a remote storage.
    :param conn_ids: Connections that a URI is allowed to name before its ``@``. ``None`` allows every Connection.
    :param allow_local: Whether local files are allowed if ``prefixes`` is ``None``.
    :raises ValidationError: if a prefix is a relative path, or a URI that is incomplete or names a Connection.
    """

    prefixes: tuple[str, ...] | None = None
    conn_ids: tuple[str, ...] | None = None
    allow_local: bool = True
    _local_folders: tuple[str, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for prefix in self.prefixes or ():
            scheme, separator, rest = prefix.partition("://")
            host = rest.partition("/")[0]
            # A local URI must have no host, because a local URI with a host, such as file://in/x, would be a relative
            # path. A remote URI must have a host.
            is_folder = prefix.startswith("/") or (
                scheme and separator and bool(host) is not (scheme.lower() in _LOCAL_SCHEMES)
            )
            if not is_folder or "@" in host:
                raise ValidationError(
                    f"allowed prefix {redact_uri(prefix)}: give an absolute local folder or a URI such as "
                    "s3://bucket/folder/, without a Connection"
                )
        # Symbolic links in the allowed local folders are resolved only once, and not again for each image of a batch.
        local = [
            re.sub(r"^\w+://", "", prefix) for prefix in self.prefixes or () if _has_local_scheme(prefix)
        ]
        object.__setattr__(self, "_local_folders", tuple(map(os.path.realpath, local)))

    @classmethod
    def for_manifest(cls, prefixes: Sequence[str] | None, conn_ids: Sequence[str] | None) -> AccessPolicy:
        """Return the policy for the URIs in a manifest. Local files and Connections need an explicit permission."""
        return cls(None if prefixes is None else tuple(prefixes), tuple(conn_ids or ()), allow_local=False)

    @property
    def hides_reasons(self) -> bool:
        """Whether error texts must hide that a file is missing or is not an image.

        The value depends on who has written the URIs, and on ``prefixes``:

        - ``allow_local`` is true: ``False``. The DAG's author has written the URIs, so nothing must be hidden.
        - ``allow_local`` is false, and ``prefixes`` is set: ``False``. The URIs come from a manifest, but the DAG's
          author has named the allowed folders. So the writer of the manifest is allowed to learn which files they
          contain.
        - ``allow_local`` is false, and ``prefixes`` is ``None``: ``True``. The URIs come from a manifest, and its
          writer can try any URIs. The error texts must not show the writer which files exist.
        """
        return self.prefixes is None and not self.allow_local

    def check_local(self, real_path: str) -> None:
        """Check that a local file is allowed.

        :param real_path: Path of the file after all symbolic links are resolved.
        :raises NotAllowedError: if the file is not allowed.
        """
        if self.prefixes is not None:
            self._check_folder(any(_is_below(real_path, folder) for folder in self._local_folders))
        elif not self.allow_local:
            raise NotAllowedError("the task accepts no local image, because it has no allowed_image_prefixes")

    def check_remote(self, uri: str) -> None:
        """Check that a file in a remote storage is allowed.

        The file must be below one of ``prefixes``, or ``prefixes`` must be ``None``. If the URI names a Connection,
        this Connection must be one of ``conn_ids``, or ``conn_ids`` must be ``None``.

        :raises NotAllowedError: if the file is not allowed.
        """
        conn_id = _user_part(uri)
        if conn_id and self.conn_ids is not None and conn_id not in self.conn_ids:
            raise NotAllowedError("the Connection before the @ is not in the task's allowed_image_conn_ids")
        if self.prefixes is None:
            return
        # Some storages resolve the segments `.` and `..`, other storages treat them as names. Therefore they are
        # refused.
        has_dots = bool({".", ".."} & set(re.split(r"[/\\]", unquote(uri))))
        plain = _without_user_part(uri)
        self._check_folder(
            not has_dots and any(_is_below(plain, _without_user_part(prefix)) for prefix in self.prefixes)
        )

    def _check_folder(self, is_in_allowed_folder: bool) -> None:
        if not is_in_allowed_folder:
            # Each refused row of a batch has this text, so only the first folders are shown.
            first, *others = map(redact_uri, self.prefixes or ("",))
            allowed = ", ".join([first, *others[:2], *(["…"] if others[2:] else [])])
            raise NotAllowedError(f"the image is in none of the task's allowed_image_prefixes ({allowed})")


#: Policy that allows all files. It applies to URIs that the DAG's author writes.
UNRESTRICTED = AccessPolicy()

#: Error text for an image of a manifest if the policy hides reasons. A missing file and a file that is not an image
#: have the same error text. So the writer of the manifest cannot find out which files exist.
UNREADABLE = "no image can be read from there: it is missing, or is not an image"


def check_path(uri: FilePath, conn_id: str | None = None) -> None:
    """Refuse a path that cannot be written. Nothing is written, and no request is sent to a remote storage.

    ``uri`` and ``conn_id`` have the same meaning as for :func:`write_json`.

    :raises ValidationError: if the path is relative, a folder, a device, or below a file, or if its storage is unknown.
    :raises StorageAccessError: if this process is not allowed to create files in the local folder.
    """
    file = _resolve(uri, conn_id)
    if file.is_local:
        with _translate_errors("write to", file):
            check_replaceable(file.path)
            check_folder_writable(file.path)


def write_json(uri: FilePath, document: object, conn_id: str | None = None) -> str:
    """Write ``document`` as one line of JSON, replace an existing file, and return ``uri``.

    :param uri: Absolute local path or URI of a file. Missing folders are created.
    :param document: Object that ``json`` can serialize. Non-ASCII characters are escaped, so the reader can use any
        encoding.
    :param conn_id: Connection for the storage. Default: the Connection before the ``@`` of the URI. If the URI names no
        Connection, the storage library finds credentials by itself. It is an error to set ``conn_id`` if the URI names
        a Connection.
    :raises ValidationError: if the location can never be written.
    :raises StorageError: if the storage fails, or refuses access.
    """
    return write_bytes(uri, json.dumps(document, allow_nan=False).encode() + b"\n", conn_id)


def write_bytes(uri: FilePath, content: bytes, conn_id: str | None = None) -> str:
    """Write ``content``, replace an existing file, and return ``uri``.

    ``uri`` and ``conn_id`` have the same meaning as for :func:`write_json`.
    """
    file = _resolve(uri, conn_id)
    with _translate_errors("write to", file):
        if file.is_local:
            write_atomically(file.path, io.BytesIO(content))
        else:
            file.filesystem.pipe_file(file.path, content)
    return file.uri


def write_file(uri: FilePath, source: BinaryIO, conn_id: str | None = None) -> str:
    """Copy ``source`` to ``uri``, from its current position to its end, in small pieces.

    ``uri`` and ``conn_id`` have the same meaning as for :func:`write_json`.
    """
    file = _resolve(uri, conn_id)
    with _translate_errors("write to", file):
        if file.is_local:
            write_atomically(file.path, source)
        else:
            _upload(file, source)
    return file.uri


def image(
    name: str,
    uri: FilePath,
    max_bytes: int,
    conn_id: str | None = None,
    policy: AccessPolicy = UNRESTRICTED,
) -> Image:
    """Check the image at ``uri``, and return an object that opens the file again for the upload.

    The check needs the size and the first bytes of the file. The rest is read only when the returned object is opened.

    :param name: Name of the image in error texts, such as ``selfie``.
    :param uri: Absolute local path or URI of a file.
    :param max_bytes: Maximum accepted size in bytes; see :meth:`Image.checked`.
    :param conn_id: Connection for the storage, as for :func:`write_json`.
    :param policy: Policy that defines the allowed files.
    :raises ValidationError: if the file is missing, empty, too large, not an image, or not allowed.
    """
    from airflow_provider_faceki.api.uploads import Image, check_size

    try:
        file = _resolve(uri, conn_id, policy)
        found = _file_size(file)
        checked = Image.checked(
            name, partial(_open, file, _HEADER_READ_AHEAD_BYTES), found, max(found, max_bytes)
        )
    except ValidationError as error:
        if policy.hides_reasons and not isinstance(error, NotAllowedError):
            raise ValidationError(f"{name}: {UNREADABLE}") from None
        if not error.message.startswith(name):
            error.message = f"{name}: {error.message}"
        if policy.allow_local and (shown := redact_uri(str(uri))) not in error.message:
            error.message += f" ({shown})"
        raise
    # The size is checked here and not above, because its error is shown even if the policy hides the other reasons.
    check_size(name, found, max_bytes)
    return replace(checked, open=partial(_open, file, _READ_AHEAD_BYTES))


def open_binary(uri: FilePath, conn_id: str | None = None, *, is_sequential: bool = True) -> BinaryIO:
    """Open a file for reading. ``uri`` and ``conn_id`` have the same meaning as for :func:`write_json`.

    The returned object has all methods of a local binary file, even if the storage library's file object lacks some of
    them. These methods raise only the errors that ``storage_interface.py`` lists.

    :param is_sequential: Whether the file is read from its beginning to its end. If it is ``False``, fewer bytes are
        requested in advance, because these bytes are often not needed.
    """
    read_ahead = _FILE_READ_AHEAD_BYTES if is_sequential else _BUFFER_BYTES
    return _open(_resolve(uri, conn_id), read_ahead)


def list_files(uri: FilePath, conn_id: str | None = None) -> list[str]:
    """Return the URIs of the files in a folder or bucket, sorted by name. For a missing folder the list is empty.

    Files whose names begin with a dot are left out. ``uri`` and ``conn_id`` have the same meaning as for
    :func:`write_json`.
    """
    folder = _resolve(str(uri).rstrip("/"), conn_id, is_folder=True)
    with _translate_errors("list", folder):
        try:
            entries = folder.filesystem.ls(folder.path, detail=True)
        except FileNotFoundError:
            return []
    # The web consoles of cloud storages, and some tools that copy files, create an empty object with the name of the
    # folder. The storage lists this object as a file, so it is left out here.
    names = [
        os.path.basename(entry["name"])
        for entry in entries
        if entry["type"] == "file" and entry["name"].strip("/") != folder.path.strip("/")
    ]
    return [f"{folder.uri}/{name}" for name in sorted(names) if not name.startswith(".")]


def locate(uri: FilePath, conn_id: str | None = None) -> tuple[Any, str]:
    """Return the fsspec filesystem of a file, folder or bucket, and its path in this filesystem.

    ``uri`` and ``conn_id`` have the same meaning as for :func:`write_json`.
    """
    file = _resolve(uri, conn_id, is_folder=True)
    return file.filesystem, file.path.rstrip("/")


def delete(uri: FilePath, conn_id: str | None = None) -> None:
    """Delete a file if it exists. ``uri`` and ``conn_id`` have the same meaning as for :func:`write_json`."""
    file = _resolve(uri, conn_id)
    with _translate_errors("delete", file), suppress(FileNotFoundError):
        file.filesystem.rm_file(file.path)


def size(uri: FilePath, conn_id: str | None = None) -> int:
    """Return the size of a file in bytes. ``uri`` and ``conn_id`` have the same meaning as for :func:`write_json`."""
    return _file_size(_resolve(uri, conn_id))


@dataclass(frozen=True, slots=True, repr=False)
class _File:
    """A file or folder in its storage.

    :param filesystem: The fsspec filesystem. ``None`` before the storage is connected.
    :param path: Path in the filesystem.
    :param uri: URI as the caller passed it.
    :param is_local: Whether the file is in the local filesystem.
    :param follows_links: Whether a local file can be opened if its path contains a symbolic link.
    """

    filesystem: Any
    path: str
    uri: str
    is_local: bool = False
    follows_links: bool = True


def _resolve(
    uri: object, conn_id: str | None, policy: AccessPolicy = UNRESTRICTED, *, is_folder: bool = False
) -> _File:
    """Return the filesystem and the path of the file or folder at ``uri``. Whether the file exists is not checked.

    :param policy: Policy that defines the allowed files.
    :param is_folder: Whether a whole bucket, such as ``s3://bucket``, is accepted in addition to paths in a bucket.
    :raises ValidationError: if ``uri`` is not a valid location, or if ``policy`` does not allow the file.
    """
    # str() of an Airflow path preserves its scheme and its Connection. os.fspath() would remove both.
    text = str(uri) if isinstance(uri, ObjectStoragePath) else uri
    text = os.fspath(text) if isinstance(text, os.PathLike) else text
    if not isinstance(text, str) or is_missing(text) or _CONTROL.search(text) or not _is_encodable(text):
        raise ValidationError(f"storage path: {_ALLOWED}")
    if conn_id or not isinstance(conn_id, str | None):
        check_identifier("the storage's Connection id", conn_id)
    _check_shape(text, is_folder=is_folder)
    if conn_id and _user_part(text):
        raise ValidationError(
            f"storage path {redact_uri(text)}: it names a Connection before the @, but the task has an explicit one "
            "for this storage; leave one of them out"
        )
    # When the storage of a remote file is opened, Airflow looks up the Connection that the URI names. A Connection that
    # ``policy`` does not allow must not be looked up. Therefore the URI is checked before the storage is opened.
    if not _has_local_scheme(text):
        policy.check_remote(text)
    with _translate_errors("reach", _File(None, "", text)):
        file = _local_file(text) if _has_local_scheme(text) else _connect(text, conn_id)
        if not file.is_local:
            # The filesystem object caches the listings of folders in this process. The cache is cleared, because other
            # workers possibly created or replaced files after a folder was listed. An old listing lacks the new files,
            # and contains the old sizes of the replaced files.
            file.filesystem.invalidate_cache(file.path)
    if policy is UNRESTRICTED or not file.is_local:
        return file
    real_path = os.path.realpath(file.path)
    policy.check_local(real_path)
    # The returned path contains no symbolic link. The file is opened later under this path, so a change of a link in
    # the original path has no effect. But somebody can replace a part of the returned path by a symbolic link:
    #
    # - If ``policy`` allows only certain folders (``prefixes``), the file is then not opened.
    # - Without ``prefixes``, every folder is allowed, so the new link is followed.
    return replace(file, path=real_path, follows_links=policy.prefixes is None)


def _local_file(text: str) -> _File:
    """Return a local file.

    ``ObjectStoragePath`` is not used, because its creation would take longer than opening the file.
    """
    return _File(
        LocalFileSystem(), text if text.startswith("/") else text.partition("://")[2], text, is_local=True
    )


def _connect(uri: str, conn_id: str | None) -> _File:
    # Airflow 2.11 accepts a scheme only in lower case, so the scheme is converted to lower case.
    scheme, separator, rest = uri.partition("://")
    text = f"{scheme.lower()}{separator}{rest}"
    try:
        path = ObjectStoragePath(text, conn_id=conn_id) if conn_id else ObjectStoragePath(text)
        filesystem = _own_filesystem(path)
    except AirflowNotFoundException as error:
        named = re.search(r"conn_id `([\w.-]+)`", str(error))
        missing = named[1] if named else conn_id or "of its own"
        raise ValidationError(
            f"no storage for {redact_uri(text)}: there is no Connection {missing}"
        ) from None
    except ImportError as error:
        raise ValidationError(
            f"no storage for {redact_uri(text)}: {error.name or 'a package'} is missing; is the Airflow provider for "
            "it installed, with all that it needs?"
        ) from None
    except ValueError:
        # A storage library or Airflow has raised the ValueError. Its text is not shown, because the text of a storage
        # library can contain values of the Connection, such as a secret. Airflow's text names only the scheme of the
        # URI, which the text below also contains.
        raise ValidationError(
            f"no storage for {redact_uri(text)}: is the Airflow provider for it installed, and its Connection right?"
        ) from None
    return _File(filesystem, str(path.path), uri, isinstance(filesystem, LocalFileSystem))


def _own_filesystem(path: ObjectStoragePath) -> Any:
    """Return the filesystem of a path. If a parent process has created it, create a new one.

    Airflow keeps the filesystem of each Connection for the life of a process, and a forked child process inherits it.
    But for S3, GCS and Azure, fsspec raises an error if a child process uses the filesystem of its parent process.
    """
    filesystem = path.fs
    try:
        # If another process has created the filesystem, reading this attribute raises fsspec's RuntimeError.
        getattr(filesystem, "loop", None)
    except RuntimeError:
        # From Airflow 3.2 on, the id of the Connection is an attribute of the path. In earlier versions, it is one of
        # the storage options.
        store = attach(path.protocol, getattr(path, "conn_id", path.storage_options.get("conn_id")))
        vars(store).pop("fs", None)
        filesystem = store.fs
    return filesystem


def _check_shape(text: str, *, is_folder: bool) -> None:
    # Relative paths are refused, because Airflow versions interpret them differently. Airflow 2.11 interprets "a.json"
    # as "/a.json". Airflow 3 interprets it as a file in the worker's current folder. Both versions interpret
    # "file://a/b" as the relative path "a/b".
    scheme, separator, rest = text.partition("://")
    host, _, key = rest.partition("/")
    if not separator or "/" in scheme:
        if not text.startswith("/"):
            raise ValidationError(f"storage path {redact_uri(text)}: {_ALLOWED}")
        key = text
    elif scheme.lower() in _LOCAL_SCHEMES and host:
        raise ValidationError(f"storage path {redact_uri(text)}: a local file's URI begins with {scheme}:///")
    elif "?" in host or "#" in host:
        # In a URI such as s3://bucket?@other/x, a URL parser ends the host at the "?" or "#". But the check of the
        # allowed folders takes the text between the "@" and the next "/" as the host, so it would check the wrong host.
        # Therefore such a URI is refused.
        raise ValidationError(f"storage path {redact_uri(text)}: {_ALLOWED}")
    if not (key or (is_folder and host)) or key.endswith("/"):
        raise ValidationError(f"storage path {redact_uri(text)}: this is a folder; name a file in it")


def _is_encodable(text: str) -> bool:
    try:
        # Python represents undecodable bytes in a local file name as surrogates. Such names are allowed. os.fsencode
        # accepts these surrogates, but str.encode does not.
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _user_part(text: str) -> str:
    """Return the text before the ``@`` of a URI. Airflow interprets it as the id of a Connection."""
    try:
        return urlsplit(text).netloc.rpartition("@")[0]
    except ValueError:
        raise ValidationError(f"storage path {redact_uri(text)}: {_ALLOWED}") from None


def _without_user_part(text: str) -> str:
    scheme, _, rest = text.partition("://")
    host, slash, key = rest.partition("/")
    return f"{scheme.lower()}://{host.rpartition('@')[2]}{slash}{key}"


def _has_local_scheme(text: str) -> bool:
    scheme, separator, _ = text.partition("://")
    return not separator or "/" in scheme or scheme.lower() in _LOCAL_SCHEMES


def _is_below(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def _file_size(file: _File) -> int:
    with _translate_errors("read", file):
        if file.is_local:
            status = os.stat(file.path)
            found = status.st_size if stat.S_ISREG(status.st_mode) else None
        else:
            info = file.filesystem.info(file.path)
            found = info["size"] if info["type"] == "file" else None
    if found is None:
        raise ValidationError(f"cannot read {redact_uri(file.uri)}: it is not a file of known size")
    return int(found)


def _open(file: _File, read_ahead: int) -> BinaryIO:
    translate = partial(_translate_errors, "read", file)
    with translate():
        opened: BinaryIO = (
            open_regular(file.path, follows_links=file.follows_links)
            if file.is_local
            else file.filesystem.open(file.path, "rb", block_size=read_ahead)
        )
    return io.BufferedReader(_TranslatingReader(opened, translate), min(read_ahead, _BUFFER_BYTES))


class _TranslatingReader(io.RawIOBase):
    """Wrapper of a storage library's file object. It converts exceptions to the errors of ``storage_interface.py``.

    The caller gets a ``BufferedReader`` around this wrapper. The ``BufferedReader`` adds the methods of a local file
    that the library's file object lacks.
    """

    def __init__(self, file: BinaryIO, translate: Callable[[], AbstractContextManager[None]]) -> None:
        self._file = file
        self._translate = translate

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # BufferedReader passes both
        view = memoryview(buffer).cast("B")
        with self._translate():
            content = self._file.read(len(view))
        view[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with self._translate():
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            super().close()


def _upload(file: _File, source: BinaryIO) -> None:
    """Copy ``source`` to an object store. The object becomes visible when the upload is closed."""
    from fsspec.spec import AbstractBufferedFile

    target = file.filesystem.open(file.path, "wb", block_size=_UPLOAD_PART_BYTES)
    try:
        shutil.copyfileobj(source, target)
        target.close()
    except BaseException:
        # If the copy fails, the upload is discarded. It is not closed, because closing it would publish an incomplete
        # object. Python also closes a file when nothing refers to it any more. Therefore the file is first marked as
        # closed, so that nothing is published even if ``discard`` fails. An error of ``discard`` is ignored, because
        # the first error is more important.
        if isinstance(target, AbstractBufferedFile):
            target.closed = True
            with suppress(Exception):
                target.discard()
        raise


@contextmanager
def _translate_errors(doing: str, file: _File) -> Iterator[None]:
    """Replace each error of a storage by an error of ``storage_interface.py``, or a ``ValidationError`` of the path."""
    try:
        yield
    except (StorageError, ValidationError):
        raise
    except Exception as error:  # noqa: BLE001 - object store libraries share no base class
        raise _translated(error, doing, file) from None


def _translated(error: Exception, doing: str, file: _File) -> Exception:
    # The error text of a remote storage can contain a credential or written data, so it is never shown.
    text = (error.strerror if file.is_local and isinstance(error, OSError) else None) or ""
    failure = f"cannot {doing} {redact_uri(file.uri)}"
    labels = error_labels(error)
    if isinstance(error, FileNotFoundError) or labels & _MISSING_CODES:
        return StorageFileNotFoundError(f"{failure}: {text or 'no such file or bucket'}")
    if _is_refusal(error, labels, is_local=file.is_local):
        reason = text or "permission denied, or credentials are wrong or expired"
        return StorageAccessError(f"{failure} now: {reason}", reason)
    if _is_invalid(error, labels, is_local=file.is_local):
        return ValidationError(f"{failure}: {text or 'the storage refuses such a name'}")
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number) if number else type(error).__name__
    return StorageUnavailableError(f"{failure} now: {reason}", reason)


def _is_refusal(error: Exception, labels: frozenset[str], *, is_local: bool) -> bool:
    if isinstance(error, PermissionError) or labels & _ACCESS_CODES:
        return True
    if is_local:
        return isinstance(error, OSError) and error.errno in _ACCESS_ERRNOS
    return any(_ACCESS_NAMES.search(label) for label in labels)


def _is_invalid(error: Exception, labels: frozenset[str], *, is_local: bool) -> bool:
    if is_local:
        return isinstance(error, OSError) and error.errno in _PERMANENT_ERRNOS
    if isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError) or labels & _INVALID_CODES:
        return True
    return any(_INVALID_NAMES.search(label) for label in labels)


def error_labels(error: BaseException | None) -> frozenset[str]:
    """Return the class names, codes and HTTP statuses of an error and of its causes.

    The causes are the cause of the error, the cause of this cause, and so on, at most four.
    """
    found: set[str] = set()
    for _ in range(5):
        if error is None:
            break
        response = getattr(error, "response", None)
        details = response.get("Error") if isinstance(response, dict) else None
        statuses = [getattr(error, name, None) for name in ("status", "status_code", "code")]
        # Each of the three attributes usually contains the HTTP status of the response. The value 400 is ignored,
        # because it has two meanings: HTTP status 400, or, in errors of aiohttp, an incomplete body of the response.
        codes = [status for status in statuses if status != 400]
        codes += [details.get("Code")] if isinstance(details, dict) else []
        found |= {str(code) for code in codes if isinstance(code, int | str)} | {type(error).__name__}
        error = error.__cause__ or error.__context__
    return frozenset(found)
