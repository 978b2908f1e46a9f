# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Expected end state of each task of `every_path` and `every_image`.

The leak tests search the output of these tasks. If a task ends in another state, it has not run the intended code, and
the search proves nothing.
"""

from __future__ import annotations

from tests.airflow.dags.every_image import BADLY, WELL
from tests.airflow.dags.every_path import BROKEN, DEAD_LINKS, FAILS, FAULTS

_PATHS = {
    **dict.fromkeys(("makes_link", "makes_link_in_query", "writes_records", "calls"), "success"),
    **dict.fromkeys(("waits_poke", "waits_reschedule", "waits_deferred"), "success"),
    **dict.fromkeys((*FAILS, *BROKEN, *FAULTS, *DEAD_LINKS), "failed"),
    **{f"{name}_deferred": "failed" for name in DEAD_LINKS},
}
ENDS = {
    "every_path": _PATHS,
    "every_image": {
        **dict.fromkeys(WELL, "success"),
        **dict.fromkeys(BADLY, "failed"),
        "not_chosen": "skipped",
    },
}
