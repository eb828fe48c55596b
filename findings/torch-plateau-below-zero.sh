#!/usr/bin/env bash
# ReduceLROnPlateau never reduces the rate while the metric is negative.
#
# By default an improvement is less than best * (1 - threshold). Below zero that product lies above
# the best value, so a metric that stands still, or slowly gets worse, improves at every step, and
# `best` gets worse with it; with mode "max" it is the same. Log-likelihoods and R2 scores are
# such metrics: a training goes on at its first rate for ever, and nothing says so.
#
# nnet: ReduceOnPlateau subtracts threshold * abs(best), the same above and below zero.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'END'
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

print("torch", torch.__version__)


def watch(values, mode="min"):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = ReduceLROnPlateau(optimizer, mode, factor=0.5, patience=2)
    for value in values:
        scheduler.step(value)
    return optimizer.param_groups[0]["lr"], scheduler.best


found = {
    "1 for 50 epochs": watch([1.0] * 50),
    "-1 for 50 epochs": watch([-1.0] * 50),
    "-1 for 50 epochs, more is better": watch([-1.0] * 50, "max"),
    "from -1 up to -0.9": watch([-1 + 5e-5 * epoch for epoch in range(2001)]),
}
for what, (rate, best) in found.items():
    print(f"{what}: rate {rate:.2g} after 1, best {best:.2g}")
rates = [rate for rate, best in found.values()]
assert rates[0] < 1e-4 and rates[1:] == [1, 1, 1]
assert found["from -1 up to -0.9"][1] > -0.91
END
