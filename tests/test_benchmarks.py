"""The benchmarks run, check what they time, and report what they measured. No timing here."""

import json
import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = ["bench_conv", "bench_pool", "bench_filters", "bench_train", "bench_predict"]
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="not in this source distribution")


@pytest.fixture
def load(monkeypatch):
    """Imports modules of the benchmarks folder."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return __import__


@pytest.fixture
def quick_run(run_python, tmp_path):
    """A function that runs a program with --quick: what it printed, and its JSON."""
    pytest.importorskip("resource", reason="not on Windows")

    def run(name, *options):
        script, path = str(BENCHMARKS / f"{name}.py"), tmp_path / "results.json"
        argv = [script, "--quick", "--markdown", "--json", str(path), *options]
        done = run_python(
            f"import runpy, sys\nsys.argv = {argv}\nsys.path.insert(0, {str(BENCHMARKS)!r})\n"
            "runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, json.loads(path.read_text())

    return run


@pytest.mark.parametrize("name", NAMES)
def test_quick_run_writes_json(name, quick_run):
    printed, data = quick_run(name, "--compare", "loops", "numpy")
    assert "| geometric mean |" in printed
    assert "Python loops" in printed
    assert {"CPU", "OS", "Python", "NumPy", "nnet's compiler", "nnet's target"} <= set(
        data["machine"]
    )
    libraries = {row["case"]: set(row["seconds"]) for row in data["results"]}
    assert libraries == {"tiny": {"numpy", "nnet"}, "tiny, loops": {"loops", "nnet"}}
    for row in data["results"]:
        assert min(row["seconds"].values()) > 0
        assert min(row["rates"].values()) > 0


def test_limited_to_a_target(quick_run):
    printed, data = quick_run("bench_pool", "--target", "baseline", "--compare")
    assert data["limited to"] == data["machine"]["nnet's target"] == "baseline"
    assert "1 thread, limited to baseline" in printed


def test_quick_scaling(quick_run):
    printed, data = quick_run("bench_scaling", "--threads", "2", "--compare")
    assert {row["case"] for row in data["results"]} == {"convolution tiny", "pooling tiny"}
    assert all(set(row["seconds"]) == {"one-thread", "nnet"} for row in data["results"])
    against = {row["case"] for row in data["figures"]["growth of the time"]}
    assert {"convolution against channels", "max pooling against batch"} <= against
    assert "slow-down" in printed or not hasattr(os, "sched_setaffinity")


def test_quick_estimators(quick_run):
    pytest.importorskip("sklearn", "1.6")
    pytest.importorskip("mlxtend")
    _, data = quick_run("bench_estimators", "--compare", "network", "MLPClassifier")
    rows = data["figures"]["accuracy, time, memory"]
    assert [row["library"] for row in rows] == ["network", "MLPClassifier", "nnet"]
    assert all(min(row["seconds"], row["trained images/s"], row["peak MB"]) > 0 for row in rows)
    assert rows[0]["accuracy %"] == rows[2]["accuracy %"]
    assert len(data["figures"]["what the estimator adds"]) == 3
    statements = [row["import of"] for row in data["figures"]["imports"]]
    assert statements == ["nnet", "scikit-learn", "nnet's estimators", "MLPClassifier"]


def test_quick_defaults(quick_run):
    pytest.importorskip("sklearn", "1.6")
    printed, data = quick_run("bench_defaults")
    (row,) = data["figures"]["accuracy without an option"]
    assert row["shape"] == "1x8x8" and row["classes"] == 10 and row["to train"] == 60
    for label in "logistic", "CNNClassifier", "nnet train":
        assert 0 < float(row[f"{label} %"]) <= 100 and row[f"{label} s"] > 0
    assert "the worst seed's % above logistic regression's" in printed


SETS = "shapes", "gratings", "codes", "waves", "motions", "patches, 32 apart", "few", "letters"


@pytest.mark.parametrize("name", SETS)
def test_sets_of_images(name, load):
    """The same each time, and of the classes each a share in both parts."""
    pytest.importorskip("sklearn")
    if name in ("few", "letters", "patches, 32 apart"):
        pytest.importorskip("matplotlib" if name == "letters" else "PIL")
    images = load("images")
    X, X_test, y, y_test = images.split(name)
    assert X.shape[1:] == X_test.shape[1:] and len(X) == len(y) and np.isfinite(X).all()
    assert set(y) == set(y_test) and np.unique(y, return_counts=True)[1].min() >= 10
    assert all(map(np.array_equal, images.split(name), (X, X_test, y, y_test)))


def test_quick_memory(quick_run):
    _, data = quick_run("bench_memory", "--compare")
    (peak,) = data["figures"]["peak of a training"]
    assert 0 < peak["imported MB"] <= peak["peak MB"]
    (step,) = data["figures"]["a step of training in the steady state"]
    assert step["allocated KB"] > 0 and step["page faults"] >= 0
    scratch = data["figures"]["scratch"]
    assert len(scratch) > 3 and all(row["growth"] > 0 for row in scratch)


def test_quick_accuracy(quick_run):
    printed, data = quick_run("bench_accuracy", "--compare", "numpy", "--threads", "1", "2")
    rows = data["figures"]["errors and differences, 1e-7"]
    cases = [row["case"] for row in rows if row["library"] == "numpy"]
    assert cases == ["tiny convolution", *(f"tiny convolution, pixels + {n}" for n in OFFSETS)]
    names = [row["library"] for row in rows if row["case"] == cases[0]]
    assert names[0] == "nnet" and {"nnet, winograd", "numpy"} <= set(names)
    assert all(0 < row["error"] < 5 for row in rows)
    assert {row["alone and in a batch"] for row in rows if "nnet" in row["library"]} == {SAME}
    assert "| error of a convolution, 1e-7 | at most 1.8 |" in printed


OFFSETS, SAME = ("100", "10,000"), "same bits"


@pytest.mark.parametrize(
    "library", ["torch", "torch-channels-last", "onnxruntime", "openvino", "jax"]
)
def test_peers_of_the_accuracy_compute_the_same(library, load):
    for module in load("common").MODULES[library]:
        pytest.importorskip(module)
    bench = load("bench_accuracy")
    for operation, inputs in (("convolution", (3, 4, 5, 6)), ("dense", (3, 20))):
        case = bench.Case(operation, inputs, 5)
        X, W, exact = case.data()
        for make in [*bench.runs(library, case).values(), *bench.runs("nnet", case).values()]:
            assert bench.error_of(make(W, X)(), exact) < 5


def test_differences_of_outputs(load):
    bench = load("bench_accuracy")
    outputs = np.float32([[1, -1], [1, -1]])
    assert bench.difference(outputs, outputs.copy()) == "same bits"
    assert abs(bench.difference(outputs + np.float32(1e-6), outputs) - 10) < 1
    assert bench.error_of(outputs, outputs.astype(float)) == 0


def test_targets_of_the_accuracy(load):
    """nnet's own choices and its algorithms, without offsets; and its bits, always."""
    case, far = "3x3 convolution", "3x3 convolution, pixels + 100"
    same = {"alone and in a batch": "same bits", "1 and 2 threads": "same bits"}
    rows = [
        {"case": case, "library": "nnet", "error": 1.5, **same},
        {"case": case, "library": "nnet, winograd", "error": 1.9, **same},
        {"case": case, "library": "torch", "error": 9.0, **same},
        {"case": far, "library": "nnet", "error": 9.0, **same, "1 and 2 threads": 0.5},
        {"case": "Linear", "library": "nnet", "error": 2.0, **same},
    ]
    data = data_of([], benchmark="accuracy", figures={load("targets").ACCURACY: rows})
    lines = [target.line()[2:] for target in load("targets").of([data])]
    assert lines == [
        ["1.90", "missed by 1 of 2", f"{case}, nnet, winograd"],
        ["2.00", "met", "Linear, nnet"],
        ["0.50", "missed by 1 of 6", f"{far}, 1 and 2 threads"],
    ]


