# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Time for which a process of the demonstration's Airflow waits for its SQLite database.

`demo/airflow_stack.py` copies this file into the folder `config` of the Airflow home. Airflow imports it from there.
"""

from __future__ import annotations

import sys

# If another process writes to the database, SQLite by default waits 5 s and then raises an error. This error ends the
# scheduler, the triggerer and the DAG processor, for example if a slow disk makes a write longer than 5 s. Therefore
# they wait 120 s. The API server keeps the 5 s: one of its requests that has locked the database can wait for the event
# loop, while the event loop waits for the database. Only the error after the timeout ends this deadlock.
connect_args = {"timeout": 5.0 if "api-server" in sys.argv else 120.0}
