"""Tables of what the benchmarks measured, on a terminal and in benchmarks/results/.

All ratios say: nnet is so many times as fast as ...

    python benchmarks/report.py conv.json pool.json ... --results benchmarks/results
"""

import argparse
import json
import re
import statistics
from pathlib import Path

import plot
import targets
from ratios import TORCH, ratios, without_loops

LABELS = {
    "loops": "Python loops",
    "numpy": "NumPy",
    "copy": "copy",
    "pairs": "pairs",
    "one-thread": "1 thread",
    "torch": "PyTorch",
    "torch-channels-last": "channels_last",
    "onnxruntime": "onnxruntime",
    "scipy": "SciPy",
    "opencv": "OpenCV",
    "openvino": "OpenVINO",
    "before": "before",
    "better": "the better",
}
RESULTS = "## Results\n"  # what follows it in README.md is replaced
OF_AREA = ("better", "onnxruntime", "openvino", "scipy", "opencv", "before")


def show(data, markdown):
    """Print machine, tables and targets; in Markdown if asked."""
    lines = [f"{name}: {value}" for name, value in data["machine"].items()]
    print("\n".join(f"- {line}" if markdown else line for line in lines))
    for title, lines, notes in sections(data):
        print(f"\n{'### ' * markdown}{title}\n")
        print(text_of(lines, markdown))
        print("".join(f"\n{note}\n" for note in notes), end="")
    if found := targets.of([data]):
        print(f"\n{'### ' * markdown}targets\n")
        print(text_of(targets.table(found), markdown))


