# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Send requests and sleep: the only half of the API package that does I/O."""
