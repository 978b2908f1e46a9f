# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The documentation pages agree with the code."""

from __future__ import annotations

import ast
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.api.codes import CODES, RETAKE_SELFIE
from airflow_provider_faceki.get_provider_info import get_provider_info
from tests.airflow.running import AIRFLOW_3

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_the_error_page_lists_exactly_the_codes_that_are_known() -> None:
    page = (ROOT / "docs/errors.md").read_text()
    told = {
        int(code): (name, error)
        for code, name, error in re.findall(r"^\| (\d+) \| (\S+) \| [^|]+ \| `(\w+)` \|", page, re.MULTILINE)
    }
    assert told == {code: (known.name, known.error.__name__) for code, known in CODES.items()}


def test_the_configuration_page_lists_exactly_the_options_there_are() -> None:
    page = (ROOT / "docs/reference/configuration.md").read_text()
    told = re.findall(r"^\| `\[faceki\] (\w+)` \| `(\w+)` \| ([^.]+\.)", page, re.MULTILINE)
    info: Any = get_provider_info()
    options = info["config"]["faceki"]["options"]
    assert [(name, default, text.replace("`", "")) for name, default, text in told] == [
        (name, option["default"], option["description"]) for name, option in options.items()
    ]


def test_the_error_page_names_the_codes_after_which_another_selfie_may_help() -> None:
    assert sorted(RETAKE_SELFIE) == [5004, *range(8004, 8010), 8018, 8019]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_the_batch_page_lists_exactly_the_columns_there_are() -> None:
    from airflow_provider_faceki.api.tables import TABLES

    page = (ROOT / "docs/batch.md").read_text()
    sections = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^### |\Z)", page, re.MULTILINE | re.DOTALL))
    told = {
        table: re.findall(r"^\| `(\w+)` \| (\w+) \| [^|]+ \| (drop|keep) \|", rows, re.MULTILINE)
        for table, rows in sections.items()
    }
    assert told == {
        table: [(column.name, column.type, "drop" if column.personal else "keep") for column in columns]
        for table, columns in TABLES.items()
    }


def test_each_operator_and_sensor_has_its_page() -> None:
    named = {
        name
        for page in ROOT.glob("docs/*.md")
        if page.name not in ("operators.md", "architecture.md")
        for name in re.findall(r"Faceki\w+(?:Operator|Sensor)\b", page.read_text())
    }
    modules = [
        *ROOT.glob("airflow_provider_faceki/operators/*.py"),
        *ROOT.glob("airflow_provider_faceki/sensors/*.py"),
    ]
    made = {
        name
        for module in modules
        for name in re.findall(r"^class (Faceki\w+(?:Operator|Sensor))\(", module.read_text(), re.MULTILINE)
    }
    assert len(made) == 12
    assert made - {"FacekiOperator"} <= named


@pytest.mark.parametrize(
    "dag",
    [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
        if "with DAG(" in block and (AIRFLOW_3 or "airflow.sdk" not in block)
    ],
)
def test_dags_on_the_pages_are_dags(dag: str) -> None:
    exec(compile(dag, "<page>", "exec"), {})  # noqa: S102 - the pages are part of this repository


def _texts_of_the_package() -> set[str]:
    """Return every text literal of the package. Each part of an f-string is a separate text."""
    return {
        node.value
        for path in (ROOT / "airflow_provider_faceki").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_each_message_of_the_troubleshooting_page_exists() -> None:
    # The last section contains messages of Airflow itself.
    page = (ROOT / "docs/troubleshooting.md").read_text().partition("## Airflow itself")[0]
    names = {name for name in dir(api) if name.endswith("Error")}
    quoted = [
        piece
        for message in re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)
        if message not in names
        for piece in message.split("…")
    ]
    texts = _texts_of_the_package()
    assert len(quoted) > 20
    assert [piece for piece in quoted if not any(piece.strip() in text for text in texts)] == []


@pytest.mark.parametrize("source", sorted(ROOT.glob("docs/diagrams/*.mmd")), ids=lambda path: path.stem)
def test_each_diagram_is_rendered_from_its_text(source: Path) -> None:
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert f"<!-- source {digest} -->" in source.with_suffix(".svg").read_text(), "run `make pictures`"


def test_each_promise_of_security_names_a_test() -> None:
    table = (ROOT / "SECURITY.md").read_text().partition("## What is promised")[2].partition("\n## ")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ") and not row.startswith("| against")]
    assert len(rows) > 15
    for row in rows:
        (path, name) = re.findall(r"`(tests/\S+)::(\w+)`", row)[0]
        assert re.search(rf"^def {name}\b", (ROOT / path).read_text(), re.MULTILINE), row
