"""What the project wants to reach, and how far the measured results are from it."""

import statistics
from typing import NamedTuple

from ratios import compared, label, ratios, without_loops


class Target(NamedTuple):
    what: str
    bound: str  # 'at least' or 'at most'
    limit: float
    found: dict  # {label: value}
    of_mean: bool = False  # whether it is the geometric mean that has the bound, or every value

    def misses(self, value):
        return value < self.limit if self.bound == "at least" else value > self.limit

    def line(self):
        """Texts of the columns below."""
        values = self.found.values()
        if self.of_mean:
            value, where = statistics.geometric_mean(values), f"geometric mean of {len(values)}"
            verdict = "missed" if self.misses(value) else "met"
        else:
            worst = min if self.bound == "at least" else max
            where, value = worst(self.found.items(), key=lambda item: item[1])
            n_missed = sum(map(self.misses, values))
            verdict = f"missed by {n_missed} of {len(values)}" if n_missed else "met"
        return [self.what, f"{self.bound} {self.limit:.3g}", f"{value:.2f}", verdict, where]


def table(all_targets):
    """A list of lines, each a list of texts; the first one is the head."""
    head = ["target", "wanted", "measured", "verdict", "of what"]
    return [head, *(target.line() for target in all_targets)]


def of(all_data):
    """The targets that so many results say something about."""
    found = []
    bases = {
        data["benchmark"]: data
        for data in reversed(all_data)
        if data["dtype"] == "float32" and not data["limited to"]
    }
    for data in all_data:
        name, base = data["benchmark"], bases.get(data["benchmark"])
        if data["limited to"]:
            found += of_limited(data)
        elif data["dtype"] == "float64":
            found += of_float64(data, base)
        elif data is base:
            found += OF_BENCHMARK[name](data)
        else:
            found += of_other_compiler(data, base)
    return [target for target in found if target.found]


# --- from rows of ratios ------------------------------------------------------


def versus(rows, library):
    """{label: ratio}"""
    return {label(row): ratios(row)[library] for row in rows if library in ratios(row)}


def each_and_means(name, rows, lowest, mean, library="better"):
    """A bound for every ratio, and one for the mean on each number of threads.

    `mean` is one for all of these, or a dict of one for some.
    """
    found = [Target(f"{name}, every case", "at least", lowest, versus(rows, library))]
    for threads in sorted({row["threads"] for row in rows}):
        on_so_many = [row for row in rows if row["threads"] == threads]
        what = f"{name}, {threads} thread{'s' * (threads > 1)}"
        limit = mean.get(threads) if isinstance(mean, dict) else mean
        if limit is not None:
            found.append(Target(what, "at least", limit, versus(on_so_many, library), of_mean=True))
    return found


def of_conv(data):
    rows = data["results"]
    few = [row for row in rows if row["imgs"][1] <= 3]
    found = each_and_means("convolution", rows, 1.0, 1.5)
    found += each_and_means("convolution, PyTorch's default format", rows, 1.0, 2.5, "torch")[1:]
    found += each_and_means("convolution, 1 to 3 channels", few, 2.0, 2.0)
    return found + [
        Target(f"{operation}, share of the FMA peak", "at least", limit, peaks(data, operation))
        for operation, limit in [("forward", 0.85), ("backward", 0.75)]
    ]


def peaks(data, operation):
    """Shares of the peak from 16 channels and 14x14 pixels up: {label: share}."""
    return {
        label(row): row["rates"]["GFLOP/s"]
        / row["seconds"]["nnet"]
        / data["fma_peak_gflops"][str(row["threads"])]
        for row in without_loops(data["results"])
        if row["operation"] == operation and row["imgs"][1] >= 16 and min(row["imgs"][2:]) >= 14
        if str(row["threads"]) in data["fma_peak_gflops"]
    }


def of_pool(data):
    copies = {
        label(row): 1 / ratios(row)["copy"]
        for row in data["results"]
        if "max 2x2" in row["case"] and row["operation"] == "forward" and row["threads"] == 1
        if "copy" in ratios(row)
    }
    found = each_and_means("pooling", data["results"], 1.5, 4.0)
    return [*found, Target("2x2 max-pool, copies of its input", "at most", 3.0, copies)]


