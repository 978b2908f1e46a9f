# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How does the sandbox sleep? In earnest, also while a test has put something else in the place of asyncio's sleep.

It lives in the process of the test. If its sleeps cost nothing it would spin, and hold up the very test.
"""

from __future__ import annotations

from asyncio import tasks

#: Not `asyncio.sleep`: that is the name which tests replace.
nap = tasks.sleep
