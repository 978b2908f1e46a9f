# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Names of datasets: the location, without credentials and without identifiers of persons."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_faceki import lineage
from airflow_provider_faceki.lineage import Dataset, Lineage, collect, file_uri, folder_uri


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        pytest.param("s3://aws_default@kyc/people.csv", "s3://kyc/people.csv", id="a Connection"),
        pytest.param("gs://kyc/people.csv", "gs://kyc/people.csv", id="no Connection"),
        pytest.param("abfs://user:secret@box/a.csv", "abfs://box/a.csv", id="a password"),
        pytest.param("/data/people.csv", "file:///data/people.csv", id="a local path"),
        pytest.param("local:///data/people.csv", "file:///data/people.csv", id="the other local scheme"),
        pytest.param("s3://kyc/out/", "s3://kyc/out", id="a folder"),
        pytest.param("https://u:p@host/m.csv?sig=secret#x", "https://host/m.csv", id="a signed address"),
        pytest.param("s3://kyc/a?b#c.csv", "s3://kyc/a?b#c.csv", id="signs of a web address in a key"),
        pytest.param(ObjectStoragePath("file:///data/a.csv"), "file:///data/a.csv", id="a path object"),
        pytest.param("people.csv", None, id="relative"),
        pytest.param("s3:///people.csv", None, id="no bucket"),
        pytest.param("s3://[kyc/people.csv", None, id="not a URI"),
    ],
)
def test_a_file(given: Any, uri: str | None) -> None:
    assert file_uri(given) == uri


@pytest.mark.parametrize(
    ("given", "identifiers", "uri"),
    [
        pytest.param("s3://c@kyc/out/jane.json", ["jane"], "s3://kyc/out", id="the file's name"),
        pytest.param("s3://kyc/out/jane-doe/r.json", ["jane"], "s3://kyc/out", id="a folder's name"),
        pytest.param("s3://kyc/jane/2026/r.json", ["jane"], "s3://kyc", id="folders below it"),
        pytest.param("s3://kyc/j%C3%A4n/r.json", ["jän"], "s3://kyc", id="escaped"),
        pytest.param("s3://kyc/id=7/r.json", [7], "s3://kyc", id="a short one"),
        pytest.param("s3://kyc/2027/r.json", [7], "s3://kyc/2027", id="a short one by chance"),
        pytest.param("s3://kyc/a/link-1/r.json", [{"link": "link-1"}], "s3://kyc/a", id="a mapping"),
        pytest.param(
            "s3://kyc/a/4711-smith/r.json",
            ["/api/v1/persons/4711-smith/documents/1"],
            "s3://kyc/a",
            id="inside an API path",
        ),
        pytest.param(
            "s3://kyc/Jürgen/r.json", ["/persons/J%C3%BCrgen"], "s3://kyc", id="escaped in an API path"
        ),
        pytest.param("s3://kyc/4711-x/r.json", ["4711%2Dx"], "s3://kyc", id="escaped identifier"),
        pytest.param(
            "s3://kyc/XYZ12345/r.json",
            ["https://v.faceki.example/?lang=en&link=XYZ12345"],
            "s3://kyc",
            id="the query of a link",
        ),
        pytest.param(
            "s3://kyc/cases/2026-001/a/r.json", ["c/2026-001/a/b"], "s3://kyc/cases", id="with slashes"
        ),
        pytest.param("s3://kyc/out/r.json", [None, ""], "s3://kyc/out", id="none"),
        pytest.param("r.json", [], None, id="relative"),
        pytest.param("/jane/r.json", ["jane"], None, id="nothing is left"),
        pytest.param("/data/jane/r.json", ["jane"], "file:///data", id="local"),
    ],
)
def test_a_folder(given: str, identifiers: list[object], uri: str | None) -> None:
    assert folder_uri(given, identifiers) == uri


@pytest.mark.parametrize(
    ("image", "uri"),
    [
        pytest.param("s3://p/jane/selfie.jpg", "s3://kyc/a", id="its folder"),
        pytest.param({"front": "s3://p/x/jane.jpg"}, "s3://kyc/a", id="its name"),
        pytest.param("s3://p/x/j%61ne.jpg", "s3://kyc/a", id="its escaped name"),
        pytest.param("https://p/x/jane.jpg?sig=1", "s3://kyc/a", id="its name before a query"),
        pytest.param("s3://kyc/a/2026/1.jpg", "s3://kyc/a/jane", id="not the folders above"),
    ],
)
def test_a_folder_with_the_name_of_an_image(image: object, uri: str) -> None:
    assert folder_uri("s3://kyc/a/jane/r.json", images=[image]) == uri


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        pytest.param("s3://kyc/people.csv", ("s3://kyc", "people.csv"), id="a key"),
        pytest.param("s3://kyc", ("s3://kyc", "/"), id="a bucket"),
        pytest.param("file:///data/people.csv", ("file", "/data/people.csv"), id="local"),
    ],
)
def test_the_name_is_that_of_airflow_s_converters(uri: str, name: tuple[str, str]) -> None:
    from airflow.providers.common.compat.sdk import Asset

    assert lineage._name(uri) == name
    if uri.startswith("s3"):
        from airflow.providers.amazon.aws.assets.s3 import convert_asset_to_openlineage
    else:
        from airflow.providers.common.io.assets.file import convert_asset_to_openlineage
    converted = convert_asset_to_openlineage(Asset(uri), None)
    assert (converted.namespace, converted.name) == name


class Collector:
    """Collector of Airflow's hook lineage."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str, object]] = []

    def add_input_asset(self, context: object, uri: str) -> None:
        self.found.append(("input", uri, context))

    def add_output_asset(self, context: object, uri: str) -> None:
        self.found.append(("output", uri, context))


HOOK = "airflow.providers.common.compat.lineage.hook.get_hook_lineage_collector"


def test_all_datasets_are_added_to_the_hook_lineage(monkeypatch: pytest.MonkeyPatch) -> None:
    collector, context = Collector(), object()
    monkeypatch.setattr(HOOK, lambda: collector)
    collect(Lineage([Dataset("s3://kyc/a")], [Dataset("s3://kyc/b", 3)]), context)
    assert collector.found == [("input", "s3://kyc/a", context), ("output", "s3://kyc/b", context)]


def test_a_failing_lineage_collector_does_not_fail_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("no handler")

    monkeypatch.setattr(HOOK, broken)
    collect(Lineage([Dataset("s3://kyc/a")]), object())
