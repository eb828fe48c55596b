"""Which compiled kernels run, and on how many threads: decided here, once.

The same Cython source is built for several instruction sets ("targets"). The
best one that this processor supports is chosen at import; `NNET_TARGET` forces
another. Thread counts come from, in this order: the `num_threads` context of
the calling thread or task, `set_num_threads`, `NNET_NUM_THREADS`,
`OMP_NUM_THREADS`, and last the processors that the affinity mask and the
container's CPU quota leave this process. A limit that was set on an OpenMP
runtime, such as threadpoolctl sets, holds for all of them.
"""

import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from operator import index
from pathlib import Path

try:
    import nnet._runtime as _runtime
except ModuleNotFoundError:
    raise ImportError(
        f"no compiled modules in {Path(__file__).parent}: these are sources, which "
        "`pip install -e .` in the folder above compiles for this Python; "
        "an nnet that is installed elsewhere is found from other folders"
    ) from None

TARGETS = ("baseline", "avx2", "avx512")  # slowest first
MAX_THREADS = 1024


# --- instruction sets ---------------------------------------------------------


def _module_name(kernel, target):
    return f"nnet.{kernel}" if target == "baseline" else f"nnet.{kernel}_{target}"


def built_targets():
    """The targets that this installation was built for, slowest first."""
    return tuple(t for t in TARGETS if find_spec(_module_name("_conv", t)))


def _choose_target():
    """The target to use, and why."""
    built = built_targets()
    forced = os.environ.get("NNET_TARGET")
    if not forced:
        return [t for t in built if _runtime.supports(t)][-1], "the fastest this CPU supports"
    if forced not in TARGETS:
        raise ValueError(f"NNET_TARGET is {forced!r}, expected one of {TARGETS}")
    if forced not in built:
        raise ImportError(f"NNET_TARGET is {forced!r}, but nnet was built only for {built}")
    if not _runtime.supports(forced):
        raise RuntimeError(f"NNET_TARGET is {forced!r}, but this CPU cannot run it")
    return forced, "NNET_TARGET"


TARGET, _TARGET_WHY = _choose_target()


def load(kernel, target=None):
    """The functions of kernel module '_conv', '_pool' or '_dense' built for a target."""
    return module(kernel, target).KERNELS


def module(kernel, target=None):
    """That module itself.

    An error while a supported target is imported propagates: there is no
    silent fall back to a slower one.
    """
    return import_module(_module_name(kernel, target or TARGET))


# --- threads ------------------------------------------------------------------


