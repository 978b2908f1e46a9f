# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The calls of FACEKI's API, a module for each version of the API, and the hosted page. `table` lists all routes."""
