# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The documentation pages agree with the code."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.api import uploads
from airflow_provider_faceki.api.arguments import DEFAULT_LOOKUP_TIMEOUT_SECONDS
from airflow_provider_faceki.api.codes import CODES, RETAKE_SELFIE
from airflow_provider_faceki.api.protocol import auth, session
from airflow_provider_faceki.api.tokens import shared
from airflow_provider_faceki.api.transport import adapter
from airflow_provider_faceki.batch import (
    error_guard,
    lease,
    parquet,
    row_processor,
    rows,
    runner,
    verify,
)
from airflow_provider_faceki.charged_call import MAX_SUSPENSION_SECONDS
from airflow_provider_faceki.connection.schema import SPECS
from airflow_provider_faceki.get_provider_info import get_provider_info
from airflow_provider_faceki.hooks import workflow_rules
from airflow_provider_faceki.operators.batch import FacekiBatchVerificationOperator, _BatchOperator
from airflow_provider_faceki.operators.verification import DEFAULT_RESUBMIT_AFTER_SECONDS
from airflow_provider_faceki.triggers import shared_poller
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


def test_the_batch_page_lists_exactly_the_words_for_errors_of_rows() -> None:
    page = (ROOT / "docs/batch.md").read_text()
    table = page.partition("## Error codes of rows")[2].partition("\n## ")[0]
    told = set(re.findall(r"`([A-Z_]+)`", table))
    of_errors = {word for _, word, _ in rows._ERRORS}
    assert told == of_errors | {
        "BAD_ROW",
        "NO_IDENTIFIER",
        "BAD_IDENTIFIER",
        "STORAGE",
        "DUPLICATE_IDENTIFIER",
    }


def test_the_quickstart_shows_the_keys_of_a_summary() -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs/quickstart.md").read_text(), re.DOTALL)
    assert json.loads(shown).keys() == api.VerificationRecord({}).summary().keys()


KIB, MIB = 1024, 1024 * 1024


def default(name: str) -> object:
    return SPECS[name].default


def batch_default(name: str) -> object:
    return inspect.signature(_BatchOperator.__init__).parameters[name].default


def verification_default(name: str) -> object:
    return inspect.signature(FacekiBatchVerificationOperator.__init__).parameters[name].default


