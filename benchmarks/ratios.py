"""Ratios of times, in rows of results: nnet is so many times as fast as ..."""

TORCH = ("torch", "torch-channels-last")


def ratios(row):
    """How many times as fast as each library nnet is, and as the better of PyTorch's two."""
    times = dict(row["seconds"])
    own = times.pop("nnet")
    found = {library: seconds / own for library, seconds in times.items()}
    if set(TORCH) <= set(found):
        found["better"] = min(found[library] for library in TORCH)
    return found


def without_loops(rows):
    """All but those of the case that is there for the Python loops."""
    told = {row["case"] for row in rows if "loops" in row["seconds"]}
    return [row for row in rows if row["case"] not in told]


def label(row):
    threads = row["threads"]
    return f"{row['case']}, {row['operation']}, {threads} thread{'s' * (threads > 1)}"


def compared(data, other):
    """By how much nnet is faster in `data` than in `other`: {label: ratio}."""
    theirs = {label(row): row["seconds"]["nnet"] for row in without_loops(other["results"])}
    return {
        label(row): theirs[label(row)] / row["seconds"]["nnet"]
        for row in data["results"]
        if label(row) in theirs
    }
