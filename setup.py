"""The compiled half of the build: one extension per kernel file and instruction set.

What was compiled stays in build/kernels, and serves later builds of the same sources.

An environment variable, optional:
NNET_DISABLE_THREADS=1   build kernels that run on one thread, as where there are no pthreads
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import Cython
import numpy
from Cython.Build import cythonize
from Cython.Build.Dependencies import create_dependency_tree
from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, PlatformError

TARGET_FLAGS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    TARGET_FLAGS["avx2"] = ["-mavx2", "-mfma"]
    TARGET_FLAGS["avx512"] = (
        "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512".split()
    )

# Contraction gives fused multiply-adds; none of these flags changes what a NaN,
# an infinity or a denormal does, as -ffast-math would for the whole process.
FLAGS = "-O3 -g0 -fno-math-errno -fno-trapping-math -ffp-contract=fast".split()

# Names of functions that nobody can look up from outside are a twentieth of a binary.
LINK_FLAGS = ["-s"] if sys.platform == "linux" else []

# The register tiles are generic in their size: the size is a constant only
# after inlining, which the compilers' own thresholds would refuse.
MACROS = [
    ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
    ("CYTHON_INLINE", "__inline__ __attribute__((always_inline, unused))"),
]

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "auto_pickle": False,  # of classes that live as long as a call
}

PROBE = "#include <Python.h>\nint main(void) { return 0; }\n"
NO_COMPILER = (
    "nnet is compiled while it is installed, which needs gcc or clang and the headers of Python: "
    "`sudo apt install build-essential python3-dev` on Debian and Ubuntu, "
    "`sudo dnf install gcc python3-devel` on Fedora, `xcode-select --install` on macOS; "
    "on Windows, `wsl --install` and then as on Ubuntu"
)
THREADS_PROBE = """
#include <pthread.h>
#include <stdatomic.h>
int main(void) { return pthread_atfork(0, 0, 0); }
"""


@contextmanager
def silence():
    """Keep what the compiler says of a failed probe to itself."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def replace_copy(source, target):
    """Copy a file so that its target is always whole; running programs keep the old one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.copy(source, unfinished)
    os.replace(unfinished, target)


class Build(build):
    """Starts in an empty folder: modules that are no more would be installed with the others."""

    def run(self):
        if Path(self.build_base) in Path(self.build_lib).parents:  # so nobody's own folder
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class BuildKernels(build_ext):
    """Compiles on all cores, and only what was not compiled in the same way before."""

    def finalize_options(self):
        super().finalize_options()
        self.force = True  # contents of files decide what is built and copied, not their times

    def build_extensions(self):
        self.check_compiler()
        flags = self.thread_flags()
        compiler = self.describe_compiler()
        for extension in self.extensions:
            if extension.name == "nnet._runtime":  # which has the threads of all kernels
                extension.extra_compile_args += flags
                extension.extra_link_args += flags
        with ThreadPoolExecutor(self.parallel or os.cpu_count()) as pool:
            try:
                tasks = (self.task(extension, compiler) for extension in self.extensions)
                for build in [pool.submit(*task) for task in tasks]:
                    build.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def task(self, extension, compiler):
        """What is left to do once there is C: Cython needs this thread, the compiler does not."""
        kept = self.kept_binary(extension, compiler)
        if kept.is_file():
            return replace_copy, kept, Path(self.get_ext_fullpath(extension.name))
        options = {"build_dir": "build/cython", "compiler_directives": DIRECTIVES}
        extension.sources = cythonize([extension], force=True, **options)[0].sources
        return self.build_and_keep, extension, kept

    def kept_binary(self, extension, compiler):
        """Where the binary of an extension stays: the name says what it is made of, and how."""
        digest = hashlib.sha256()
        how = extension.name, extension.extra_compile_args, extension.extra_link_args, compiler
        digest.update(repr(how).encode())
        headers = Path("nnet").rglob("*.h")
        sources = create_dependency_tree().all_dependencies(extension.sources[0])
        for path in sorted({"setup.py", *sources, *map(str, headers)}):
            digest.update(Path(path).read_bytes())
        name, _, suffix = Path(self.get_ext_fullpath(extension.name)).name.partition(".")
        return Path("build", "kernels", f"{name}.{digest.hexdigest()[:16]}.{suffix}")

    def build_and_keep(self, extension, kept):
        self.build_extension(extension)
        name, _, suffix = kept.name.split(".", 2)
        for outdated in kept.parent.glob(f"{name}.*.{suffix}"):
            outdated.unlink()
        replace_copy(self.get_ext_fullpath(extension.name), kept)

    # --- the compiler ---------------------------------------------------------

    def check_compiler(self):
        """End with one sentence where nothing can be compiled."""
        try:
            self.probe(PROBE)
        except (CompileError, LinkError, PlatformError) as error:
            raise SystemExit(f"error: {NO_COMPILER} ({error})") from None

    def describe_compiler(self):
        """All that binaries depend on, besides their sources and the flags of an extension."""
        command = self.compiler.compiler_so
        version = subprocess.run([*command, "--version"], capture_output=True, check=False).stdout
        versions = version, sys.version, numpy.__version__, Cython.__version__
        return *versions, command, self.compiler.linker_so, self.debug, self.define, self.undef

    def thread_flags(self):
        """The flags that compile and link a program with threads, or one without."""
        if os.environ.get("NNET_DISABLE_THREADS") != "1":
            try:
                self.probe(THREADS_PROBE, ["-pthread"], ["-pthread"])
                return ["-pthread"]
            except (CompileError, LinkError):
                print("warning: nnet: no pthreads, kernels will run on one thread", file=sys.stderr)
        return ["-DNNET_NO_THREADS"]

    def probe(self, program, compile_args=(), link_args=()):
        """Compile and link a program; an error says that this does not work."""
        with tempfile.TemporaryDirectory() as folder, silence():
            source = Path(folder, "probe.c")
            source.write_text(program)
            objects = self.compiler.compile(
                [str(source)], output_dir=folder, extra_postargs=[*compile_args]
            )
            self.compiler.link_executable(
                objects, str(Path(folder, "probe")), extra_postargs=[*link_args]
            )


def extension(name, flags):
    return Extension(
        f"nnet.{name}",
        [f"nnet/{name}.pyx"],
        include_dirs=[numpy.get_include(), "nnet/kernels"],
        define_macros=MACROS,
        extra_compile_args=FLAGS + flags,
        extra_link_args=LINK_FLAGS.copy(),
    )


extensions = [extension(name, []) for name in ("_runtime", "_atomic", "_augment", "_program")] + [
    extension(kernel if target == "baseline" else f"{kernel}_{target}", flags)
    for kernel in ("_conv", "_pool", "_dense")
    for target, flags in TARGET_FLAGS.items()
]

if __name__ == "__main__":
    setup(ext_modules=extensions, cmdclass={"build": Build, "build_ext": BuildKernels})
