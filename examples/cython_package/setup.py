"""The extension module: pyproject.toml cannot say where gradring's header and library are."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import gradring as gr

native = Extension(
    "covariance._native",
    ["covariance/_native.pyx"],
    include_dirs=[gr.get_include()],
    extra_objects=[gr.get_library()],
)
# The folder that contains the package gradring, for `cimport gradring.capi`: an editable install is not on the path.
setup(ext_modules=cythonize([native], include_path=[str(Path(gr.__file__).parents[1])]))
