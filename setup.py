"""The compiled half of the build: one extension per kernel file and instruction set.

Environment variables, all optional:
NNET_REQUIRE_OPENMP=1   a compiler without OpenMP is an error, not a serial build
NNET_DISABLE_OPENMP=1   build the serial kernels even where OpenMP works
"""

import os
import platform
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
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

# The register tiles are generic in their size: the size is a constant only
# after inlining, which the compilers' own thresholds would refuse.
MACROS = [
    ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
    ("CYTHON_INLINE", "__inline__ __attribute__((always_inline, unused))"),
]

OPENMP_FLAGS = [
    (["-fopenmp"], ["-fopenmp"]),
    (["-Xpreprocessor", "-fopenmp"], ["-lomp"]),  # Apple's clang with libomp installed
]
OPENMP_PROBE = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"


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


class BuildKernels(build_ext):
    """Adds OpenMP where the compiler has it, and compiles on all cores."""

    def build_extensions(self):
        self.parallel = self.parallel or os.cpu_count()
        compile_args, link_args = self.openmp_flags()
        for extension in self.extensions:
            extension.extra_compile_args += compile_args
            extension.extra_link_args += link_args
        # Binaries of an earlier build serve again only if they were built in the same way.
        command = f"{self.compiler.compiler_so} {[vars(e) for e in self.extensions]}"
        stamp = Path(self.build_temp, "command")
        if not stamp.is_file() or stamp.read_text() != command:
            self.force = True
        super().build_extensions()
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(command)

    def openmp_flags(self):
        """The flags that compile and link an OpenMP program; none for a serial build."""
        disabled = os.environ.get("NNET_DISABLE_OPENMP") == "1"
        required = os.environ.get("NNET_REQUIRE_OPENMP") == "1"
        if disabled and required:
            raise PlatformError(
                "NNET_DISABLE_OPENMP=1 and NNET_REQUIRE_OPENMP=1 exclude each other"
            )
        for compile_args, link_args in [] if disabled else OPENMP_FLAGS:
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, "probe.c")
                source.write_text(OPENMP_PROBE)
                try:
                    with silence():
                        objects = self.compiler.compile(
                            [str(source)], output_dir=folder, extra_postargs=compile_args
                        )
                        self.compiler.link_executable(
                            objects, str(Path(folder, "probe")), extra_postargs=link_args
                        )
                except (CompileError, LinkError):
                    continue
            return compile_args, link_args
        if required:
            raise PlatformError("NNET_REQUIRE_OPENMP=1, but the compiler cannot build OpenMP code")
        print("warning: nnet: no OpenMP, the kernels will run on one thread", file=sys.stderr)
        return [], []


def extension(name, flags):
    return Extension(
        f"nnet.{name}",
        [f"nnet/{name}.pyx"],
        include_dirs=[numpy.get_include()],
        define_macros=MACROS,
        extra_compile_args=FLAGS + flags,
    )


extensions = [extension(name, []) for name in ("_cpu", "_atomic", "_augment")] + [
    extension(kernel if target == "baseline" else f"{kernel}_{target}", flags)
    for kernel in ("_conv", "_pool", "_dense")
    for target, flags in TARGET_FLAGS.items()
]

setup(
    ext_modules=cythonize(
        extensions,
        build_dir="build/cython",
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
        },
    ),
    cmdclass={"build_ext": BuildKernels},
)