def test_quick_optimizers(quick_run):
    _, data = quick_run("bench_optimizers")
    (row,) = data["figures"]["an epoch beside one with SGD and momentum"]
    assert row["sgd ms"] > 0
    assert all(row[f"{name} / sgd"] > 0 for name in ("adam", "adamw", "rmsprop"))


@pytest.mark.parametrize("name", NAMES)
def test_results_agree(name, load, dtype):
    """Every case's small version: loops, NumPy and compiled."""
    bench, common = load(name), load("common")
    benchmark = bench.BENCHMARK
    smalls = map(benchmark.small, benchmark.cases.values())
    for small in {str(small): small for small in smalls}.values():
        common.check(benchmark, "numpy", str(small), small, dtype)
        common.check(benchmark, "nnet", str(small), small, dtype)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "library", ["torch", "torch-channels-last", "onnxruntime", "openvino", "scipy", "opencv"]
)
def test_peers_compute_the_same(name, library, load):
    bench, common = load(name), load("common")
    benchmark = bench.BENCHMARK
    if library not in benchmark.libraries:
        pytest.skip(f"{name} does not measure {library}")
    modules = [pytest.importorskip(module) for module in common.MODULES[library]]
    smalls = map(benchmark.small, benchmark.cases.values())
    with modules[0].enable_grad() if "torch" in library else nullcontext():
        for small in {str(small): small for small in smalls}.values():
            common.check(benchmark, library, str(small), small, np.dtype(np.float32))


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
    key = {"case": "c", "operation": operation, "threads": 1, "imgs": [8, 3, 16, 16]}
    return {**key, "rates": {"GFLOP/s": 0.05}, "seconds": seconds}


