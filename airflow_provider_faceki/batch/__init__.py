# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Verify or fetch the rows of whole manifests: bounded memory, resumable, each row billed once."""
