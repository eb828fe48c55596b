"""The benchmarks run, check what they time, and report what they measured. No timing here."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = ["bench_conv", "bench_pool", "bench_train"]
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="not in this source distribution")


@pytest.fixture
def load(monkeypatch):
    """Imports modules of the benchmarks folder."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return __import__


@pytest.mark.parametrize("name", NAMES)
def test_quick_run_writes_json(name, run_python, tmp_path):
    script, path = str(BENCHMARKS / f"{name}.py"), tmp_path / "results.json"
    argv = [script, "--quick", "--markdown", "--compare", "loops", "numpy", "--json", str(path)]
    code = f"""
        import runpy, sys
        sys.argv = {argv}
        sys.path.insert(0, {str(BENCHMARKS)!r})
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    done = run_python("\n".join(line.strip() for line in code.splitlines()))
    assert done.returncode == 0, done.stderr
    assert "| geometric mean |" in done.stdout
    assert "Python loops" in done.stdout

    data = json.loads(path.read_text())
    assert {"CPU", "OS", "Python", "NumPy", "nnet's compiler", "nnet's target"} <= set(
        data["machine"]
    )
    libraries = {row["case"]: set(row["seconds"]) for row in data["results"]}
    assert libraries == {"tiny": {"numpy", "nnet"}, "tiny, loops": {"loops", "nnet"}}
    for row in data["results"]:
        assert min(row["seconds"].values()) > 0
        assert min(row["rates"].values()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_results_agree(name, load, dtype):
    """Every case's small version: loops, NumPy and compiled."""
    bench, common = load(name), load("common")
    benchmark = bench.BENCHMARK
    smalls = map(benchmark.small, benchmark.cases.values())
    for name, small in {str(small): small for small in smalls}.items():
        common.check(benchmark, "numpy", name, small, dtype)
        common.check(benchmark, "nnet", name, small, dtype)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", [0.01, np.nan])
def test_wrong_result_is_not_timed(name, damage, load):
    bench, common = load(name), load("common")

    def operations(library, case, dtype):
        found = bench.BENCHMARK.operations(library, case, dtype)
        operation, right = found.popitem()

        def wrong():
            arrays = right.result()
            arrays[-1].flat[0] += damage * np.max(np.abs(arrays[-1]))
            return arrays

        found[operation] = right if library == "numpy" else replace(right, result=wrong)
        return found

    benchmark = replace(bench.BENCHMARK, operations=operations)
    with pytest.raises(SystemExit, match="nnet is wrong and was not timed: tiny"):
        common.check(benchmark, "nnet", "tiny", benchmark.tiny_case, np.dtype(np.float32))


def row(operation, **seconds):
    seconds = {library.replace("_", "-"): time for library, time in seconds.items()}
    rates = {"GFLOP/s": 0.05}
    return {"case": "c", "operation": operation, "threads": 1, "rates": rates, "seconds": seconds}


ROWS = [
    row("forward", nnet=0.001, numpy=0.008, torch=0.002, torch_channels_last=0.0005),
    row("forward", nnet=0.001, numpy=0.002, torch=0.008, torch_channels_last=0.0090),
]


def test_table_shows_times_rates_and_ratios(load):
    head, first, second, mean = load("report").table(ROWS, peak=100)
    assert dict(zip(head, first)) == {
        "case": "c",
        "operation": "forward",
        "nnet ms": "1",
        "GFLOP/s": "50",
        "of peak": "50%",
        "NumPy ms": "8",
        "PyTorch ms": "2",
        "channels_last ms": "0.5",
        "vs NumPy": "8.00",
        "vs PyTorch": "2.00",
        "vs the better": "0.50",
    }
    assert second[-3:] == ["2.00", "8.00", "8.00"]
    assert mean == ["geometric mean", "forward", *[""] * 6, "4.00", "4.00", "2.00"]


def test_share_of_an_unknown_peak(load):
    head, first, *_ = load("report").table(ROWS, peak=None)
    assert first[head.index("of peak")] == "n/a"


def test_plot(load, tmp_path):
    pytest.importorskip("matplotlib")
    data = {
        "benchmark": "convolution",
        "dtype": "float32",
        "machine": {"PyTorch": "2"},
        "results": ROWS,
    }
    load("report").plot(data, tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


def test_without_pytorch(load, monkeypatch):
    common, machine = load("common"), load("machine")
    monkeypatch.setattr(machine, "torch_version", lambda: None)
    monkeypatch.setattr("sys.argv", ["bench_conv.py"])
    options = common.parse_options(load("bench_conv").BENCHMARK)
    assert options.compare == ["loops", "numpy"]
    assert machine.describe()["PyTorch"] == "not installed; install PyTorch to compare"