ROWS = [
    row("forward", nnet=0.001, numpy=0.008, torch=0.002, torch_channels_last=0.0005),
    row("forward", nnet=0.001, numpy=0.002, torch=0.008, torch_channels_last=0.0090),
]


def data_of(rows=ROWS, **more):
    """What a benchmark writes."""
    machine = {"PyTorch": "2", "nnet's compiler": "gcc"}
    data = {"benchmark": "convolution", "dtype": "float32", "limited to": None, "date": "today"}
    return {**data, "machine": machine, "fma_peak_gflops": {"1": 100}, "results": rows, **more}


def test_table_shows_times_rates_and_ratios(load):
    head, first, second, *summary = load("report").table(ROWS, peak=100)
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
    blank = [""] * 6
    assert summary == [
        ["geometric mean", "forward", *blank, "4.00", "4.00", "2.00"],
        ["lowest", "forward", *blank, "2.00", "2.00", "0.50"],
        ["below 1.0", "forward", *blank, "0/2", "0/2", "1/2"],
    ]


def test_share_of_an_unknown_peak(load):
    head, first, *_ = load("report").table(ROWS, peak=None)
    assert first[head.index("of peak")] == "n/a"


def test_targets_met_and_missed(load):
    targets = load("targets")
    lines = {line[0]: line[1:] for line in targets.table(targets.of([data_of()]))}
    where = "c, forward, 1 thread"  # both rows have this name, the last one counts
    assert lines["convolution, every case"] == ["at least 1", "8.00", "met", where]
    assert lines["convolution, 1 thread"][:3] == ["at least 1.5", "8.00", "met"]

    target = targets.Target("t", "at most", 1.05, {"a": 1.0, "b": 2.0, "c": 1.5})
    assert target.line() == ["t", "at most 1.05", "2.00", "missed by 2 of 3", "b"]
    assert target._replace(of_mean=True).line()[2:] == ["1.44", "missed", "geometric mean of 3"]