#: Page, sentence, and the numbers in the sentence: each constant with its value on the page.
NUMBERS: list[tuple[str, str, list[tuple[object, object]]]] = [
    ("billing", "`upload_timeout` (120 s)", [(default("upload_timeout"), 120)]),
    ("billing", "for `lookup_timeout` seconds (60)", [(DEFAULT_LOOKUP_TIMEOUT_SECONDS, 60)]),
    ("billing", "`resubmit_after` seconds (150)", [(DEFAULT_RESUBMIT_AFTER_SECONDS, 150)]),
    ("billing", "about the last two seconds", [(runner.FLUSH_SECONDS, 2)]),
    ("billing", "is more than five minutes before the time", [(row_processor.CLOCK_MARGIN_SECONDS, 300)]),
    ("cost", "1 every ten minutes", [(workflow_rules.CACHE_TTL_SECONDS, 600)]),
    ("faq", "than `resubmit_after` (150 s)", [(DEFAULT_RESUBMIT_AFTER_SECONDS, 150)]),
    ("faq", "within five minutes", [(shared_poller.CLIENT_TTL_SECONDS, 300)]),
    ("connection", "within five minutes", [(shared_poller.CLIENT_TTL_SECONDS, 300)]),
    ("connection", "is valid for one hour", [(auth.DEFAULT_LIFETIME_SECONDS, 3600)]),
    ("connection", "look for the token four times a second", [(shared.POLL_SECONDS, 0.25)]),
    ("connection", "wait half a minute", [(session.MAX_LOCK_WAIT_SECONDS, 30)]),
    ("connection", "hangs for more than 5 s", [(shared.MAX_OPERATION_SECONDS, 5)]),
    ("connection", "For one minute, the process", [(shared.SUSPEND_SECONDS, 60)]),
    ("executors", "`resubmit_after` seconds (150)", [(DEFAULT_RESUBMIT_AFTER_SECONDS, 150)]),
    ("executors", "more than 180 s plus `max_wait`", [(MAX_SUSPENSION_SECONDS, 180)]),
    ("batch", "`resubmit_after` seconds (150)", [(DEFAULT_RESUBMIT_AFTER_SECONDS, 150)]),
    ("batch", "FACEKI refuses 20 rows with the same error", [(error_guard.MIN_ALIKE, 20)]),
    ("batch", "for 20 consecutive rows", [(error_guard.MIN_ALIKE, 20)]),
    ("batch", "the limit is 50 rows", [(error_guard.MIN_ALIKE_LATER, 50)]),
    ("batch", "at least 100 rows are finished", [(runner.MIN_ROWS_FOR_ERROR_RATE, 100)]),
    ("batch", "the first ten error rows", [(runner.MAX_LOGGED_ERRORS, 10)]),
    ("batch", "one every ten minutes", [(workflow_rules.CACHE_TTL_SECONDS, 600)]),
    ("batch", "for `lookup_timeout` seconds (30)", [(verification_default("lookup_timeout"), 30)]),
    ("batch", "in flight at once (default 16)", [(batch_default("concurrency"), 16)]),
    ("batch", "`max_concurrency` (32)", [(default("max_concurrency"), 32)]),
    (
        "batch",
        "every two seconds, or after 1000 rows",
        [(runner.FLUSH_SECONDS, 2), (runner.FLUSH_LINES, 1000)],
    ),
    (
        "batch",
        "of at most `4 * concurrency` rows, but never of more than 200 rows",
        [(verify.INTENTS_PER_THREAD, 4), (verify.MAX_INTENTS_AT_ONCE, 200)],
    ),
    ("batch", "more than 256 MiB", [(parquet.MAX_PAGES_BYTES, 256 * MIB)]),
    ("batch", "If a value has more than 64 KiB", [(parquet.MAX_CELL_BYTES, 64 * KIB)]),
    ("batch", "more than 4 KiB on average", [(parquet.MAX_AVERAGE_CELL_BYTES, 4 * KIB)]),
    ("batch", "older than five seconds", [(lease.MAX_UNCHECKED_SECONDS, 5)]),
    ("batch", "part of an image (64 KiB)", [(uploads.CHUNK_BYTES, 64 * KIB)]),
    ("batch", "at most about 256 KiB that are not sent yet", [(adapter.MAX_UNSENT_BYTES, 256 * KIB)]),
    (
        "batch",
        "at most `concurrency` rows at the same time (16 by default)",
        [(batch_default("concurrency"), 16)],
    ),
    ("batch", "at most `6 * concurrency` rows", [(verify.INTENTS_PER_THREAD + 2, 6)]),
    ("executors", "about 256 KiB at most", [(adapter.MAX_UNSENT_BYTES, 256 * KIB)]),
    ("decisions/file-token-store", "the other hosts wait 30 s", [(session.MAX_LOCK_WAIT_SECONDS, 30)]),
    ("decisions/file-token-store", "After two minutes a lock", [(shared.MAX_LOCK_AGE_SECONDS, 120)]),
    ("decisions/batch-journal", "up to 200 rows", [(verify.MAX_INTENTS_AT_ONCE, 200)]),
    ("decisions/requests-in-threads", "(default 32)", [(default("max_concurrency"), 32)]),
]


@pytest.mark.parametrize(("page", "sentence", "numbers"), NUMBERS)
def test_a_number_on_a_page_is_the_one_in_the_code(
    page: str, sentence: str, numbers: list[tuple[object, object]]
) -> None:
    text = " ".join((ROOT / f"docs/{page}.md").read_text().split())
    assert sentence in text
    assert [constant for constant, _ in numbers] == [told for _, told in numbers]


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
    assert f"<!-- source {digest} -->" in source.with_suffix(".svg").read_text(), "run `make diagrams`"


def test_each_promise_of_security_names_a_test() -> None:
    table = (ROOT / "SECURITY.md").read_text().partition("## What is promised")[2].partition("\n## ")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ") and not row.startswith("| against")]
    assert len(rows) > 15
    for row in rows:
        (path, name) = re.findall(r"`(tests/\S+)::(\w+)`", row)[0]
        assert re.search(rf"^def {name}\b", (ROOT / path).read_text(), re.MULTILINE), row
