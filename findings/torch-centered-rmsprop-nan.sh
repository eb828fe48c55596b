#!/usr/bin/env bash
# RMSprop(centered=True) turns weights into NaN when their gradient does not change.
#
# The variance of the gradients is taken as the average square minus the square of the average. For
# a steady gradient both converge to the same number, rounding makes some differences negative, and
# the root of those is NaN; a larger eps does not help, as it is added after the root. Gradients
# between 0.1 and 1 are enough, with the default options, in float32 and in float64 (later). Steady
# gradients are not rare: the bias under an absolute error has one.
#
# nnet: RMSprop takes a negative variance for zero.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'END'
import torch

print("torch", torch.__version__)


def first_nan(dtype, **options):
    """The step after which a weight is NaN, and how many are."""
    weights = torch.zeros(1000, dtype=dtype, requires_grad=True)
    optimizer = torch.optim.RMSprop([weights], centered=True, **options)
    weights.grad = torch.linspace(0.1, 1, 1000, dtype=dtype)
    for step in range(1, 5001):
        optimizer.step()
        n_bad = weights.isnan().sum().item()
        if n_bad:
            return step, n_bad
    return None


for dtype in (torch.float32, torch.float64):
    for options in ({}, {"alpha": 0.5, "eps": 1e-3}):
        found = first_nan(dtype, **options)
        print(f"{dtype}, {options}: (step, weights that are NaN) = {found}")
        assert found is not None
END
