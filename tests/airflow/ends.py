# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How must each task of the DAG `every_path` end? A search of what it leaves means nothing where it went elsewhere."""

from __future__ import annotations

from tests.airflow.dags.every_path import BROKEN, DEAD_LINKS, FAILS, FAULTS

ENDS = {
    **dict.fromkeys(("makes_link", "makes_link_in_query", "writes_records", "calls"), "success"),
    **dict.fromkeys(("waits_poke", "waits_reschedule", "waits_deferred"), "success"),
    **dict.fromkeys((*FAILS, *BROKEN, *FAULTS, *DEAD_LINKS), "failed"),
    **{f"{name}_deferred": "failed" for name in DEAD_LINKS},
}
