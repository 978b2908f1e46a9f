# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The calls of FACEKI's API, with one class for each current call, and one class for all others such as the V2 calls.

Each module contains one group of related calls.
"""
