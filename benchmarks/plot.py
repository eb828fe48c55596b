"""The plot of ratios by shape: right of the line at 1, nnet is faster."""

import statistics

from ratios import TORCH, ratios, without_loops

MEAN = "geometric mean"
FASTER, SLOWER = "#2a7fb8", "#d9622b"
LEAST, MOST = 0.5, 2.0  # what every scale shows


def plot(data, path):
    """A column of bars for each operation, a row for each case; the file's kind is its suffix.

    The bars are the ratios to the better of PyTorch's memory formats, the marks
    those to its default format. Without PyTorch, the bars are the ratios to NumPy.
    """
    import matplotlib

    matplotlib.use("agg")
    # Text as text, and the same picture as the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "nnet"})
    from matplotlib import pyplot

    rows = without_loops(data["results"])
    library = "torch" if any("torch" in row["seconds"] for row in rows) else "numpy"
    rows = [row for row in rows if library in row["seconds"]]
    cases = list(dict.fromkeys(row["case"] for row in rows))
    operations = list(dict.fromkeys(row["operation"] for row in rows))
    figure, all_axes = pyplot.subplots(
        1,
        len(operations),
        sharex=True,
        sharey=True,
        squeeze=False,
        figsize=(3.5 + 3 * len(operations), 2.2 + 0.27 * len(cases)),
        layout="constrained",
    )
    for axes, operation in zip(all_axes[0], operations):
        axes.set_title(operation, fontsize=12)
        draw_bars(axes, [row for row in rows if row["operation"] == operation], library, cases)
    draw_scale(all_axes[0], rows, library)
    all_axes[0][0].set_yticks(range(len(cases) + 1), [*cases, MEAN])
    all_axes[0][0].set_ylim(len(cases) + 0.6, -0.6)
    handles, labels = all_axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    peer = "NumPy"
    if library == "torch":
        peer = f"PyTorch {data['machine']['PyTorch']} in the better of its memory formats"
    figure.suptitle(
        f"{data['benchmark']}, {data['dtype']}: nnet is so many times as fast as {peer}"
    )
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def draw_bars(axes, rows, library, cases):
    """A bar from 1 to the ratio for each case and number of threads, the fewest threads first."""
    threads = sorted({row["threads"] for row in rows})
    height = 0.76 / len(threads)
    for i, n_threads in enumerate(threads):
        chosen = [row for row in rows if row["threads"] == n_threads]
        places = [cases.index(row["case"]) for row in chosen] + [len(cases)]
        places = [place + (i + 0.5) * height - 0.38 for place in places]
        found = [ratios(row) for row in chosen]
        values = with_mean(f.get("better", f[library]) for f in found)
        axes.barh(
            places,
            [value - 1 for value in values],
            height,
            left=1,
            color=[FASTER if value >= 1 else SLOWER for value in values],
            alpha=1.0 if i == 0 else 0.55,
            label=f"{n_threads} thread{'s' * (n_threads > 1)}",
        )
        if any("better" in f for f in found):
            label = "the same for its default format" if i == 0 else None
            defaults = with_mean(f[TORCH[0]] for f in found)
            axes.plot(defaults, places, "k|", markersize=5, markeredgewidth=1, label=label)
    axes.axhline(len(cases) - 0.5, color="black", linewidth=0.5)


def with_mean(values):
    values = list(values)
    return [*values, statistics.geometric_mean(values)]


def draw_scale(all_axes, rows, library):
    """Logarithmic axes whose marks are plain numbers, and the line at 1."""
    from matplotlib.ticker import NullLocator

    values = [ratios(row)[key] for row in rows for key in (library, "better") if key in ratios(row)]
    low, high = min([*values, LEAST]) / 1.15, max([*values, MOST]) * 1.15
    marks = [m * 10.0**e for e in range(-4, 6) for m in (1, 2, 5)]
    marks = [mark for mark in marks if low <= mark <= high]
    for axes in all_axes:
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
        axes.axvline(1, color="black", linewidth=1)
        axes.axvspan(low, 1, color="0.94", zorder=0)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(axis="x", alpha=0.4)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("\u2190 slower   faster \u2192")
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
