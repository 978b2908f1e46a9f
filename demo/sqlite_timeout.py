# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Settings for the connections of the demonstration's Airflow to its SQLite database.

`demo/airflow_stack.py` copies this file into the folder `config` of the Airflow home. Airflow imports it from there.
"""

from __future__ import annotations

import sys

# If another process writes to the database, SQLite by default waits 5 s and then raises an error. On a slow disk, for
# example, a write can take longer than 5 s. The error would end the scheduler, the triggerer and the DAG processor.
# Therefore these three processes wait 120 s. The API server waits only 5 s, because it can have a deadlock: one request
# waits for the database and blocks the event loop, and the request that has locked the database waits for the event
# loop. Only the error after the waiting time ends this deadlock.
connect_args = {"timeout": 5.0 if "api-server" in sys.argv else 120.0}
