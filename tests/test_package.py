"""The package as a whole: what importing it costs and leaves alone, its names, its version."""

import ast
import importlib
import inspect
import pkgutil
import re
from importlib import metadata
from pathlib import Path

import pytest

import nnet

ROOT = Path(__file__).resolve().parents[1]
# Flags that change the arithmetic of the whole process, or tie a wheel to one machine.
FORBIDDEN = ("-ffast-math", "-Ofast", "-march=native", "-funsafe-math", "target_clones")


def test_import_needs_numpy_alone(run_python):
    """No module from outside the standard library is loaded that NumPy does not load itself."""
    done = run_python("""
import sys
import numpy
before = set(sys.modules)
import nnet
new = {name.partition(".")[0] for name in set(sys.modules) - before}
new = {name for name in new if "cython" not in name}  # made by compiled modules, not loaded
print(sorted(new - sys.stdlib_module_names))
""")
    assert done.stdout == "['nnet']\n", done.stderr


def test_import_loads_only_the_chosen_kernels(run_python):
    done = run_python("""
import sys
import nnet
from nnet.dispatch import TARGET
print(TARGET, *sorted(name for name in sys.modules if name.startswith("nnet._")))
""")
    target, *modules = done.stdout.split()
    kernels = {"nnet._conv", "nnet._dense", "nnet._pool"}
    allowed = {"nnet._atomic", "nnet._program", "nnet._runtime", "nnet._lazy", *kernels}
    assert set(modules) - allowed <= {f"{kernel}_{target}" for kernel in kernels}, done.stderr


def test_import_leaves_denormals_alone(run_python):
    done = run_python("""
import numpy as np
tiny = np.full(1000, 1e-310)
before = (tiny * 0.5).tobytes(), tiny.sum(), 1e-310 / 3
import nnet
assert ((tiny * 0.5).tobytes(), tiny.sum(), 1e-310 / 3) == before and before[1] > 0
""")
    assert done.returncode == 0, done.stderr


def test_import_prints_nothing_and_warns_of_nothing(run_python):
    done = run_python("import nnet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", nnet.__version__)
    try:
        installed = metadata.version("nnet")
    except metadata.PackageNotFoundError:
        pytest.skip("nnet is imported from its sources, not installed")
    assert installed == nnet.__version__


# --- names --------------------------------------------------------------------


def public_modules():
    names = [info.name for info in pkgutil.walk_packages(nnet.__path__, "nnet.")]
    return ["nnet", *(name for name in names if not name.rpartition(".")[2].startswith("_"))]


def imported(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "nnet":
            raise
        pytest.skip(f"{name} needs {error.name}, which is not installed")


@pytest.mark.parametrize("name", public_modules())
def test_every_module_has_a_docstring(name):
    assert imported(name).__doc__


@pytest.mark.parametrize("name", ["nnet", "nnet.layers", "nnet.reference"])
def test_everything_public_has_a_docstring(name):
    """Functions, classes and their methods; a method may inherit its docstring."""
    module = imported(name)
    for where in getattr(module, "__all__", vars(module)):
        value = getattr(module, where)
        home = getattr(value, "__module__", None) or ""
        if where.startswith("_") or not callable(value) or not home.startswith("nnet"):
            continue
        assert inspect.getdoc(value), where
        for method in vars(value) if inspect.isclass(value) else ():
            if not method.startswith("_") and callable(getattr(value, method)):
                assert inspect.getdoc(getattr(value, method)), f"{where}.{method}"


def test_names_that_must_not_change():
    for name in (
        "conv_bc01",
        "bprop_conv_bc01",
        "pool_bc01",
        "bprop_pool_bc01",
        "get_num_threads",
        "set_num_threads",
        "num_threads",
        "show_config",
    ):
        assert callable(getattr(nnet, name))


# --- sources ------------------------------------------------------------------


def test_no_flag_changes_the_arithmetic_of_the_process():
    """Comments may name these flags; what is passed to the compiler may not."""
    if not (ROOT / "setup.py").exists():
        pytest.skip("the sources are not here")
    strings = [
        node.value
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    for path in sorted((ROOT / "nnet").rglob("*.p[yx][xi]")):
        strings += [line.partition("# ")[0] for line in path.read_text().splitlines()]
    for text in strings:
        assert not any(flag in text for flag in FORBIDDEN), text
        assert "pragma" not in text or "optimize" not in text, text


# --- scikit-learn is loaded by the estimators alone -----------------------------


@pytest.mark.parametrize(
    "code",
    ["import nnet", "from nnet import Conv", "from nnet import *", "import nnet; dir(nnet)"],
)
def test_only_estimators_load_scikit_learn(run_python, code):
    pytest.importorskip("sklearn")
    done = run_python(f"import sys\n{code}\nprint('sklearn' in sys.modules)")
    assert done.stdout == "False\n", done.stderr
    done = run_python("import sys, nnet; nnet.CNNClassifier; print('sklearn' in sys.modules)")
    assert done.stdout == "True\n", done.stderr


HIDDEN = """
import sys
sys.modules["sklearn"] = None
import nnet
try:
    from nnet import CNNRegressor
except ImportError as error:
    print(error)
"""


def test_missing_scikit_learn_is_named(run_python):
    done = run_python(HIDDEN)
    expected = 'need scikit-learn 1.6 or newer: pip install "scikit-learn>=1.6"\n'
    assert done.stdout == f"CNNClassifier and CNNRegressor {expected}", done.stderr


def test_old_scikit_learn_is_named(run_python):
    pytest.importorskip("sklearn")
    old = "import sklearn.utils.validation as old; del old.validate_data"
    done = run_python(HIDDEN.replace('sys.modules["sklearn"] = None', old))
    assert "need scikit-learn 1.6 or newer: pip install" in done.stdout, done.stderr


def test_only_the_estimators_import_scikit_learn():
    """Beside functions that load its data sets and its split."""
    for path in sorted((ROOT / "nnet").rglob("*.py")):
        if path.parent.name != "estimators":
            assert not re.search(r"^\s*(from|import) sklearn", path.read_text(), re.MULTILINE), path