def sections(data):
    """The tables of one benchmark: (title, lines of texts, notes below)."""
    all_rows = data.get("results", [])
    for threads in sorted({row["threads"] for row in all_rows}):
        peak = data["fma_peak_gflops"].get(str(threads))
        rows = [row for row in without_loops(all_rows) if row["threads"] == threads]
        lines = table(rows, peak)
        notes = [
            about_loops(row)
            for row in all_rows
            if row["threads"] == threads and "loops" in row["seconds"]
        ]
        yield title(data, threads, peak), lines, notes
    for name, rows in data.get("figures", {}).items():
        lines = [list(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
        yield f"{data['benchmark']}: {name}", lines, []


def title(data, threads, peak):
    text = f"{data['benchmark']}, {data['dtype']}, {threads} thread{'s' * (threads > 1)}, "
    if data["limited to"]:
        text += f"limited to {data['limited to']}, "
    if peak:
        return text + f"measured FMA peak {peak:.0f} GFLOP/s"
    return text + "FMA peak unknown: no C compiler"


def about_loops(row):
    times = row["seconds"]
    return (
        f"{row['case']}, {row['operation']}: compiled {ms(times['nnet'])} ms, "
        f"Python loops {ms(times['loops'])} ms: {ratios(row)['loops']:,.0f} times as fast"
    )


# --- tables -------------------------------------------------------------------


def table(rows, peak):
    """A list of lines, each a list of texts; the first one is the head."""
    units = list(dict.fromkeys(unit for row in rows for unit in row["rates"]))
    libraries = [lib for lib in LABELS if any(lib in row["seconds"] for row in rows)]
    versus = [lib for lib in LABELS if any(lib in ratios(row) for row in rows)]
    if "better" in versus:
        versus.remove(TORCH[1])
    head = ["case", "operation", "nnet ms", *units]
    head += ["of peak"] * ("GFLOP/s" in units)
    head += [f"{LABELS[lib]} ms" for lib in libraries]
    head += ["over 5 ms"] * ("one-thread" in libraries)
    head += [f"vs {LABELS[lib]}" for lib in versus]
    lines = [head]
    for row in rows:
        times = row["seconds"]
        line = [row["case"], row["operation"], ms(times["nnet"])]
        rates = {unit: amount / times["nnet"] for unit, amount in row["rates"].items()}
        line += [f"{rates[unit]:,.0f}" if unit in rates else "" for unit in units]
        if "GFLOP/s" in units:
            line.append(share(rates.get("GFLOP/s"), peak))
        line += [ms(times[lib]) if lib in times else "" for lib in libraries]
        if "one-thread" in libraries:
            line.append("yes" if times["one-thread"] > targets.LONG_SECONDS else "")
        found = ratios(row)
        lines.append(line + [f"{found[lib]:.2f}" if lib in found else "" for lib in versus])
    if not versus:
        return lines
    blank = [""] * (len(head) - len(versus) - 2)
    return lines + [
        [what, operation, *blank, *values] for what, operation, values in summary(rows, versus)
    ]


def summary(rows, versus):
    """What the ratios of each operation, and of all of them, come to: (name, operation, texts)."""
    operations = list(dict.fromkeys(row["operation"] for row in rows))
    found = {op: [ratios(row) for row in rows if row["operation"] == op] for op in operations}
    if len(operations) > 1:
        found["all"] = [r for of_operation in found.values() for r in of_operation]
    for name, compute in (
        ("geometric mean", lambda values: f"{statistics.geometric_mean(values):.2f}"),
        ("lowest", lambda values: f"{min(values):.2f}"),
        ("below 1.0", lambda values: f"{sum(v < 1 for v in values)}/{len(values)}"),
    ):
        for operation, all_ratios in found.items():
            columns = [[r[library] for r in all_ratios if library in r] for library in versus]
            yield name, operation, [compute(values) if values else "" for values in columns]


def share(rate, peak):
    if rate is None:
        return ""
    return f"{rate / peak:.0%}" if peak else "n/a"


def ms(seconds):
    """Milliseconds in three digits or more."""
    return cell(1e3 * seconds)


def cell(value):
    """A number in three digits or more; anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def text_of(lines, markdown):
    """The lines below each other, texts to the left and numbers to the right."""
    columns = list(zip(*lines))
    left = [any(" " in text or text[:1].isalpha() for text in column[1:]) for column in columns]
    if markdown:
        lines = [lines[0], ["---" if is_left else "---:" for is_left in left], *lines[1:]]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    widths = [max(map(len, column)) for column in columns]
    rows = []
    for line in lines:
        cells = [
            text.ljust(width) if is_left else text.rjust(width)
            for text, width, is_left in zip(line, widths, left)
        ]
        rows.append("  ".join(cells).rstrip())
    return "\n".join(rows)


# --- files --------------------------------------------------------------------


def full_tables(all_data):
    """Machine, targets, and every table folded under what it comes to, in Markdown."""
    first = all_data[0]
    parts = [f"# Results of {first['date']}"]
    parts.append("\n".join(f"- {name}: {value}" for name, value in first["machine"].items()))
    parts.append(text_of(targets.table(targets.of(all_data)), markdown=True))
    for data in all_data:
        for heading, lines, notes in sections(data):
            changed = [
                f"{name}: {value}"
                for name, value in data["machine"].items()
                if value != first["machine"].get(name)
            ]
            means = [line[-1] for line in lines if line[0] == "geometric mean"]
            of_all = [f"geometric mean {means[-1]} {lines[0][-1]}"] if means else []
            parts.append(
                f"<details><summary>{', '.join([heading, *changed, *of_all])}</summary>\n\n"
                f"{text_of(lines, markdown=True)}\n\n</details>"
            )
            parts += filter(None, notes)
    return "\n\n".join(parts) + "\n"


def by_area(all_data):
    """What the ratios to each library come to, in each benchmark: a list of lines of texts."""
    lines = [["area", "dtype", "against", "threads", "geometric mean", "lowest", "cases"]]
    for data in all_data:
        rows = without_loops(data.get("results", []))
        for library in OF_AREA if not data["limited to"] else ():
            for threads in sorted({row["threads"] for row in rows}):
                found = [
                    ratios(row)[library]
                    for row in rows
                    if row["threads"] == threads and library in ratios(row)
                ]
                if found:
                    mean = f"{statistics.geometric_mean(found):.2f}"
                    name = "PyTorch" if library == "better" else LABELS[library]
                    texts = name, str(threads), mean, f"{min(found):.2f}", str(len(found))
                    lines.append([data["benchmark"], data["dtype"], *texts])
    return lines


def name_of(data):
    """Of the files of a run: its date and its processor."""
    words = re.findall(r"[a-z0-9]+", data["machine"].get("CPU", "").lower())
    return "-".join([data["date"], *words])


def write_results(all_data, folder, readme):
    """The numbers, the tables and the picture, and what README.md says of them."""
    folder.mkdir(exist_ok=True)
    stem = folder / name_of(all_data[0])
    stem.with_suffix(".json").write_text(json.dumps(all_data) + "\n")
    stem.with_suffix(".md").write_text(full_tables(all_data))
    plot.plot(all_data[0], stem.with_suffix(".svg"))
    place = f"{folder.name}/{stem.name}"
    before = readme.read_text().split(RESULTS)[0]
    machine = all_data[0]["machine"]
    readme.write_text(
        f"{before}{RESULTS}\n{all_data[0]['date']}, {machine.get('CPU', 'CPU unknown')}, "
        f"nnet {machine.get('nnet', '')}: [all tables]({place}.md), [numbers]({place}.json).\n\n"
        f"{text_of(by_area(all_data), markdown=True)}\n\n![ratios by shape]({place}.svg)\n"
    )


def read(path):
    """The results of a program, or those of a whole run: a list."""
    data = json.loads(path.read_text())
    return data if isinstance(data, list) else [data]


def main():
    parser = argparse.ArgumentParser(description="Results of the benchmarks' --json files.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER", help="write them there, and the README above it"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the first file's ratios")
    options = parser.parse_args()
    all_data = [data for path in options.files for data in read(path)]
    if options.plot:
        plot.plot(all_data[0], options.plot)
    if options.results:
        write_results(all_data, options.results, options.results.parent / "README.md")
    else:
        print(full_tables(all_data), end="")


if __name__ == "__main__":
    main()
