"""Builds index/native as a plain shared library where there is a C++ compiler; without one the package works on numpy.

The library has no Python in it, so a wheel serves every Python of its platform. All else is in pyproject.toml.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

NATIVE = Path("index/native")


class Library(build_ext):
    """A shared library for ctypes: no module, hence no tag of a Python in its name and no init function."""

    def get_ext_filename(self, name: str) -> str:
        return f"{name.replace('.', '/')}.so"

    def get_export_symbols(self, extension: Extension) -> list[str]:
        return []


class Wheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


kernels = Extension(
    "index.native.kernels",
    sources=[str(NATIVE / f"{name}.cpp") for name in ("avx2", "avx512", "library", "neon", "portable")],
    depends=[str(path) for path in sorted(NATIVE.glob("*.h"))],
    language="c++",
    extra_compile_args=["-std=c++17", "-O3", "-g0", "-fvisibility=hidden"],
    optional=True,
)

setup(
    ext_modules=[] if sys.platform == "win32" else [kernels],  # intrinsics are written for GCC and Clang
    cmdclass={"build_ext": Library, "bdist_wheel": Wheel},
)