def of_filters(data):
    found = []
    for operation, limits in FILTERS.items():
        rows = [row for row in data["results"] if row["operation"] == operation]
        rows = [row for row in rows if any(f" {size}x{size}" in row["case"] for size in limits[2])]
        for library, limit in zip(("scipy", "opencv"), limits):
            what = f"{operation} of an image, {library}"
            found.append(Target(what, "at least", limit, versus(rows, library)))
    return found


def of_train(data):
    normed = {name: [] for name in ("VGG with batch norm", "ResNet", "mobile")}
    plain = []
    for row in data["results"]:
        normed.get(row["case"].partition(" net, ")[0], plain).append(row)
    ratios_of = {name: versus(rows, "better") for name, rows in normed.items()}
    every = {where: ratio for found in ratios_of.values() for where, ratio in found.items()}
    two = ratios_of["VGG with batch norm"] | ratios_of["ResNet"]
    found = each_and_means("training", plain, 1.4, 2.0)
    return [
        *found,
        Target("training with batch norm", "at least", 1.6, every, of_mean=True),
        Target("training with batch norm, VGG and ResNet", "at least", 1.3, two),
        Target("training with batch norm, mobile", "at least", 1.0, ratios_of["mobile"]),
    ]


def of_predict(data):
    one, many = (
        [row for row in data["results"] if row["case"].endswith(case)]
        for case in ("1 image", "256 images")
    )
    return [
        *each_and_means("prediction of one image", one, 1.0, {1: 1.4, 2: 1.3}, "onnxruntime"),
        *each_and_means("prediction of 256 images", many, 1.2, {1: 1.7, 2: 1.5}, "onnxruntime"),
        Target("prediction of one image, OpenVINO", "at least", 1.5, versus(one, "openvino")),
    ]


def of_float64(data, base):
    found = each_and_means(f"{data['benchmark']}, float64", data["results"], 2.0, 2.0)
    if base:
        what = f"{data['benchmark']}, float64 over float32"
        found.append(Target(what, "at least", 0.5, compared(data, base)))
    return found


def of_limited(data):
    name = f"{data['benchmark']}, both limited to {data['limited to']}"
    return each_and_means(name, data["results"], 0.0, 1.0)[1:]


def of_other_compiler(data, base):
    other, own = (d["machine"]["nnet's compiler"] for d in (data, base))
    found = compared(data, base)
    what = f"{data['benchmark']}, {other} over {own}"
    return [
        Target(what, "at least", 0.9, found, of_mean=True),
        Target(f"{what}, every case", "at least", 0.9, found),
    ]


# --- from figures -------------------------------------------------------------


def of_scaling(data):
    found, figures = versus(data["results"], "one-thread"), data["figures"]
    long = {
        label(row) for row in data["results"] if row["seconds"].get("one-thread", 0) > LONG_SECONDS
    }
    beside = {
        f"{row['case']}, {row['library']}": row["slow-down"] / row["fair"]
        for row in figures.get(NEIGHBOUR, [])
        if row["library"] == "nnet"
    }
    exponents = {
        f"{row['case']}, {row['operation']}": row["exponent"] for row in figures.get(GROWTH, [])
    }
    return [
        Target("more threads, calls over 5 ms", "at least", 1.8, {k: found[k] for k in long}),
        # Calls that stay on one thread differ by as much from one moment to the next.
        Target("more threads, all calls (3 % is noise)", "at least", 0.97, found),
        Target("exponents of the time", "at most", 1.05, exponents),
        Target("slow-down by a busy process over its fair share", "at most", 1.0, beside),
    ]


def of_memory(data):
    figures, found = data["figures"], {}
    for row in figures.get(PEAK, []):
        case = f"{row['case']}, {row['threads']} threads"
        found.setdefault(case, {})[row["library"]] = row["peak MB"]
    thirds = {
        case: of_library.pop("nnet") / min(of_library.values())
        for case, of_library in found.items()
        if len(of_library) > 1
    }
    kept = {
        f"{row['case']}, {row['threads']} threads": row["growth"]
        for row in figures.get(SCRATCH, [])
    }
    steady = [row for row in figures.get(STEADY, []) if row["library"] == "nnet"]
    return [
        Target("peak memory of a training, over PyTorch's", "at most", 1 / 3, thirds),
        Target("scratch for 256 images over that for 64", "at most", 1.05, kept),
        Target(
            "KB allocated in a step",
            "at most",
            ALLOCATED_KB,
            {row["case"]: row["allocated KB"] for row in steady},
        ),
        Target(
            "page faults in a step",
            "at most",
            1.0,
            {row["case"]: row["page faults"] for row in steady},
        ),
    ]


