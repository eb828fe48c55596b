"""What the benchmarks print and draw. All ratios say: nnet is so many times as fast as ..."""

import statistics

LABELS = {
    "loops": "Python loops",
    "numpy": "NumPy",
    "copy": "copy",
    "torch": "PyTorch",
    "torch-channels-last": "channels_last",
}
TORCH = ("torch", "torch-channels-last")


def show(data, markdown):
    """Print machine, tables and what the loops took; in Markdown if asked."""
    lines = [f"{name}: {value}" for name, value in data["machine"].items()]
    print("\n".join(f"- {line}" if markdown else line for line in lines))
    told = {row["case"] for row in data["results"] if "loops" in row["seconds"]}
    for threads in sorted({row["threads"] for row in data["results"]}):
        peak = data["fma_peak_gflops"].get(threads)
        rows = [row for row in data["results"] if row["threads"] == threads]
        print(f"\n{'### ' * markdown}{title(data, threads, peak)}\n")
        print_table(table([row for row in rows if row["case"] not in told], peak), markdown)
        tell_loops(rows)


def title(data, threads, peak):
    text = f"{data['benchmark']}, {data['dtype']}, {threads} thread{'s' * (threads > 1)}, "
    if peak:
        return text + f"measured FMA peak {peak:.0f} GFLOP/s"
    return text + "FMA peak unknown: no C compiler"


def tell_loops(rows):
    for row in rows:
        if "loops" in row["seconds"]:
            print(
                f"\n{row['case']}, {row['operation']}: compiled {ms(row['seconds']['nnet'])} ms, "
                f"Python loops {ms(row['seconds']['loops'])} ms: "
                f"{ratios(row)['loops']:,.0f} times as fast"
            )


def ratios(row):
    """How many times as fast as each library nnet is, and as the better of PyTorch's two."""
    times = dict(row["seconds"])
    own = times.pop("nnet")
    found = {library: seconds / own for library, seconds in times.items()}
    if set(TORCH) <= set(found):
        found["better"] = min(found[library] for library in TORCH)
    return found


def means(rows):
    """Geometric means of the ratios for each operation: {operation: {library: ratio}}."""
    logs = {}
    for row in rows:
        for library, ratio in ratios(row).items():
            logs.setdefault(row["operation"], {}).setdefault(library, []).append(ratio)
    return {
        operation: {library: statistics.geometric_mean(r) for library, r in by_library.items()}
        for operation, by_library in logs.items()
    }


# --- tables -------------------------------------------------------------------


def table(rows, peak):
    """A list of lines, each a list of texts; the first one is the head."""
    units = list(dict.fromkeys(unit for row in rows for unit in row["rates"]))
    libraries = [lib for lib in LABELS if any(lib in row["seconds"] for row in rows)]
    versus = libraries
    if set(TORCH) <= set(libraries):
        versus = [*[lib for lib in libraries if lib != TORCH[1]], "better"]
    head = ["case", "operation", "nnet ms", *units]
    head += ["of peak"] * ("GFLOP/s" in units)
    head += [f"{LABELS[lib]} ms" for lib in libraries]
    head += [f"vs {LABELS.get(lib, 'the better')}" for lib in versus]
    lines = [head]
    for row in rows:
        times = row["seconds"]
        line = [row["case"], row["operation"], ms(times["nnet"])]
        rates = {unit: amount / times["nnet"] for unit, amount in row["rates"].items()}
        line += [f"{rates[unit]:,.0f}" if unit in rates else "" for unit in units]
        if "GFLOP/s" in units:
            line.append(f"{rates['GFLOP/s'] / peak:.0%}" if peak else "n/a")
        line += [ms(times[lib]) if lib in times else "" for lib in libraries]
        found = ratios(row)
        lines.append(line + [f"{found[lib]:.2f}" if lib in found else "" for lib in versus])
    for operation, mean in means(rows).items():
        blank = [""] * (len(head) - len(versus) - 2)
        found = [f"{mean[lib]:.2f}" if lib in mean else "" for lib in versus]
        lines.append(["geometric mean", operation, *blank, *found])
    return lines


