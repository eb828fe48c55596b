"""IMPORTS: the lock around imports inside of functions, for which a fork waits.

import_package(): a module that nnet can do without, or an error that says what to install.

CPython has a lock for each module while it is imported. If another thread forks meanwhile, the
child has that lock too but no thread that lets it go: its own import would never end.
"""

import os
from _thread import RLock  # `threading` takes two milliseconds
from importlib import import_module

IMPORTS = RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=IMPORTS.acquire, after_in_parent=IMPORTS.release, after_in_child=IMPORTS.release
    )


def import_package(module, package, what):
    """A module of an optional package; if it is missing, an error says what needs it."""
    try:
        with IMPORTS:
            import_module(module.partition(".")[0])  # whatever is left of it in sys.modules
            return import_module(module)
    except ImportError as error:
        message = f"{what} needs the package {package}: pip install {package.lower()}"
        raise ImportError(message, name=error.name) from error
