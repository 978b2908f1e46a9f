# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Every call of FACEKI, one module for each family."""