def _cgroup_cpus(root="/sys/fs/cgroup", membership="/proc/self/cgroup"):
    """Processors that the container's CPU quota is worth (at least 1), or None without a quota.

    A quota set on any ancestor binds too, so the walk goes up to the root.
    """
    limits = []
    try:
        lines = Path(membership).read_text().splitlines()
    except OSError:
        lines = []
    for line in lines + ["0::/", "0:cpu:/"]:
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        folder = Path(root, path.lstrip("/"))
        if controllers and "cpu" in controllers.split(","):  # cgroup v1
            folder = Path(root, "cpu", path.lstrip("/"))
            sources = ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
            stop = Path(root, "cpu")
        elif not controllers:  # cgroup v2
            sources = ["cpu.max"]
            stop = Path(root)
        else:
            continue
        for place in (folder, *folder.parents):
            try:
                quota, period = " ".join((place / s).read_text() for s in sources).split()
                if quota != "max" and int(quota) > 0 and int(period) > 0:
                    limits.append(max(int(quota) // int(period), 1))
            except (OSError, ValueError):
                pass
            if place == stop:
                break
    return min(limits, default=None)


def _env_threads(name):
    """A thread count from an environment variable, None if unset."""
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    omp = name == "OMP_NUM_THREADS"
    # OpenMP's variable may list one count per nesting level; the first is ours.
    count = text.split(",")[0].strip() if omp else text
    if count.isdecimal() and 1 <= int(count) <= MAX_THREADS:
        return int(count)
    if omp:  # OpenMP itself ignores what it cannot read
        return None
    raise ValueError(f"{name} is {text!r}, expected an integer from 1 to {MAX_THREADS}")


def _default_threads():
    """The thread count of a new process, and why."""
    for name in ("NNET_NUM_THREADS", "OMP_NUM_THREADS"):
        if count := _env_threads(name):
            return count, name
    try:
        cpus, why = len(os.sched_getaffinity(0)), "CPUs of the affinity mask"
    except AttributeError:  # macOS
        cpus, why = os.cpu_count() or 1, "CPUs of the machine"
    quota = _cgroup_cpus()
    if quota is not None and quota < cpus:
        cpus, why = quota, "the container's CPU quota"
    return min(cpus, MAX_THREADS), why


class _Context:
    """What one `num_threads` asks for, until it ends."""

    __slots__ = "n_threads", "ended"

    def __init__(self, n_threads):
        self.n_threads, self.ended = n_threads, False


_threads, _threads_why = _default_threads()  # of the process
# Of this thread or task; the last one rules.
_contexts: ContextVar[tuple[_Context, ...]] = ContextVar("nnet.num_threads", default=())
# What OpenMP's runtimes start with, if it is set: also where NNET_NUM_THREADS overrules it.
_omp_threads = _env_threads("OMP_NUM_THREADS") or 0


def _wanted_threads():
    """The number of threads before other limits, and who asked for it."""
    for context in reversed(_contexts.get()):
        if not context.ended:
            return context.n_threads, "num_threads"
    return _threads, _threads_why


def get_num_threads():
    """The number of threads that a large kernel call uses now.

    Small calls stay on one thread. The results do not depend on it. It is at most what
    threadpoolctl, or omp_set_num_threads, has set on an OpenMP runtime that the process has
    loaded, with scikit-learn for example.
    """
    if not _runtime.THREADS:
        return 1
    n_threads, _ = _wanted_threads()
    return min(n_threads, _runtime.openmp_limit(_omp_threads) or n_threads)


def call_threads(n_threads=None):
    """The number of threads for one kernel call; None stands for `get_num_threads()`.

    Raises
    ------
    ValueError, TypeError
        As `set_num_threads` does.
    """
    n_threads = get_num_threads() if n_threads is None else _as_count(n_threads)
    return n_threads if _runtime.THREADS else 1


def _as_count(n_threads):
    try:
        n_threads = int(index(n_threads))
    except TypeError:
        raise TypeError(f"n_threads is {n_threads!r}, expected an integer") from None
    if not 1 <= n_threads <= MAX_THREADS:
        raise ValueError(f"n_threads is {n_threads}, expected at least 1 and at most {MAX_THREADS}")
    return n_threads


def set_num_threads(n_threads):
    """Set the number of threads of this process's kernel calls.

    It holds in every thread, but for those within a `num_threads` context, where it
    shows after the end of that.

    Raises
    ------
    ValueError
        If `n_threads` is less than 1 or more than 1024.
    TypeError
        If it is not an integer.
    """
    global _threads, _threads_why
    _threads, _threads_why = _as_count(n_threads), "set_num_threads"


@contextmanager
def num_threads(n_threads):
    """A context in which kernel calls use `n_threads` threads.

    It holds for the thread or asyncio task that enters it, and no other but those that
    inherit its context variables while it lasts: tasks that are started within it, and
    `asyncio.to_thread`. Of contexts that overlap, the last one entered rules among those
    that have not ended; they may end in any order, and in any thread.

    Raises
    ------
    ValueError, TypeError
        As `set_num_threads` does.
    """
    context = _Context(_as_count(n_threads))
    try:
        _contexts.set((*_contexts.get(), context))
        yield
    finally:
        context.ended = True  # also for those that have a copy of the tuple
        _contexts.set(tuple(c for c in _contexts.get() if not c.ended))


# --- report -------------------------------------------------------------------


def show_config(file=None):
    """Print the version, the chosen and built targets, threads, OpenMP runtimes and compiler."""
    import numpy

    import nnet

    threads, (wanted, why) = get_num_threads(), _wanted_threads()
    if not _runtime.THREADS:
        why = "built without threads"
    elif threads != wanted:
        why = "OpenMP's limit, set by threadpoolctl or omp_set_num_threads"
    runtimes = [Path(path).name for path in _runtime.openmp_runtimes()]
    rows = {
        "nnet": nnet.__version__,
        "target": f"{TARGET} ({_TARGET_WHY})",
        "targets built": ", ".join(built_targets()),
        "threads": f"{threads} ({why})",
        "OpenMP loaded": ", ".join(runtimes) or "none",
        "compiler": _runtime.COMPILER,
        "Python": sys.version.split()[0],
        "NumPy": numpy.__version__,
    }
    for name, value in rows.items():
        print(f"{name + ':':15}{value}", file=file)
