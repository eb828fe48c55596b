"""Estimators in workers: how many threads they use, and on a Dask cluster."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")

import joblib

import nnet
from nnet import CNNClassifier, dispatch
from nnet.estimators import threads

# As scikit-learn's searches run the estimators, with a parent that asks for 8 threads; and how
# many a fit in a worker and one in the parent afterwards use.
PROBE = """
import json, os, sys, time
import numpy as np
import joblib
import nnet
from nnet import CNNClassifier, dispatch
from sklearn.base import clone

X, y = np.arange(60.0).reshape(20, 3), np.arange(20) % 2

class Probe(CNNClassifier):
    def _fit(self, network, *data):
        self.used_ = dispatch.get_num_threads()
        super()._fit(network, *data)

def used(n_threads=None, pause=0.2):
    time.sleep(pause)  # so that every worker gets some
    return Probe(max_iter=1, n_threads=n_threads).fit(X, y).used_

def nested():
    with joblib.parallel_config("threading"):
        return joblib.Parallel(n_jobs=2)(joblib.delayed(used)() for _ in range(2))

def main():
    found = {}
    for backend in ("loky", "threading", "multiprocessing"):
        with joblib.parallel_config(backend):
            parallel = joblib.Parallel(n_jobs=2)
            found[backend] = parallel(joblib.delayed(used)() for _ in range(4))
            found[backend + ", given"] = parallel(joblib.delayed(used)(3) for _ in range(2))
    with joblib.parallel_config("loky"):
        found["nested"] = joblib.Parallel(n_jobs=2)(joblib.delayed(nested)() for _ in range(2))
        found["one job"] = joblib.Parallel(n_jobs=1)(joblib.delayed(used)() for _ in range(1))
    with joblib.parallel_config("loky", inner_max_num_threads=3):
        found["inner"] = joblib.Parallel(n_jobs=2)(joblib.delayed(used)() for _ in range(2))
    found["parent"] = used()
    found["cpus"] = joblib.cpu_count()
    print(json.dumps(found))
