"""The house rules: lengths of files and functions, who imports whom, what is listed where."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NNET = ROOT / "nnet"
PYTHON = sorted(NNET.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
CYTHON = sorted([*NNET.rglob("*.pyx"), *NNET.rglob("*.pxi")])

# Top to bottom. A room imports from those beside and below it; `nnet` is nnet/__init__.py.
ROOMS = (
    ("__main__",),
    ("cli", "estimators", "look"),
    ("nnet", "_api"),
    ("training", "files", "filters", "zoo"),
    ("layers",),
    ("reference", "_conv", "_pool", "_dense", "_atomic", "_augment"),
    ("dispatch", "geometry"),
    ("_runtime", "_lazy"),
)
LEVELS = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
# show_config prints the version, when it is called; type checkers know nnet.CNNClassifier.
UPWARD = {("dispatch", "nnet"), ("nnet", "estimators")}
# What functions may import without a lock: `import nnet` has loaded it. (The last: dispatch.load)
LOADED = ("numpy", "nnet", "_module_name(kernel, target or TARGET)")


def name_of(path):
    return str(path.relative_to(ROOT))


pytestmark = pytest.mark.skipif(not NNET.is_dir(), reason="the sources are not here")


# --- sizes --------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PYTHON, *CYTHON, *TESTS], ids=name_of)
def test_no_file_is_longer_than_500_lines(path):
    assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_no_function_is_longer_than_60_lines(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert n_lines(node) <= 60, f"{node.name}, without its docstring"


def n_lines(function):
    """From its `def` to its end, without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


# --- imports ------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PYTHON, *CYTHON], ids=name_of)
def test_imports_run_downward(path):
    """Imports inside functions count too."""
    here = room_of(path)
    imports = imports_of_cython if path in CYTHON else imports_of_python
    for room in imports(path.read_text()):
        assert room in LEVELS, f"{room} has no place in ROOMS"
        assert LEVELS[here] <= LEVELS[room] or (here, room) in UPWARD, f"{here} imports {room}"


def test_no_exception_is_left_over():
    for here, room in UPWARD:
        paths = [path for path in PYTHON if room_of(path) == here]
        assert any(room in imports_of_python(path.read_text()) for path in paths), (here, room)


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_forks_wait_for_imports_inside_functions(path):
    """Such imports are inside of `with IMPORTS`, unless `import nnet` has loaded the module."""
    assert [name for name in unguarded_imports(path.read_text()) if name not in LOADED] == []


def unguarded_imports(text):
    """The modules that functions import, by statements or by `import_module`."""
    tree = ast.parse(text)
    for function in ast.walk(tree):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        guarded = {
            id(node)
            for block in ast.walk(function)
            if isinstance(block, ast.With) and ast.unparse(block.items[0]) == "IMPORTS"
            for node in ast.walk(block)
        }
        for node in ast.walk(function):
            if id(node) in guarded:
                continue
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module
            elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
                yield ast.unparse(node.args[0])


def room_of(path):
    """The folder or module of nnet/ that a file belongs to."""
    if path == NNET / "__init__.py":
        return "nnet"
    room = path.relative_to(NNET).parts[0].partition(".")[0]
    if path in CYTHON and room not in LEVELS:
        return "_conv"  # a file that kernels include, or one of their targets
    assert room in LEVELS, f"{room} has no place in ROOMS"
    return room


def imports_of_python(text):
    """The rooms that a module imports."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from imported_room(alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                yield from imported_room(f"{node.module}.{alias.name}")


def imports_of_cython(text):
    yield from re.findall(r"^ *(?:from|c?import) nnet\.(\w+)", text, re.MULTILINE)
    for names in re.findall(r"^ *from nnet c?import ([\w, ]+)", text, re.MULTILINE):
        yield from (name.strip() for name in names.split(","))


def imported_room(name):
    """What a name such as 'nnet.layers.Conv' or 'nnet.Conv' belongs to; nothing for 'numpy'."""
    package, _, rest = name.partition(".")
    if package == "nnet":
        room = rest.partition(".")[0]
        yield room if room in LEVELS or any(NNET.glob(f"{room}.*")) else "nnet"


def test_imports_are_read():
    """The readers above find what they are there for."""
    python = (
        "import nnet.files.saving\ndef f():\n    from nnet import Conv, dispatch\n    import os"
    )
    assert list(imports_of_python(python)) == ["files", "nnet", "dispatch"]
    cython = "from nnet import a, b\nimport numpy\nfrom nnet._runtime cimport (\n    c)\n"
    assert set(imports_of_cython(cython)) == {"_runtime", "a", "b"}
    guarded = "    with IMPORTS:\n        import a\n        import_module('b')\n"
    free = "    import c\n    from d import e\n    importlib.import_module('f')"
    text = f"import z\ndef function():\n{guarded}{free}"
    assert list(unguarded_imports(text)) == ["c", "d", "'f'"]


# --- lists --------------------------------------------------------------------


def test_every_package_is_packaged():
    tomllib = pytest.importorskip("tomllib")
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [path.parent.relative_to(ROOT) for path in PYTHON if path.name == "__init__.py"]
    assert listed == sorted(".".join(folder.parts) for folder in folders)


def test_readme_names_files_that_exist():
    """Each name in the table 'file | what is in it': from the clone's folder, or from nnet/."""
    readme = (ROOT / "README.md").read_text()
    rows = readme.partition("| file | what is in it |")[2].partition("\n\n")[0].splitlines()
    names = [name for row in rows[2:] for name in re.findall("`(.+?)`", row.split("|")[1])]
    assert len(names) > 10
    assert [name for name in names if not any(ROOT.glob(name)) and not any(NNET.glob(name))] == []


@pytest.mark.parametrize("path", sorted(NNET.glob("*/__init__.py")), ids=name_of)
def test_maps_of_packages_name_files_that_exist(path):
    """Lines such as 'conv.py   Conv' in the docstring of a package."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    for names in re.findall(r"^((?:\w+\.py(?:, )?)+)  ", docstring, re.MULTILINE):
        for name in names.split(", "):
            assert (path.parent / name).exists(), name


def test_names_of_tests_are_the_same_in_every_process(request):
    """Without addresses of objects: processes that share the tests compare their lists."""
    names = [item.nodeid for item in request.session.items]
    assert [name for name in names if re.search("0x[0-9a-f]{6}", name)] == []
