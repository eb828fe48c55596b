"""nnet/dispatch.py: which target runs, how many threads, and what show_config says of them."""

import io
import os
import sys
from pathlib import Path

import pytest

import nnet
from nnet import _runtime, dispatch

SHOW = """
import nnet
from nnet import dispatch
print(dispatch.TARGET, nnet.get_num_threads(), dispatch._threads_why, sep="|")
"""


@pytest.fixture
def restore_threads():
    """Whatever a test sets, the next finds the old count."""
    before = dispatch._threads, dispatch._threads_why
    yield
    dispatch._threads, dispatch._threads_why = before


def started(run_python, **variables):
    """(target, threads, why) of a new process with these environment variables."""
    done = run_python(SHOW, **variables)
    assert done.returncode == 0, done.stderr
    target, threads, why = done.stdout.strip().split("|")
    return target, int(threads), why


# --- targets ------------------------------------------------------------------


def test_fastest_supported_target_is_the_default(run_python):
    supported = [t for t in dispatch.built_targets() if _runtime.supports(t)]
    for variables in ({}, {"NNET_TARGET": ""}):
        assert started(run_python, **variables)[0] == supported[-1]


def test_every_door_leads_to_the_chosen_target(run_python, kernels):
    done = run_python(
        f"""
import nnet, nnet._conv, nnet._dense, nnet._pool
from nnet.dispatch import TARGET, load
assert TARGET == {kernels.target!r}
assert nnet._conv.conv_bc01 is nnet.conv_bc01 is load("_conv")[0] is load("_conv", TARGET)[0]
assert nnet._conv.bprop_conv_bc01 is nnet.bprop_conv_bc01 is load("_conv", TARGET)[1]
assert nnet._pool.pool_bc01 is nnet.pool_bc01 is load("_pool", TARGET)[0]
assert nnet._pool.bprop_pool_bc01 is nnet.bprop_pool_bc01 is load("_pool", TARGET)[1]
dense = tuple(getattr(nnet._dense, each.__name__) for each in load("_dense"))
assert dense == load("_dense") == load("_dense", TARGET)
""",
        NNET_TARGET=kernels.target,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("first", ["nnet._conv", "nnet._pool", "nnet.dispatch", "nnet.geometry"])
def test_any_module_may_be_imported_first(run_python, first):
    done = run_python(f"import {first}; import nnet; nnet.conv_bc01, nnet.pool_bc01")
    assert done.returncode == 0, done.stderr


def test_unknown_target(run_python):
    done = run_python("import nnet", NNET_TARGET="sse9")
    assert done.returncode == 1
    assert "ValueError: NNET_TARGET is 'sse9', expected one of ('baseline'" in done.stderr


def test_target_that_is_not_built(monkeypatch):
    monkeypatch.setenv("NNET_TARGET", "avx512")
    monkeypatch.setattr(dispatch, "built_targets", lambda: ("baseline",))
    with pytest.raises(ImportError, match=r"NNET_TARGET is 'avx512', but nnet was built only for"):
        dispatch._choose_target()


def test_target_that_this_cpu_lacks(monkeypatch):
    monkeypatch.setattr(dispatch, "built_targets", lambda: dispatch.TARGETS)
    monkeypatch.setattr(_runtime, "supports", lambda target: target == "baseline")
    assert dispatch._choose_target()[0] == "baseline"
    monkeypatch.setenv("NNET_TARGET", "avx2")
    with pytest.raises(RuntimeError, match="NNET_TARGET is 'avx2', but this CPU cannot run it"):
        dispatch._choose_target()


def test_broken_target_is_not_passed_over(run_python):
    """The import error of a supported target shows; a slower one does not step in."""
    target = started(run_python)[0]
    if target == "baseline":
        pytest.skip("only the baseline target runs here")
    done = run_python(f"""
import importlib.abc, sys

class Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name == "nnet._conv_{target}":
            return importlib.machinery.ModuleSpec(name, self)
    def exec_module(self, module):
        raise ImportError("a symbol is missing")

sys.meta_path.insert(0, Broken())
import nnet
""")
    assert done.returncode == 1 and "ImportError: a symbol is missing" in done.stderr


def test_cpu_knows_every_target_and_no_other():
    assert _runtime.supports("baseline") is True
    assert all(_runtime.supports(target) in (True, False) for target in dispatch.TARGETS)
    assert not _runtime.supports("avx512") or _runtime.supports("avx2")
    with pytest.raises(KeyError):
        _runtime.supports("sse9")


# --- thread counts ------------------------------------------------------------

threads = pytest.mark.skipif(not _runtime.THREADS, reason="built without threads")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")


@threads
@pytest.mark.parametrize(
    "variables, threads, why",
    [
        ({"NNET_NUM_THREADS": "3"}, 3, "NNET_NUM_THREADS"),
        ({"NNET_NUM_THREADS": " 3 "}, 3, "NNET_NUM_THREADS"),
        ({"NNET_NUM_THREADS": "3", "OMP_NUM_THREADS": "2"}, 3, "NNET_NUM_THREADS"),
        ({"NNET_NUM_THREADS": "", "OMP_NUM_THREADS": "5"}, 5, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "4,2"}, 4, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "1"}, 1, "OMP_NUM_THREADS"),
    ],
    ids=str,
)
def test_environment(run_python, variables, threads, why):
    assert started(run_python, **variables)[1:] == (threads, why)


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "4,2", "\u00b2", "1e2", "9" * 30])
def test_bad_environment(run_python, value):
    done = run_python("import nnet", NNET_NUM_THREADS=value, PYTHONUTF8="1")
    assert done.returncode == 1
    assert "ValueError: NNET_NUM_THREADS is" in done.stderr and "expected" in done.stderr


