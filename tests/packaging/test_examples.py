# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Texts of the example DAGs in Airflow: each param has a help text, and each link has a valid target."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

EXAMPLES = sorted(Path(__file__).parents[2].glob("example_dags/example_*.py"))
IDS = [path.stem for path in EXAMPLES]


@pytest.mark.parametrize("path", EXAMPLES, ids=IDS)
def test_each_param_has_a_help_text(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    params = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Param"]
    without = [
        ast.unparse(call) for call in params if "description" not in {each.arg for each in call.keywords}
    ]
    assert without == []


@pytest.mark.parametrize("path", EXAMPLES, ids=IDS)
def test_its_text_links_only_to_what_is_there(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    # The documentation is not part of the wheel. A DAG text in Airflow therefore must not link to it.
    assert "docs/" not in text
    targets = re.findall(r"\]\(([^)]+)\)", text)
    there = {f"/dags/{name}" for name in IDS}
    assert [
        each for each in targets if each not in there and not each.startswith("https://docs.faceki.com/")
    ] == []
