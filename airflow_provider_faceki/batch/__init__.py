# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Verify or fetch all rows of a manifest with bounded memory. A batch can be resumed and bills each row only once."""
