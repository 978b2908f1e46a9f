# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The calls of the FACEKI API, grouped by topic into modules. The module `table` lists all routes."""
