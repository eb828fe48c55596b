#!/usr/bin/env bash
# Whether a weighted mean divides by the sum of the weights or by their number depends on the loss.
#
# mse_loss and l1_loss divide by the sum: weights that are all 2 change nothing. huber_loss, which
# takes weights too, and binary_cross_entropy divide by the number: the loss doubles.
# cross_entropy does the one for labels and the other for the same labels as one-hot rows.
# Who exchanges one loss for its neighbour, or labels for probabilities, changes the learning rate.
#
# nnet: every loss divides by the sum of the weights; only their ratios matter.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'END'
import torch
from torch.nn.functional import (
    binary_cross_entropy_with_logits, cross_entropy, huber_loss, l1_loss, mse_loss,
)

print("torch", torch.__version__)
zeros, twos, one_hot = torch.zeros(2, 2), torch.full((2, 2), 2.0), torch.eye(2)
labels = one_hot.argmax(1)


def of_classes(target):
    return lambda weight: cross_entropy(zeros, target, None if weight is None else weight[0])


calls = {
    "mse_loss": (lambda weight: mse_loss(zeros, one_hot, weight=weight), 1),
    "l1_loss": (lambda weight: l1_loss(zeros, one_hot, weight=weight), 1),
    "huber_loss": (lambda weight: huber_loss(zeros, one_hot, weight=weight), 2),
    "binary_cross_entropy_with_logits": (
        lambda weight: binary_cross_entropy_with_logits(zeros, one_hot, weight=weight), 2,
    ),
    "cross_entropy of labels": (of_classes(labels), 1),
    "cross_entropy of one-hot rows": (of_classes(one_hot), 2),
}
for name, (call, expected) in calls.items():
    ratio = (call(twos) / call(None)).item()
    print(f"{name}: {call(None).item():.4f}, with weights of 2 {call(twos).item():.4f}")
    assert abs(ratio - expected) < 1e-6, name
END
