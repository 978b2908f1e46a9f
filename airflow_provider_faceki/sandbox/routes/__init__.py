# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The calls of FACEKI, a module a family; `table` lists them."""
