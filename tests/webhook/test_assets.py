# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Name and URI of the asset."""

from __future__ import annotations

import pytest

from airflow_provider_faceki.assets import faceki_verifications


@pytest.mark.parametrize("conn_id", ["faceki_default", "Faceki-2.eu", "1", "_x", "a" * 200])
def test_name_and_uri(conn_id: str) -> None:
    asset = faceki_verifications(conn_id)
    assert asset.uri == f"faceki://{conn_id}/verifications"
    assert getattr(asset, "name", asset.uri) == asset.uri
    assert asset == faceki_verifications(conn_id)


def test_default() -> None:
    assert faceki_verifications().uri == "faceki://faceki_default/verifications"


@pytest.mark.parametrize(
    "conn_id",
    [
        "",
        " ",
        "a b",
        "a/b",
        "a:b",
        "a@b",
        "a#b",
        "a?b",
        "(a)",
        "a\\b",
        "a!",
        "-a",
        ".a",
        "..",
        "ä",
        "a\n",
        "a" * 201,
    ],
)
def test_refused(conn_id: str) -> None:
    with pytest.raises(
        ValueError, match=r"conn_id: found .*, which cannot be part of the asset's URI; allowed are"
    ):
        faceki_verifications(conn_id)
