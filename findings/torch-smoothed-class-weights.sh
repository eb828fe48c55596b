#!/usr/bin/env bash
# cross_entropy with class weights and label smoothing is no weighted mean of the images' losses.
#
# The part that smoothing spreads over all classes counts for each class with that class's own
# weight, but the sum is divided by the weights of the targets alone. For three images that are
# equally unsure of all three classes, the loss is log 3 with any weights or with any smoothing,
# but with both it depends on which labels they have: 0.8 times as much here, or 3.7 times. Worse,
# the rare class pulls harder at an image of the common class than that image's own label: a step
# lowers the score of the right answer.
#
# nnet: an image has one weight, its label's; LogRegression multiplies its whole smoothed loss.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'END'
import math

import torch
from torch.nn.functional import cross_entropy

print("torch", torch.__version__)
scores, weights = torch.zeros(3, 3), torch.tensor([1.0, 1.0, 28.0])
common, rare = torch.tensor([0, 0, 0]), torch.tensor([2, 2, 2])


def losses(**options):
    return [cross_entropy(scores, labels, **options).item() for labels in (common, rare)]


print(f"log 3 is {math.log(3):.4f}; labels all common, all rare:")
weighted, smoothed = losses(weight=weights), losses(label_smoothing=0.3)
both = losses(weight=weights, label_smoothing=0.3)
for name, found in (("weights", weighted), ("smoothing", smoothed), ("both", both)):
    print(f"{name}: {found[0]:.4f}, {found[1]:.4f}")
for found in (*weighted, *smoothed):
    assert abs(found - math.log(3)) < 1e-6
scores.requires_grad_()
cross_entropy(scores, common, weight=weights, label_smoothing=0.3).backward()
steps = (-3 * scores.grad[0]).tolist()
print("a step along the gradient adds", [f"{step:+.2f}" for step in steps], "where the label is 0")
assert steps[0] < -0.4 and steps[2] > 1.5
assert abs(both[0] / math.log(3) - (0.7 + 0.1 * 30)) < 1e-5
assert abs(both[1] / math.log(3) - (0.7 + 0.1 * 30 / 28)) < 1e-5
END
