# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What the provider plugs into Airflow itself."""
