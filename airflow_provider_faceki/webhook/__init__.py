# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""FACEKI calls: a receiver for its webhooks, mounted in Airflow's API server.

Only ``plugins/faceki.py`` imports these modules, and only there. A request passes, in this order: ``door`` (hides the
token), ``callers`` (may they call at all?), ``limits`` (how often, how much, how long?), ``api.webhook`` (what do
they say?), ``events`` (store it). ``app`` is the order.
"""
