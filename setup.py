"""Builds the one compiled module, `fastgate._core`; everything else stands in pyproject.toml."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

HERE = Path(__file__).parent
# `_core.pyx` includes these; setuptools sees only the one source file.
PARTS = [
    str(path.relative_to(HERE))
    for room in ("core", "proxy")
    for path in sorted((HERE / "fastgate" / room).glob("*.px[ydi]"))
]

core = Extension(
    "fastgate._core",
    ["fastgate/_core.pyx"],
    depends=["fastgate/_core.pxd", *PARTS],
    libraries=["m"],  # log: not every Python brings libm along
    extra_compile_args=os.environ.get("FASTGATE_CFLAGS", "-O2 -fno-plt").split(),
)

setup(
    ext_modules=cythonize(
        [core],
        language_level=3,
        compiler_directives={
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            "freethreading_compatible": False,
        },
        force=bool(os.environ.get("FASTGATE_FORCE_CYTHON")),
    )
)