def ms(seconds):
    """Milliseconds in three digits or more."""
    value = 1e3 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def print_table(lines, markdown):
    if markdown:
        lines = [lines[0], ["---", "---", *["---:"] * (len(lines[0]) - 2)], *lines[1:]]
        print("\n".join(f"| {' | '.join(line)} |" for line in lines))
        return
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        cells = [
            text.ljust(width) if i < 2 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths))
        ]
        print("  ".join(cells).rstrip())


# --- plot ---------------------------------------------------------------------


def plot(data, path):
    """Bars of the ratio to PyTorch, or else to NumPy: right of the line nnet is faster."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    rows = [row for row in data["results"] if "loops" not in row["seconds"]]
    library = "torch" if any("torch" in row["seconds"] for row in rows) else "numpy"
    rows = [row for row in rows if library in row["seconds"]]
    cases = list(dict.fromkeys(row["case"] for row in rows))
    operations = list(dict.fromkeys(row["operation"] for row in rows))
    threads = sorted({row["threads"] for row in rows})
    figure, all_axes = pyplot.subplots(
        1,
        len(threads),
        sharex=True,
        sharey=True,
        squeeze=False,
        figsize=(3 + 4 * len(threads), 1.8 + len(cases) * (0.15 + 0.17 * len(operations))),
        layout="constrained",
    )
    for axes, n_threads in zip(all_axes[0], threads):
        axes.set_title(f"{n_threads} thread{'s' * (n_threads > 1)}")
        draw_bars(axes, [row for row in rows if row["threads"] == n_threads], library, cases)
        draw_scale(axes, rows, library)
    all_axes[0][0].set_yticks(range(len(cases)), cases)
    all_axes[0][0].set_ylim(len(cases) - 0.4, -0.6)
    handles, labels = all_axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    version = f" {data['machine']['PyTorch']}" if library == "torch" else ""
    figure.suptitle(
        f"{data['benchmark']}, {data['dtype']}: "
        f"nnet is so many times as fast as {LABELS[library]}{version}"
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_bars(axes, rows, library, cases):
    """From 1 to the ratio, one bar for each operation, and a mark at the ratio to the better."""
    operations = list(dict.fromkeys(row["operation"] for row in rows))
    height = 0.8 / len(operations)
    for i, operation in enumerate(operations):
        chosen = [row for row in rows if row["operation"] == operation]
        places = [cases.index(row["case"]) + (i + 0.5) * height - 0.4 for row in chosen]
        found = [ratios(row) for row in chosen]
        lengths = [f[library] - 1 for f in found]
        axes.barh(places, lengths, height, left=1, color=f"C{i}", label=operation)
        better = [(f["better"], place) for f, place in zip(found, places) if "better" in f]
        if better:
            label = "vs the better of its two memory formats" if i == 0 else None
            axes.plot(*zip(*better), "k|", markersize=9, markeredgewidth=2, label=label)


def draw_scale(axes, rows, library):
    """A logarithmic axis whose marks are plain numbers, and the line at 1."""
    from matplotlib.ticker import NullLocator

    values = [ratios(row)[key] for row in rows for key in (library, "better") if key in ratios(row)]
    low, high = min(values + [0.5]) / 1.15, max(values + [2]) * 1.15
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    marks = [m * 10.0**e for e in range(-4, 6) for m in (1, 2, 5)]
    marks = [mark for mark in marks if low <= mark <= high]
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
    axes.axvline(1, color="black", linewidth=1)
    axes.axvspan(low, 1, color="0.9", zorder=0)
    axes.set_xlabel("\u2190 nnet slower    ratio    nnet faster \u2192")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", alpha=0.4)
    axes.set_axisbelow(True)
