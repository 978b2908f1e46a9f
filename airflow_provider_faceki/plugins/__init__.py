# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Airflow plugins of the provider."""
