# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Examples that run as they stand; in the wheel they are airflow_provider_faceki.example_dags."""
