"""How many threads a call may use: together, workers take no more than the processors there are."""

import os
import sys
from contextlib import nullcontext
from multiprocessing import current_process, parent_process
from threading import get_ident, main_thread

from joblib.parallel import get_active_backend

from nnet import dispatch

# What joblib sets for each process of loky: processors over workers, unless the parent's
# environment has a value, which all workers then get undivided. Few have one for all of these.
LOKY_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def use_threads(n_threads):
    """A context in which kernels use so many threads; None: nnet's own rule, a worker's share."""
    if n_threads is None:
        share = share_of_worker()
        if share is None:
            return nullcontext()
        n_threads = min(share, dispatch.get_num_threads())
    return dispatch.num_threads(n_threads)


def is_no_worker():
    """Whether the calling thread plainly is none: the first one of a process of its own.

    Workers are other threads, or children. Asking joblib takes as long as a small network.
    """
    return parent_process() is None and get_ident() == main_thread().ident


def share_of_worker():
    """The most threads that a worker of joblib or Dask may use; None in what is no worker.

    Only loky says how many workers there are, if not in so many words. Threads of joblib, its
    other processes and Dask's tasks have one.
    """
    if is_task_of_dask():
        return 1
    nesting_level = get_active_backend()[0].nesting_level or 0
    if nesting_level == 0:
        return None
    if nesting_level > 1 or not current_process().name.startswith("Loky"):
        return 1
    limits = [os.environ.get(name, "") for name in LOKY_LIMITS]
    return max(min((int(limit) for limit in limits if limit.isdecimal()), default=1), 1)


def is_task_of_dask():
    distributed = sys.modules.get("distributed")  # no worker is without it
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True
