"""The build: what is compiled once serves again, unless anything that it depends on has changed."""

import os
import runpy
from pathlib import Path

import pytest

utils = pytest.importorskip("Cython.Utils")
setuptools = pytest.importorskip("setuptools", "77")

SETUP = Path(__file__).resolve().parents[1] / "setup.py"

pytestmark = pytest.mark.skipif(not SETUP.exists(), reason="the sources are not here")

SOURCES = {
    "_runtime.pyx": 'include "shared.pxi"\nfrom nnet.declared cimport number\n',
    "_other.pyx": "x = 1\n",
    "shared.pxi": "y = 2\n",
    "declared.pxd": "ctypedef int number\n",
    "room/simd.h": "#define LANES 8\n",
}


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A function that builds a small nnet and returns which binaries were compiled anew.

    Nothing is: a binary holds the number of the compilation instead.
    """
    monkeypatch.chdir(tmp_path)
    Path("setup.py").write_text(SETUP.read_text())
    for name, text in SOURCES.items():
        path = Path("nnet", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    compiled = []

    def run(**options):
        utils.clear_function_caches()  # as in a process of its own
        monkeypatch.setattr("Cython.Build.Dependencies._dep_tree", None)
        script = runpy.run_path("setup.py")

        class Counted(script["BuildKernels"]):
            def build_extension(self, extension):
                compiled.append(extension.name)
                path = Path(self.get_ext_fullpath(extension.name))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{extension.name}, {compiled.count(extension.name)}")

        extensions = [script["extension"](name, ["-O1"]) for name in ("_runtime", "_other")]
        names = {"name": "nnet", "packages": ["nnet"], "ext_modules": extensions}
        command = Counted(setuptools.Distribution(names))
        for name, value in options.items():
            setattr(command, name, value)
        n_before = len(compiled)
        command.ensure_finalized()
        command.run()
        return sorted(name.removeprefix("nnet.") for name in compiled[n_before:])

    return run


def binaries(folder):
    return {path.name.split(".")[0]: path.read_text() for path in Path(folder).glob("nnet/*.so")}


def test_a_second_build_compiles_nothing(build):
    assert build(build_lib="first") == ["_other", "_runtime"]
    assert build(build_lib="second") == []
    assert build(inplace=True) == []  # an editable install
    expected = {"_runtime": "nnet._runtime, 1", "_other": "nnet._other, 1"}
    assert binaries("first") == binaries("second") == binaries(".") == expected


def test_binaries_beside_the_sources_are_replaced_though_they_are_newer(build):
    build(inplace=True)
    for path in Path("nnet").glob("*.so"):
        path.write_text("of another branch")
        os.utime(path, (2**32, 2**32))
    assert build(inplace=True) == []
    assert binaries(".") == {"_runtime": "nnet._runtime, 1", "_other": "nnet._other, 1"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("_other.pyx", ["_other"]),
        ("shared.pxi", ["_runtime"]),
        ("declared.pxd", ["_runtime"]),
        ("room/simd.h", ["_other", "_runtime"]),
        ("../setup.py", ["_other", "_runtime"]),
    ],
)
def test_what_has_changed_is_compiled_though_its_time_is_old(build, name, expected):
    build(inplace=True)
    path = Path("nnet", name)
    path.write_text(f"{path.read_text()}\n")
    os.utime(path, (0, 0))
    assert build(inplace=True) == expected
    assert binaries(".") == {
        name: f"nnet.{name}, {2 if name in expected else 1}" for name in ("_runtime", "_other")
    }
    assert build(inplace=True) == []


@pytest.mark.parametrize("name", ["sys.version", "numpy.__version__", "Cython.__version__"])
def test_other_versions_compile_anew(build, monkeypatch, name):
    build()
    monkeypatch.setattr(name, "9.9.9")
    assert build() == ["_other", "_runtime"]


@pytest.mark.parametrize("name", ["CFLAGS", "LDFLAGS"])
def test_other_flags_compile_anew(build, monkeypatch, name):
    build()
    monkeypatch.setenv(name, "-O1")
    assert build() == ["_other", "_runtime"]


def test_a_serial_build_compiles_one_module(build, monkeypatch):
    """The one that has the threads of all."""
    build()
    monkeypatch.setenv("NNET_DISABLE_THREADS", "1")
    assert build() == ["_runtime"]


def test_where_there_are_no_pthreads_the_build_is_serial(build, monkeypatch, capsys):
    monkeypatch.setenv("NNET_DISABLE_THREADS", "1")
    build()
    assert "no pthreads" not in capsys.readouterr().err
    monkeypatch.delenv("NNET_DISABLE_THREADS")
    script = Path("setup.py").read_text()
    Path("setup.py").write_text(script.replace("<pthread.h>", "<no_pthread.h>"))
    build()
    assert "no pthreads, kernels will run on one thread" in capsys.readouterr().err


def test_binaries_that_no_longer_serve_are_removed(build):
    build()
    Path("nnet/_other.pyx").write_text("x = 3\n")
    build()
    kept = sorted(path.name.split(".")[0] for path in Path("build/kernels").iterdir())
    assert kept == ["_other", "_runtime"]


def test_without_a_compiler_one_sentence_says_what_to_install(build, monkeypatch):
    monkeypatch.setenv("CC", "/nonexistent")
    with pytest.raises(SystemExit) as caught:
        build()
    message = str(caught.value)
    for words in ("apt install build-essential", "dnf install gcc", "xcode-select", "wsl"):
        assert words in message
    assert "\n" not in message and "/nonexistent" in message


def test_modules_that_are_no_more_are_not_installed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Build = runpy.run_path(str(SETUP))["Build"]
    Path("own").mkdir()
    for folder, stays in (("build/lib", False), ("own", True)):
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, "old.py").touch()
        command = Build(setuptools.Distribution({"name": "nnet", "py_modules": []}))
        command.build_lib = folder
        command.ensure_finalized()
        command.run()
        assert Path(folder, "old.py").exists() == stays
