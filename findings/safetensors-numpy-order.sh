#!/usr/bin/env bash
# safetensors.numpy saves a transposed or Fortran-ordered array with its values in wrong places.
#
# The bytes are written as they lie in memory, the shape as it is seen: what is loaded has the right
# shape and dtype, and other values. Nothing is raised, where safetensors.torch refuses the same
# tensor by name. Kernels that were transposed for another library, the usual case, are such arrays.
#
# nnet: every array is put in C order before it is saved.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'END'
import numpy as np
import safetensors
from safetensors.numpy import load, save

print("safetensors", safetensors.__version__)
kernel = np.arange(6.0).reshape(2, 3)
found = {}
for name, array in {
    "C order": kernel,
    "transposed": kernel.T,
    "Fortran order": np.asfortranarray(kernel),
}.items():
    loaded = load(save({"kernel": array}))["kernel"]
    found[name] = loaded.shape == array.shape and np.array_equal(loaded, array)
    print(f"{name}: saved {array.tolist()}, loaded {loaded.tolist()}")
assert found == {"C order": True, "transposed": False, "Fortran order": False}
END
