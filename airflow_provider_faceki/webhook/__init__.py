# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Receiver of FACEKI's webhooks, mounted in Airflow's API server.

The module ``app`` receives and answers a request, ``auth`` authenticates the sender, ``api/protocol/webhook.py`` parses
the body, and ``events`` stores an event. Only ``plugins/faceki.py`` imports these modules, and only in the API server.
"""
