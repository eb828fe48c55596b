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
ROOM = NNET / "kernels"
KERNELS = sorted([*ROOM.rglob("*.pxi"), *ROOM.rglob("*.h")])
MODULES = sorted(NNET.glob("*.pyx"))
MULTI = re.MULTILINE | re.DOTALL

# Top to bottom. A room imports from those beside and below it; `nnet` is nnet/__init__.py.
ROOMS = (
    ("__main__",),
    ("cli", "estimators", "look"),
    ("nnet", "_api"),
    ("training", "files", "explaining", "filters", "zoo"),
    ("layers",),
    ("reference", "_conv", "_pool", "_dense", "_atomic", "_augment"),
    ("_program",),
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


# --- the kernels' own files ---------------------------------------------------

# What is not as it should be yet: a test fails when one of these is, so that the lists only shrink.
LONG_FILES: set[str] = set()
LONG_FUNCTIONS = {"nnet/_conv.pyx: bprop_conv_bc01"}
NAMED_TWICE = {"__attribute__"}
WITHOUT_NEEDS: set[str] = set()
C_IN_STRINGS: set[str] = set()


def first_paragraph(path):
    """What a file of kernels says first, in a line if it is short: what it is, what it needs."""
    lines = []
    for line in path.read_text().splitlines():
        words = line.removeprefix("/*").lstrip("#* ").strip()
        if not line.startswith(("/*", "#", " *")) or not words.removesuffix("*/"):
            break
        lines.append(words)
        if words.endswith("*/"):
            break
    return " ".join(lines).removesuffix("*/").strip()


def needs_of(path):
    """What it says there that it needs: files, 'Python.h', 'nothing'; None if it does not."""
    name, comma = r"[\w/]+(?:\.\w+)?", r"(?:, and |, | and )"
    found = re.search(rf"[Nn]eeds ({name}(?:{comma}{name})*)", first_paragraph(path))
    return found and re.split(comma, found[1])


def kernel_table():
    """The rows of the table in nnet/kernels/README.md, from what the files say."""
    rows = ["| file | what it is, and what it needs |", "|---|---|"]
    for path in sorted(KERNELS, key=lambda path: (len(path.parts), path)):
        text = first_paragraph(path).replace("|", "\\|")
        rows.append(f"| `{path.relative_to(ROOM).as_posix()}` | {text} |")
    return "\n".join(rows)


def functions_of(path):
    """(name, lines without the docstring) of the functions of a Cython file, or of a header."""
    text = path.read_text()
    if path.suffix == ".h":
        for found in re.finditer(
            r"^[A-Za-z][^;{}#,]*?\b(OF\(\w+\)|(?!OF\b)\w+)\([^;{}]*\{(?:[^\n]*\}$|.*?^\})",
            text,
            MULTI,
        ):
            yield found[1], found[0].count("\n") + 1
        return
    start = r"^(?:cdef|cpdef|def) (?!extern|class|struct|enum)[^\n=]*?(\w+)\(.*?(?=\n\S(?<!\)))"
    for found in re.finditer(start, f"{text}\nend", MULTI):
        body = re.sub(r'^ +""".*?"""\n', "", found[0].rstrip(), count=1, flags=MULTI)
        yield found[1], body.count("\n") + 1


def names_of(path):
    """What a file of kernels defines for those that include it."""
    text = path.read_text()
    macros = set(re.findall(r"^ *#define (\w+)", text, re.MULTILINE))
    macros -= set(re.findall(r"^ *#undef (\w+)", text, re.MULTILINE)) | {"TEMPLATE"}
    names = {name for name, _ in functions_of(path)} | macros
    names |= set(re.findall(r"^cdef (?:struct|class|enum) (\w+)\b.*:", text, re.MULTILINE))
    names |= set(re.findall(r"^(?:typedef )?struct (\w+) \{", text, re.MULTILINE))
    for block in re.findall(r"^cdef enum[^\n]*:\n((?: .*\n|\n)+)", text, re.MULTILINE):
        names |= set(re.findall(r"^ +([A-Za-z]\w*) *(?:=|#|$)", block, re.MULTILINE))
    return names


def left_over(exceptions, found):
    assert sorted(exceptions - set(found)) == [], "these are as they should be: take them out"


def test_kernels_readme_lists_every_file():
    """`python tests/test_house.py` writes the table from the files' first words."""
    assert kernel_table() in (ROOM / "README.md").read_text()


def test_kernels_readme_is_a_map():
    lines = (ROOM / "README.md").read_text().splitlines()
    assert len(lines) <= 100 + len(KERNELS)


def test_files_of_kernels_say_what_they_need():
    """Other files, by their name or the end of their path, or Python.h, NumPy, nothing."""
    without = [path.relative_to(ROOM).as_posix() for path in KERNELS if needs_of(path) is None]
    assert sorted(set(without) - WITHOUT_NEEDS) == []
    left_over(WITHOUT_NEEDS, without)
    for path in KERNELS:
        for need in needs_of(path) or ():
            known = need in ("nothing", "Python.h", "NumPy", "pthreads") or files_of(need)
            assert known, f"{name_of(path)} needs {need}, which is no file"


def files_of(need):
    """The files that 'conv/rows.h', 'rows.h' or 'conv/rows' may mean."""
    return [path for path in KERNELS for whole in (path, path.with_suffix("")) if whole.match(need)]


def test_files_of_kernels_come_after_what_they_need():
    for module in MODULES:
        included = re.findall(r'^include "kernels/(.+)"', module.read_text(), re.MULTILINE)
        for i, name in enumerate(included):
            later = {ROOM / each for each in included[i + 1 :]}
            for need in needs_of(ROOM / name) or ():
                assert not later & set(files_of(need)), f"{module.name}: {name} needs {need}"


def test_no_file_of_kernels_is_longer_than_400_lines():
    sizes = {name_of(path): len(path.read_text().splitlines()) for path in [*KERNELS, *MODULES]}
    long = [name for name, size in sizes.items() if size > 400]
    assert sorted(set(long) - LONG_FILES) == []
    left_over(LONG_FILES, long)


def test_no_function_of_kernels_is_longer_than_60_lines():
    long = [
        f"{name_of(path)}: {name}"
        for path in [*KERNELS, *MODULES]
        for name, size in functions_of(path)
        if size > 60
    ]
    assert sorted(set(long) - LONG_FUNCTIONS) == []
    left_over(LONG_FUNCTIONS, long)


def test_no_two_files_of_kernels_define_the_same_name():
    places = {}
    for path in KERNELS:
        for name in names_of(path):
            places.setdefault(name, []).append(name_of(path))
    twice = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert {name: paths for name, paths in twice.items() if name not in NAMED_TWICE} == {}
    left_over(NAMED_TWICE, twice)


def test_c_code_is_in_headers():
    """Not in strings of Cython: those are for a few macros."""
    long = [
        name_of(path)
        for path in CYTHON
        for block in re.findall(r'^cdef extern from \*:\n +"""(.*?)"""', path.read_text(), MULTI)
        if block.count("\n") > 20
    ]
    assert sorted(set(long) - C_IN_STRINGS) == []
    left_over(C_IN_STRINGS, long)


def test_files_of_kernels_are_read(tmp_path):
    """The readers above find what they are there for."""
    header = tmp_path / "a.h"
    header.write_text(
        "/* A thing. A template; needs simd.h,\n * b.h and c.h.\n *\n * More. */\n#define ONE 1\n"
        "#define TWO\n#undef TWO\nstruct pair { int a; };\ntypedef struct {\n    int a;\n} Pair;\n"
        "INLINE vec OF(sum)(vec a,\n                   vec b) {\n    if (a) {\n    }\n}\n"
        "static int twice(int a) { return a; }\nint declared(int);\n"
    )
    assert needs_of(header) == ["simd.h", "b.h", "c.h"]
    assert dict(functions_of(header)) == {"OF(sum)": 5, "twice": 1}
    assert names_of(header) == {"ONE", "pair", "OF(sum)", "twice"}
    source = tmp_path / "a.pxi"
    source.write_text(
        "# A thing. Needs nothing.\n\ncdef enum:\n    ONE = 1     # of two\n    TWO\n\n"
        "cdef struct Pair:\n    int a\n\ncdef inline void f(\n    int a,\n) noexcept:\n"
        '    """One.\n\n    Two.\n    """\n    pass\n\n\ndef g(a):\n    return a\n'
    )
    assert needs_of(source) == ["nothing"]
    assert dict(functions_of(source)) == {"f": 4, "g": 2}
    assert names_of(source) == {"ONE", "TWO", "Pair", "f", "g"}


if __name__ == "__main__":
    readme = ROOM / "README.md"
    before, _, rest = readme.read_text().partition("| file | what it is")
    rest = rest.partition("\n\n")[2]
    readme.write_text(f"{before}{kernel_table()}\n" + (f"\n{rest}" if rest else ""))