def of_estimators(data):
    figures, trained = data["figures"], {}
    for row in figures[ESTIMATORS]:
        case = f"{row['case']}, {row['threads']} threads"
        trained.setdefault(case, {})[row["library"]] = row["trained images/s"]
    times = {
        case: of_library["nnet"] / of_library["skorch"]
        for case, of_library in trained.items()
        if "skorch" in of_library
    }
    costs = {
        f"{row['case']}, {row['call']}, {row['threads']} threads": row["of the network's time"]
        for row in figures[COST]
    }
    seconds = {row["import of"]: row["s"] for row in figures[IMPORTS]}
    imports = {}
    if "skorch" in seconds:
        imports = {
            name: seconds[name] / seconds["skorch"] for name in ("nnet", "nnet's estimators")
        }
    return [
        Target("training, images per second over skorch's", "at least", 2.0, times),
        Target("time of an estimator over the network's", "at most", 1.03, costs),
        Target("import over skorch's", "at most", 0.1, imports),
    ]


def of_optimizers(data):
    found = {
        f"{row['case']}, {row['threads']} thread{'s' * (row['threads'] > 1)}": row["adam / sgd"]
        for row in data["figures"][OPTIMIZERS]
    }
    return [Target("an epoch with Adam, SGD's", "at most", 1.1, found)]


def of_defaults(data):
    """Every run is better than logistic regression, where that is not nearly perfect."""
    above, digits = {}, {}
    for row in data["figures"][DEFAULTS]:
        for way in ("nnet train", "CNNClassifier"):
            mean, lowest = (row.get(f"{way}{what}") for what in (" %", ", lowest"))
            linear = float(row.get("logistic %", 100))
            if mean and linear < NEARLY_ALL:
                above[f"{row['set']}, {way}"] = float(lowest or mean) - linear
            if mean and row["set"] == "digits":
                digits[way] = float(mean)
    return [
        Target("the worst seed's % above logistic regression's", "at least", 0.0, above),
        Target("mean % of the digits", "at least", NEARLY_ALL, digits),
    ]


def of_accuracy(data):
    """Errors of nnet's own choices and of each of its algorithms, where pixels have no offset."""
    errors, differences = {}, {}
    for row in data["figures"][ACCURACY]:
        library = row["library"].partition(",")[0]
        if library == "nnet" and "pixels +" not in row["case"]:
            errors[f"{row['case']}, {row['library']}"] = row["error"]
        if row["library"] == "nnet":
            for what, found in row.items():
                if what.startswith(("alone", "1 and")):
                    same = found == "same bits"
                    differences[f"{row['case']}, {what}"] = 0.0 if same else found
    dense = {where: error for where, error in errors.items() if where.startswith("Linear")}
    convolution = {where: error for where, error in errors.items() if where not in dense}
    return [
        Target("error of a convolution, 1e-7", "at most", 1.8, convolution),
        Target("error of a dense layer, 1e-7", "at most", 2.5, dense),
        Target("alone or in a batch, 1 or 2 threads: difference, 1e-7", "at most", 0, differences),
    ]


FILTERS = {"correlate": (15.0, 1.0, (3, 7, 15)), "maximum": (25.0, 0.4, (3, 7))}
LONG_SECONDS = 5e-3
NEARLY_ALL = 99.0  # % that are right
ALLOCATED_KB = 8.0  # Python's own objects; one channel of one MNIST image takes 3
# Names of tables, which the programs fill
ACCURACY = "errors and differences, 1e-7"
GROWTH = "growth of the time"
NEIGHBOUR = "training beside a busy process"
COST = "what the estimator adds"
DEFAULTS = "accuracy without an option"
ESTIMATORS = "accuracy, time, memory"
IMPORTS = "imports"
OPTIMIZERS = "an epoch beside one with SGD and momentum"
PEAK = "peak of a training"
SCRATCH = "scratch"
STEADY = "a step of training in the steady state"

OF_BENCHMARK = {
    "convolution": of_conv,
    "pooling": of_pool,
    "filters": of_filters,
    "training": of_train,
    "prediction": of_predict,
    "scaling": of_scaling,
    "memory": of_memory,
    "optimizers": of_optimizers,
    "estimators": of_estimators,
    "defaults": of_defaults,
    "accuracy": of_accuracy,
}
