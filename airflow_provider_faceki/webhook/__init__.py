# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Receiver of FACEKI's webhooks. ``plugins/faceki.py`` mounts the application of ``app.py`` in Airflow's API server."""
