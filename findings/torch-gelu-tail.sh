#!/usr/bin/env bash
# The exact GELU in float32 has hardly a right digit below -5, and is 0 from -6 on.
#
# It is x times the normal distribution function, computed as 1 + erf, which cancels: at -5 the
# result is 17 % off, at -5.5 57 %, and from -6 on it is 0 where the true -6e-9 is far from the
# smallest float (1e-38); float64 goes the same way, 2 % off at -8. A number alone in its tensor has
# another value than in a row of eight: 4 % off at -5. Who compares an implementation with this one
# at a relative tolerance blames the wrong side.
#
# nnet: Activation("gelu") is right to a few roundings there, in both precisions.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'END'
import torch
from torch.nn.functional import gelu

print("torch", torch.__version__)


def off(x, size, dtype=torch.float32):
    """The relative error, by the complementary error function in float64."""
    exact = x / 2 * torch.special.erfc(torch.tensor(-x / 2**0.5, dtype=torch.float64))
    return gelu(torch.full((size,), x, dtype=dtype))[0].item() / exact.item() - 1


for x in (-3.0, -4.5, -5.0, -5.5, -6.0):
    print(f"gelu({x}): {off(x, 8):+.2%} off in a row of eight, {off(x, 1):+.2%} alone")
assert off(-5.0, 8) < -0.1 and off(-5.5, 8) > 0.5 and off(-6.0, 8) == -1
assert abs(off(-5.0, 1)) < 0.05
print(f"gelu(-8.0) in float64: {off(-8.0, 8, torch.float64):+.2%} off")
assert abs(off(-8.0, 8, torch.float64)) > 0.01
END
