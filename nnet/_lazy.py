"""IMPORTS: the lock around imports inside of functions, for which a fork waits.

CPython has a lock for each module while it is imported. If another thread forks meanwhile, the
child has that lock too but no thread that lets it go: its own import would never end.
"""

import os
from _thread import RLock  # `threading` takes two milliseconds

IMPORTS = RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=IMPORTS.acquire, after_in_parent=IMPORTS.release, after_in_child=IMPORTS.release
    )
