# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Receiver of FACEKI's webhooks, mounted in Airflow's API server.

Only ``plugins/faceki.py`` imports these modules, and only there. ``app`` takes the request and answers it, ``auth``
says who may call, ``api/protocol/webhook.py`` reads the body, ``events`` stores it.
"""
