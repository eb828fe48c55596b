"""Refuse a wheel that lacks a file, holds one too many or is too large."""

import sys
import zipfile
from pathlib import Path

path = Path(sys.argv[1])
wheel = zipfile.ZipFile(path)
names = wheel.namelist()
kernels = ("_conv", "_dense", "_pool")
if "x86_64" in path.name:
    kernels += tuple(f"{kernel}_{target}" for kernel in kernels for target in ("avx2", "avx512"))
for kernel in kernels:
    assert any(n.startswith(f"nnet/{kernel}.") and n.endswith(".so") for n in names), kernel
root = Path(__file__).resolve().parents[1]
for source in (root / "nnet").rglob("*"):
    if source.suffix in (".py", ".pyi", ".typed"):
        name = source.relative_to(root).as_posix()
        assert name in names, name
assert not [n for n in names if n.endswith((".c", ".pyx", ".pxi"))], "sources in the wheel"
for name in names:
    assert not name.endswith(".so") or b"libgomp.so" not in wheel.read(name), f"{name}: OpenMP"
size = path.stat().st_size
assert size <= 5_000_000, f"{size} bytes"
print(f"{path.name}: {size / 1e6:.2f} MB, {len(names)} files")