def test_targets_of_networks_with_batch_norm(load):
    """They have bounds of their own."""
    names = ["MNIST", "VGG with batch norm", "ResNet", "mobile"]
    times = [0.002, 0.0014, 0.002, 0.0012]
    rows = [
        row("epoch", nnet=0.001, torch=time, torch_channels_last=1.0)
        | {"case": f"{name} net, batch 32"}
        for name, time in zip(names, times)
    ]
    found = load("targets").of([data_of(rows, benchmark="training")])
    assert {target.what: target.line()[1:4] for target in found} == {
        "training, every case": ["at least 1.4", "2.00", "met"],
        "training, 1 thread": ["at least 2", "2.00", "met"],
        "training with batch norm": ["at least 1.6", "1.50", "missed"],
        "training with batch norm, VGG and ResNet": ["at least 1.3", "1.40", "met"],
        "training with batch norm, mobile": ["at least 1", "1.20", "met"],
    }


def test_targets_between_files(load):
    """float64 and another compiler against float32; a limit to an instruction set."""
    slower = [row("forward", nnet=0.004, torch=0.006, torch_channels_last=0.010)]
    other = {"PyTorch": "2", "nnet's compiler": "clang"}
    found = load("targets").of(
        [
            data_of(),
            data_of(slower, dtype="float64"),
            data_of(slower, machine=other),
            data_of(slower, **{"limited to": "avx2"}),
        ]
    )
    measured = {target.what: target.line()[2] for target in found}
    assert measured["convolution, float64 over float32"] == "0.25"
    assert measured["convolution, clang over gcc"] == "0.25"
    assert measured["convolution, both limited to avx2, 1 thread"] == "1.50"


def test_results_are_written(load, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    readme, results, folder = (tmp_path / name for name in ("README.md", "conv.json", "results"))
    readme.write_text("prose\n\n## Results\n\nold\n")
    results.write_text(json.dumps(data_of(machine={"CPU": "AMD EPYC (4)", "PyTorch": "2"})))
    monkeypatch.setattr("sys.argv", ["report.py", str(results), "--results", str(folder)])
    report = load("report")
    report.main()
    stem = folder / "today-amd-epyc-4"
    assert sorted(folder.iterdir()) == [stem.with_suffix(s) for s in (".json", ".md", ".svg")]
    text = readme.read_text()
    assert text.startswith("prose\n\n## Results\n\ntoday, AMD EPYC (4), nnet ")
    assert "| convolution | float32 | PyTorch | 1 | 2.00 | 0.50 | 2 |" in text
    assert "(results/today-amd-epyc-4.svg)" in text and "old" not in text
    tables = stem.with_suffix(".md").read_text()
    assert "| convolution, every case | at least 1 |" in tables
    assert "geometric mean 2.00 vs the better</summary>" in tables
    assert report.read(stem.with_suffix(".json")) == report.read(results)  # and can be read again


def test_another_version_takes_its_turns(quick_run):
    _, data = quick_run("bench_pool", "--compare", "--before", sys.executable)
    assert all(set(row["seconds"]) == {"before", "nnet"} for row in data["results"])


def test_plot(load, tmp_path):
    pytest.importorskip("matplotlib")
    load("plot").plot(data_of(), tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")
    for i in range(2):
        load("plot").plot(data_of(), tmp_path / f"{i}.svg")
    assert (tmp_path / "0.svg").read_text() == (tmp_path / "1.svg").read_text()


def test_missing_libraries_are_skipped(load, monkeypatch, capsys):
    common, machine = load("common"), load("machine")
    monkeypatch.setitem(common.MODULES, "torch", ("no_such_module",))
    monkeypatch.setattr("sys.argv", ["bench_conv.py"])
    options = common.parse_options(load("bench_conv").BENCHMARK)
    assert options.compare == ["loops", "numpy", "torch-channels-last"][: len(options.compare)]
    assert "torch is skipped: no module no_such_module" in capsys.readouterr().err
    assert machine._version("no-such-package") == "not installed"
