# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Web addresses of outputs, which are derived without a network."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_faceki.links.cloud_console import address_in, web_address
from tests.object_store import ObjectStore

S3 = ("s3", "s3a")
GCS = ("gs", "gcs")
AZURE = ("abfs", "az", "abfss")
AWS_PAGE, GOOGLE_PAGE = (
    "https://console.aws.amazon.com/s3",
    "https://console.cloud.google.com/storage/browser",
)
GOOGLE = "https://storage.googleapis.com"


@pytest.mark.parametrize(
    ("filesystem", "path", "is_folder", "address"),
    [
        pytest.param(
            {"protocol": S3, "endpoint_url": None},
            "kyc/out/a b.json",
            False,
            f"{AWS_PAGE}/object/kyc?prefix=out/a%20b.json",
            id="S3 file",
        ),
        pytest.param(
            {"protocol": S3, "endpoint_url": None},
            "kyc/out",
            True,
            f"{AWS_PAGE}/buckets/kyc?prefix=out/",
            id="S3 folder",
        ),
        pytest.param(
            {"protocol": S3, "endpoint_url": None},
            "kyc",
            True,
            f"{AWS_PAGE}/buckets/kyc?prefix=",
            id="S3 bucket",
        ),
        pytest.param(
            {"protocol": S3, "endpoint_url": "https://s3.eu-west-1.amazonaws.com"},
            "kyc/a&b#c.json",
            False,
            f"{AWS_PAGE}/object/kyc?prefix=a%26b%23c.json",
            id="S3 by its own address",
        ),
        pytest.param(
            {"protocol": S3, "endpoint_url": "https://minio.example"}, "kyc/a", False, None, id="MinIO"
        ),
        pytest.param({"protocol": S3, "endpoint_url": "https://[x"}, "kyc/a", False, None, id="no address"),
        pytest.param(
            {"protocol": S3, "endpoint_url": "https://amazonaws.com.example"},
            "kyc/a",
            False,
            None,
            id="another host that looks like AWS",
        ),
        pytest.param(
            {"protocol": GCS, "_endpoint": GOOGLE},
            "kyc/out/a.json",
            False,
            f"{GOOGLE_PAGE}/_details/kyc/out/a.json",
            id="GCS file",
        ),
        pytest.param(
            {"protocol": GCS, "_endpoint": GOOGLE}, "kyc/out", True, f"{GOOGLE_PAGE}/kyc/out", id="GCS folder"
        ),
        pytest.param(
            {"protocol": GCS, "_endpoint": "http://localhost:4443"}, "kyc/a", False, None, id="GCS emulator"
        ),
        pytest.param(
            {"protocol": AZURE, "account_name": "acme", "account_host": None},
            "box/out/a.json",
            False,
            "https://acme.blob.core.windows.net/box/out/a.json",
            id="Azure file",
        ),
        pytest.param(
            {"protocol": AZURE, "account_name": "acme", "account_host": "acme.blob.core.usgovcloudapi.net"},
            "box/a.json",
            False,
            "https://acme.blob.core.usgovcloudapi.net/box/a.json",
            id="Azure in another cloud",
        ),
        pytest.param({"protocol": AZURE, "account_name": "acme"}, "box/out", True, None, id="Azure folder"),
        pytest.param({"protocol": AZURE, "account_name": None}, "box/a", False, None, id="Azure, no account"),
        pytest.param({"protocol": ("file", "local")}, "/data/a", False, None, id="a local file"),
    ],
)
def test_address(filesystem: dict[str, Any], path: str, is_folder: bool, address: str | None) -> None:
    assert address_in(SimpleNamespace(**filesystem), path, is_folder=is_folder) == address


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("relative.json", id="relative"),
        pytest.param("nowhere://box/a.json", id="a scheme that nobody provides"),
    ],
)
def test_an_unresolvable_uri_has_no_web_address(uri: str) -> None:
    assert web_address(uri) is None


def test_the_real_filesystem_says_where_it_is(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert web_address(object_store.uri("out/a.json")) is None
    monkeypatch.setenv(
        "AIRFLOW_CONN_AWS_ITSELF",
        '{"conn_type": "aws", "login": "made", "password": "up", "extra": {"region_name": "eu-west-1"}}',
    )
    found = web_address("s3://aws_itself@kyc/out", is_folder=True)
    assert found == f"{AWS_PAGE}/buckets/kyc?prefix=out/"
    assert web_address("s3://kyc/out", "aws_itself", is_folder=True) == found