"""


def run_probe(run_python, tmp_path, **environment):
    """Workers import what they run from a file."""
    (tmp_path / "probe.py").write_text(PROBE)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import probe; probe.main()"
    done = run_python(code, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not nnet._runtime.THREADS, reason="built without threads")
def test_workers_share_the_processors(run_python, tmp_path):
    found = run_probe(run_python, tmp_path, OMP_NUM_THREADS="8")
    share = max(found["cpus"] // 2, 1)
    assert found["loky"] == [share] * 4
    assert found["threading"] == found["multiprocessing"] == [1] * 4
    assert found["nested"] == [[1, 1]] * 2
    for backend in ("loky", "threading", "multiprocessing"):
        assert found[f"{backend}, given"] == [3, 3]
    assert found["inner"] == [3, 3]
    assert (found["one job"], found["parent"]) == ([8], 8)


def test_no_worker_has_no_share():
    assert threads.share_of_worker() is None


@pytest.mark.parametrize("limit, share", [("3", 3), ("0", 1), ("two", 1), ("", 1)])
def test_share_in_a_process_of_loky(monkeypatch, limit, share):
    class Backend:
        nesting_level = 1

    class Process:
        name = "LokyProcess-1"

    monkeypatch.setattr(threads, "get_active_backend", lambda: (Backend, None))
    monkeypatch.setattr(threads, "current_process", lambda: Process)
    for name in threads.LOKY_LIMITS:
        monkeypatch.setenv(name, "16")
    monkeypatch.setenv("MKL_NUM_THREADS", limit)
    expected = share if limit.isdecimal() else 16
    assert threads.share_of_worker() == expected
    for name in threads.LOKY_LIMITS:
        monkeypatch.setenv(name, limit)
    assert threads.share_of_worker() == share


@pytest.mark.parametrize("nesting_level, share", [(None, None), (0, None), (1, 3), (2, 1), (3, 1)])
def test_workers_within_workers_have_one_thread(monkeypatch, nesting_level, share):
    """On two processors their share was 1 in any case."""

    class Backend:
        pass

    class Process:
        name = "LokyProcess-1"

    Backend.nesting_level = nesting_level
    monkeypatch.setattr(threads, "get_active_backend", lambda: (Backend, None))
    monkeypatch.setattr(threads, "current_process", lambda: Process)
    for name in threads.LOKY_LIMITS:
        monkeypatch.setenv(name, "3")
    assert threads.share_of_worker() == share


def threads_of(estimator, X):
    """How many threads kernels may use while an estimator predicts."""
    estimator.network_.predict = lambda images: dispatch.get_num_threads()
    return estimator.predict(X)


@pytest.mark.skipif(not nnet._runtime.THREADS, reason="built without threads")
def test_threads_of_predictions():
    X, y = np.arange(60.0).reshape(20, 3), np.arange(20) % 2
    fitted = CNNClassifier(max_iter=1, n_threads=1).fit(X, y)
    with dispatch.num_threads(4):
        assert threads_of(fitted, X) == threads_of(fitted, X.tolist()) == 1
        assert threads_of(fitted.set_params(n_threads=3), X) == 3
        assert threads_of(fitted.set_params(n_threads=None), X) == 4
    with joblib.parallel_config("threading"):
        parallel = joblib.Parallel(n_jobs=2)
        assert parallel(joblib.delayed(threads_of)(fitted, X) for _ in range(2)) == [1, 1]
    with pytest.raises(ValueError, match="n_threads is 0, expected"):
        fitted.set_params(n_threads=0).predict(X)


def test_only_the_first_thread_of_the_first_process_is_no_worker(monkeypatch):
    assert threads.is_no_worker()
    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(threads.is_no_worker).result()
    monkeypatch.setattr(threads, "parent_process", lambda: "the parent")
    assert not threads.is_no_worker()


def test_bits_do_not_depend_on_threads():
    rng = np.random.default_rng(0)
    X, y = rng.random((80, 32 * 32)).astype(np.float32), np.arange(80) % 2
    found = [
        CNNClassifier(max_iter=1, random_state=0, n_threads=n).fit(X, y).predict_proba(X)
        for n in (1, 2, None)
    ]
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


# --- Dask -------------------------------------------------------------------------------

SEARCH = """
import json, os
import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from nnet import CNNClassifier, Conv, Activation, dispatch
from nnet.estimators.threads import share_of_worker

def main():
    from distributed import Client, LocalCluster

    X, y = load_digits(return_X_y=True)
    X, y = X[:300].astype(np.float32), y[:300]
    grid = {"layers": ["conv4-3x3,relu", [Conv(4, 3), Activation("relu")]], "alpha": [0, 0.1]}
    search = GridSearchCV(CNNClassifier(max_iter=4, random_state=0), grid, cv=3)
    serial = search.fit(X, y)
    expected = serial.cv_results_, serial.predict_proba(X)
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client, joblib.parallel_config("dask"):
        assert client.run(share_of_worker).keys() == cluster.scheduler.workers.keys()
        shares = [client.submit(share_of_worker, pure=False).result() for _ in range(2)]
        found = search.fit(X, y)
        own = share_of_worker()
    for name in expected[0]:
        if name.endswith("test_score"):
            assert np.array_equal(found.cv_results_[name], expected[0][name]), name
    assert np.array_equal(found.predict_proba(X), expected[1])
    print(json.dumps([shares, own]))
"""


def test_searches_on_dask_find_the_same_bits(run_python, tmp_path):
    """A cluster of two worker processes, in an interpreter of its own."""
    pytest.importorskip("distributed")
    (tmp_path / "search.py").write_text(SEARCH)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import search; search.main()"
    done = run_python(code, OMP_NUM_THREADS="8")
    assert done.returncode == 0, done.stderr
    shares, own = json.loads(done.stdout.splitlines()[-1])
    assert shares == [1, 1] and own is None
