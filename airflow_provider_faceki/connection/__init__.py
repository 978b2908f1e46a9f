# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The FACEKI Connection: its fields, its form, and its checked settings."""
