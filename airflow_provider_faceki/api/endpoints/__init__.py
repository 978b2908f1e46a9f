# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The calls of FACEKI's API, as one class for each call. Each module contains one group of related calls."""
