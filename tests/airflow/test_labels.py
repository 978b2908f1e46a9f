# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Labels of tasks in Airflow's graph: short, unique for each class, and readable on light and dark pages."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import pytest

MODULES = (
    "operators.faceki",
    "operators.verification",
    "operators.images",
    "operators.reports",
    "operators.batch",
    "operators.branch",
)
#: Maximum number of characters of a label that Airflow's graph shows.
MAX_LABEL_LENGTH = 22
PAGES = {"light": "#ffffff", "dark": "#111111"}


def _classes() -> list[Any]:
    found = []
    for name in (*MODULES, "sensors.faceki"):
        module = import_module(f"airflow_provider_faceki.{name}")
        found += [
            kind
            for label, kind in inspect.getmembers(module, inspect.isclass)
            if kind.__module__ == module.__name__ and label.startswith("Faceki") and label != "FacekiOperator"
        ]
    return found


CLASSES = _classes()


def test_all_are_there() -> None:
    assert len(CLASSES) == 12


@pytest.mark.parametrize("kind", CLASSES)
def test_each_label_is_short_and_its_own(kind: Any) -> None:
    label = kind.custom_operator_name
    assert label.startswith("FACEKI ")
    assert len(label) <= MAX_LABEL_LENGTH
    assert [other.custom_operator_name for other in CLASSES].count(label) == 1


@pytest.mark.parametrize("kind", CLASSES)
def test_the_text_is_readable(kind: Any) -> None:
    # The accessibility guidelines (WCAG) require a contrast of 4.5 to 1 for text.
    assert _contrast(kind.ui_color, kind.ui_fgcolor) >= 4.5


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("kind", CLASSES)
def test_the_box_stands_out_from_the_page(kind: Any, page: str) -> None:
    assert _contrast(kind.ui_color, PAGES[page]) >= 2.5


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
