# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Example DAGs that run without changes. The wheel contains them as `airflow_provider_faceki.example_dags`."""
