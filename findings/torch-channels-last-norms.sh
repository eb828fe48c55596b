#!/usr/bin/env bash
# GroupNorm and BatchNorm2d are wrong far from zero if the tensor is channels_last.
#
# With the memory format that is advised for speed on CPUs, GroupNorm takes the variance as the
# difference of two large numbers: values of a spread of 1 around 10,000 come out with one of more
# than 100. BatchNorm2d, with 65,536 pixels per channel and thread, puts out a third of the spread
# that it should. A contiguous tensor gives 1.000 both times. Nothing warns, and moving a model to
# channels_last is thought to change no results.
#
# nnet: there is one layout, sums are taken in double precision and the mean is subtracted first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'END'
import torch
from torch.nn.functional import batch_norm, group_norm

torch.set_num_threads(1)  # which the sums of batch_norm depend on
print("torch", torch.__version__)
noise = torch.randn(16, 8, 64, 64, generator=torch.Generator().manual_seed(0))
norms = {
    "group_norm": lambda x: group_norm(x, 2),
    "batch_norm": lambda x: batch_norm(x, None, None, training=True),
}
found = {}
for name, norm in norms.items():
    for offset in (0, 10_000):
        for layout in (torch.contiguous_format, torch.channels_last):
            x = (noise + offset).contiguous(memory_format=layout)
            found[name, offset, layout] = spread = norm(x).std().item()
            print(f"{name} at {offset}, {layout}: standard deviation {spread:.3f}")
for (name, offset, layout), spread in found.items():
    if offset == 0 or layout is torch.contiguous_format:
        assert abs(spread - 1) < 1e-3
assert found["group_norm", 10_000, torch.channels_last] > 50
assert found["batch_norm", 10_000, torch.channels_last] < 0.5
END
