# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Stores for the access token of an account, in memory, in a file, or in a storage that several hosts share."""
