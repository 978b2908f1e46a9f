# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Web addresses of files and folders in object stores, for links in Airflow's user interface."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from airflow_provider_faceki import storage

_AWS_HOST = ".amazonaws.com"
_GOOGLE_HOST = ".googleapis.com"


def web_address(uri: storage.FilePath, conn_id: str | None = None, *, is_folder: bool = False) -> str | None:
    """Return the address of a page that shows a file or folder to a user who is logged in to the storage's console.

    For a file on Azure, the result is the address of the file itself. The address contains no credentials. No request
    is sent to the storage.

    :param uri: URI of the file or folder.
    :param conn_id: Connection for the storage.
    :param is_folder: Whether ``uri`` is the URI of a folder.
    :returns: ``None`` if no address is known, for example for a local file, for a folder on Azure, or for another
        vendor's S3 storage.
    """
    try:
        filesystem, path = storage.locate(str(uri).rstrip("/"), conn_id)
    except (OSError, ValueError):
        return None
    return address_in(filesystem, path, is_folder=is_folder)


def address_in(filesystem: Any, path: str, *, is_folder: bool = False) -> str | None:
    """Return the address of a path in an fsspec filesystem; see :func:`web_address`.

    :param path: Path in the filesystem, as ``bucket/key`` or ``container/key``.
    :param is_folder: Whether ``path`` is a folder.
    """
    bucket, _, key = path.strip("/").partition("/")
    protocol = getattr(filesystem, "protocol", ())
    protocols = {protocol} if isinstance(protocol, str) else set(protocol)
    if "s3" in protocols and _is_at(getattr(filesystem, "endpoint_url", None), _AWS_HOST):
        # The address of a bucket's page has an empty prefix. With the prefix "/", the page would show a folder without
        # a name.
        kind, end = ("buckets", "/" if key else "") if is_folder else ("object", "")
        return f"https://console.aws.amazon.com/s3/{kind}/{quote(bucket)}?prefix={quote(key, safe='/')}{end}"
    if "gs" in protocols and _is_at(getattr(filesystem, "_endpoint", None), _GOOGLE_HOST):
        kind = "" if is_folder else "_details/"
        return f"https://console.cloud.google.com/storage/browser/{kind}{quote(bucket)}/{quote(key)}"
    account = getattr(filesystem, "account_name", None)
    # A folder on Azure has no known address, because its address in Azure's portal contains the id of the user's Azure
    # subscription, and the filesystem does not know this id.
    if "abfs" in protocols and isinstance(account, str) and account and not is_folder:
        host = getattr(filesystem, "account_host", None) or f"{account}.blob.core.windows.net"
        return f"https://{host}/{quote(bucket)}/{quote(key)}"
    return None


def _is_at(endpoint: object, domain: str) -> bool:
    """Return whether a storage endpoint is in the domain of the storage's vendor, such as AWS.

    :param endpoint: URL of the endpoint. ``None`` means the vendor's default endpoint, so the result is true.
    :param domain: Domain of the vendor.
    """
    if endpoint is None:
        return True
    try:
        host = urlsplit(endpoint).hostname if isinstance(endpoint, str) else None
    except ValueError:
        return False
    return f".{host or ''}".endswith(domain)
