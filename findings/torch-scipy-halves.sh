#!/usr/bin/env bash
# grid_sample's "nearest" rounds halves to even, so that a shift by half a pixel is not a shift.
#
# Samples at 0.5, 1.5, 2.5 and 3.5 are pixels 0, 2, 2 and 4: every second pixel comes twice and its
# neighbours never, where scipy.ndimage, which rounds halves up, copies 1, 2, 3 and 4. Turns and
# zooms by simple numbers around the centre of an image are full of halves: label maps moved by the
# two differ in whole columns, and those of torch get stripes.
#
# nnet: labels that Rotate, Zoom and Shift move have halves rounded up, as in scipy.ndimage.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 scipy==1.17.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'END'
import numpy as np
import scipy
import torch
from scipy.ndimage import map_coordinates
from torch.nn.functional import grid_sample

print("torch", torch.__version__, "scipy", scipy.__version__)
row, places = np.arange(5.0), np.array([0.5, 1.5, 2.5, 3.5])
grid = torch.zeros(1, 1, 4, 2, dtype=torch.float64)
grid[0, 0, :, 0] = torch.tensor(places / 2 - 1)  # -1 and 1 are the first and the last pixel
image = torch.tensor(row).reshape(1, 1, 1, 5)
of_torch = grid_sample(image, grid, mode="nearest", align_corners=True).flatten().tolist()
of_scipy = map_coordinates(row, [places], order=0).tolist()
print("pixels at", places.tolist(), "in torch", of_torch, "in scipy", of_scipy)
assert of_torch == [0, 2, 2, 4] and of_scipy == [1, 2, 3, 4]
END