@pytest.mark.parametrize("value", ["0", "-1", "many", ",", "9" * 30])
def test_what_openmp_ignores_is_ignored(run_python, value):
    """OMP_NUM_THREADS is not ours: what libgomp warns of and passes over is no error here."""
    assert started(run_python, OMP_NUM_THREADS=value)[1:] == started(run_python)[1:]


@linux
def test_affinity(run_python):
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" + SHOW
    done = run_python(code)
    assert done.stdout.split("|")[1:] == ["1", "CPUs of the affinity mask\n"], done.stderr


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


CGROUPS = {
    "v2 root": ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
    "v2 without a quota": ("0::/\n", {"cpu.max": "max 100000\n"}, None),
    "v2 fraction": ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
    "v2 less than one": ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
    "v2 nested": ("0::/a/b\n", {"a/b/cpu.max": "300000 100000\n"}, 3),
    "v2 parent binds": (
        "0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "400000 100000\n"}, 4
    ),
    "v2 smallest binds": (
        "0::/a/b\n",
        {"a/b/cpu.max": "800000 100000\n", "a/cpu.max": "300000 100000\n",
         "cpu.max": "500000 100000\n"},
        3,
    ),
    "v2 a neighbour's quota": ("0::/a\n", {"b/cpu.max": "100000 100000\n"}, None),
    "v2 seen from inside a container": ("0::/docker/1f\n", {"cpu.max": "200000 100000\n"}, 2),
    "v2 outside of the namespace": ("0::/../x\n", {"cpu.max": "200000 100000\n"}, 2),
    "v1": (
        "4:cpu,cpuacct:/\n0::/\n",
        {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"},
        3,
    ),
    "v1 without a quota": (
        "4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None
    ),
    "v1 nested": (
        "4:memory:/m\n3:cpuset:/s\n2:cpu,cpuacct:/a/b\n1:name=systemd:/x\n",
        {"cpu/a/cpu.cfs_quota_us": "600000\n", "cpu/a/cpu.cfs_period_us": "100000\n",
         "cpu/a/b/cpu.cfs_quota_us": "-1\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"},
        6,
    ),
    "v1 seen from inside a container": (
        "4:cpu:/docker/1f\n",
        {"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "50000\n"},
        3,
    ),
    "a path with a colon": ("0::/a:b\n", {"a:b/cpu.max": "200000 100000\n"}, 2),
    "nonsense": ("0::/\n", {"cpu.max": "lots\n"}, None),
    "zeros": ("0::/\n", {"cpu.max": "0 0\n"}, None),
    "empty": ("", {}, None),
    "garbled membership": ("hello\n\n7\n", {"cpu.max": "200000 100000\n"}, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", CGROUPS)
def test_container_quota(tmp_path, name):
    membership, files, expected = CGROUPS[name]
    write(tmp_path, {"membership": membership, **{f"root/{k}": v for k, v in files.items()}})
    found = dispatch._cgroup_cpus(str(tmp_path / "root"), str(tmp_path / "membership"))
    assert found == expected


def test_container_quota_without_membership(tmp_path):
    write(tmp_path, {"cpu.max": "200000 100000\n"})
    assert dispatch._cgroup_cpus(str(tmp_path), str(tmp_path / "none")) == 2
    assert dispatch._cgroup_cpus(str(tmp_path / "none"), str(tmp_path / "none")) is None


def test_quota_below_the_affinity_decides(monkeypatch):
    monkeypatch.delenv("NNET_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for quota, threads, why in (
        (3, 3, "the container's CPU quota"),
        (8, 8, "CPUs of the affinity mask"),
        (None, 8, "CPUs of the affinity mask"),
    ):
        monkeypatch.setattr(dispatch, "_cgroup_cpus", lambda quota=quota: quota)
        assert dispatch._default_threads() == (threads, why)
    monkeypatch.delattr(os, "sched_getaffinity")
    assert dispatch._default_threads() == (os.cpu_count(), "CPUs of the machine")


@threads
def test_set_and_get(restore_threads):
    for n_threads in (3, 1, 2):
        nnet.set_num_threads(n_threads)
        assert nnet.get_num_threads() == n_threads


@pytest.mark.parametrize("value, error", [(0, ValueError), (-2, ValueError), (10**9, ValueError),
                                          (2**70, ValueError), (1.0, TypeError), ("2", TypeError),
                                          (None, TypeError), ((2,), TypeError)])  # fmt: skip
def test_bad_counts_change_nothing(restore_threads, value, error):
    before = nnet.get_num_threads()
    for call in (nnet.set_num_threads, lambda n: nnet.num_threads(n).__enter__()):
        with pytest.raises(error, match="n_threads is .*, expected"):
            call(value)
        assert nnet.get_num_threads() == before


@threads
def test_context_restores(restore_threads):
    nnet.set_num_threads(2)
    with nnet.num_threads(3):
        assert nnet.get_num_threads() == 3
        with nnet.num_threads(1):
            assert nnet.get_num_threads() == 1
        assert nnet.get_num_threads() == 3
        nnet.set_num_threads(4)  # the process's number: it shows after the context
        assert nnet.get_num_threads() == 3
    assert nnet.get_num_threads() == 4
    with pytest.raises(KeyError, match="inside"), nnet.num_threads(5):
        raise KeyError("inside")
    assert nnet.get_num_threads() == 4


def test_nnet_brings_no_openmp(run_python):
    done = run_python("""
import nnet
assert nnet._runtime.openmp_runtimes() == [], nnet._runtime.openmp_runtimes()
assert nnet._runtime.openmp_limit(0) == 0
nnet.show_config()
""")
    assert "OpenMP loaded: none\n" in done.stdout, done.stderr


@threads
@pytest.mark.parametrize("imports", ["nnet, sklearn", "sklearn, nnet"])
def test_threadpoolctl_limits_count(run_python, imports):
    """Limits that others set on OpenMP bind, and lifting them lets go: whoever brings it."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    for variables in ({"NNET_NUM_THREADS": "4", "OMP_NUM_THREADS": "8"}, {"OMP_NUM_THREADS": "4"}):
        done = run_python(
            f"import {imports}"
            """
import threadpoolctl
print(nnet.get_num_threads())
with threadpoolctl.threadpool_limits(1):
    print(nnet.get_num_threads())
    nnet.show_config()
with threadpoolctl.threadpool_limits(3, user_api="openmp"):
    print(nnet.get_num_threads())
with threadpoolctl.threadpool_limits(1, user_api="blas"):
    print(nnet.get_num_threads())
print(nnet.get_num_threads())
""",
            **variables,
        )
        lines = done.stdout.splitlines()
        assert [line for line in lines if line.isdigit()] == ["4", "1", "3", "4", "4"], done.stderr
        assert any(line.startswith("threads:") and "OpenMP's limit" in line for line in lines)
        assert any(line.startswith("OpenMP loaded:") and "lib" in line for line in lines)


@threads
@pytest.mark.parametrize("first", ["nnet.get_num_threads()", ""])
def test_limits_count_from_the_first_call_on(run_python, first):
    """Also where the runtime came after a call that found none, and the limit before any call."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    done = run_python(
        f"""
import nnet, threadpoolctl
{first}
import sklearn
with threadpoolctl.threadpool_limits(1):
    print(nnet.get_num_threads(), nnet.dispatch.call_threads(), nnet.dispatch.call_threads(3))
print(nnet.get_num_threads())
""",
        NNET_NUM_THREADS="4",
    )
    assert done.stdout == "1 1 3\n4\n", done.stderr


@threads
def test_omp_set_num_threads_counts_in_its_thread(run_python):
    """As OpenMP has it. Of several runtimes the least counts."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    done = run_python(
        """
import ctypes
import threading
import nnet, sklearn

path, *others = nnet._runtime.openmp_runtimes()
assert not others
library = ctypes.CDLL(path)
library.omp_set_num_threads(2)
print(nnet.get_num_threads())
thread = threading.Thread(target=lambda: print(nnet.get_num_threads()))
thread.start()
thread.join()
library.omp_set_num_threads(7)
print(nnet.get_num_threads())
""",
        NNET_NUM_THREADS="4",
        OMP_NUM_THREADS="6",
    )
    assert done.stdout.split() == ["2", "4", "4"], done.stderr


@linux
@threads
def test_forked_child_starts_threads_of_its_own(run_python):
    """Also where the fork came during a call: the child has none of the parent's threads."""
    done = run_python("""
import os, threading, warnings
import numpy as np
import nnet
warnings.simplefilter("ignore")
imgs, filters = np.ones((32, 8, 32, 32), np.float32), np.ones((8, 16, 5, 5), np.float32)
expected = nnet.conv_bc01(imgs, filters, n_threads=3)
stop = threading.Event()

def call():
    while not stop.is_set():
        nnet.conv_bc01(imgs, filters, n_threads=3)

caller = threading.Thread(target=call)
caller.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        before = len(os.listdir("/proc/self/task"))
        same = np.array_equal(nnet.conv_bc01(imgs, filters, n_threads=3), expected)
        started = len(os.listdir("/proc/self/task")) - before
        os._exit(0 if same and started == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
caller.join()
print("done")
""")
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("value, error", [(0, ValueError), (-1, ValueError), (2**40, ValueError),
                                          (2.0, TypeError), ("2", TypeError)])  # fmt: skip
def test_counts_of_one_call(value, error):
    with pytest.raises(error, match="n_threads is .*, expected"):
        dispatch.call_threads(value)
    assert dispatch.call_threads(1) == 1


# --- the report ---------------------------------------------------------------


def test_show_config(restore_threads, capsys):
    nnet.set_num_threads(1)
    report = io.StringIO()
    assert nnet.show_config(file=report) is None
    assert capsys.readouterr().out == ""
    rows = dict(line.split(":", 1) for line in report.getvalue().splitlines())
    rows = {name: value.strip() for name, value in rows.items()}
    assert rows["nnet"] == nnet.__version__
    assert rows["target"].split()[0] == dispatch.TARGET
    assert rows["targets built"].split(", ") == list(dispatch.built_targets())
    runtimes = [Path(path).name for path in _runtime.openmp_runtimes()]
    assert rows["OpenMP loaded"] == (", ".join(runtimes) or "none")
    assert rows["threads"].startswith("1 (")
    assert rows["compiler"].startswith(("gcc ", "clang "))
    assert rows["Python"] == sys.version.split()[0] and rows["NumPy"]
    nnet.show_config()
    assert capsys.readouterr().out == report.getvalue()


def test_sources_without_compiled_modules_say_what_to_do(run_python, tmp_path):
    package = tmp_path / "nnet"
    package.mkdir()
    for name in ("__init__.py", "dispatch.py"):
        (package / name).write_text((Path(nnet.__file__).parent / name).read_text())
    result = run_python(
        # The finder of an editable install would find the modules all the same.
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'ditable' not in str(f)];"
        "import nnet",
        PYTHONPATH=str(tmp_path),
    )
    assert "ImportError: no compiled modules in" in result.stderr
    assert "pip install -e ." in result.stderr
