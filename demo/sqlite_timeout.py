# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Time for which a process of the demonstration's Airflow waits for its SQLite database.

`demo/airflow_stack.py` copies this file into the folder `config` of the Airflow home. Airflow imports it from there.
"""

from __future__ import annotations

import sys

# With SQLite's default of 5 s, scheduler, triggerer and DAG processor end if another process writes for longer, for
# example on a slow disk. The API server keeps the default: a request that holds the database possibly waits for the
# event loop, and the event loop for the database. Only the timeout ends this.
connect_args = {"timeout": 5.0 if "api-server" in sys.argv else 120.0}
