# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The calls of FACEKI's API, with one class for each current call, and ``RawCall`` for all other calls.

Each module contains one group of related calls.
"""
