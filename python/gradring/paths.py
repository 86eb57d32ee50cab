"""The paths of the C header and the native library, for programs in C, C++ and Cython."""

from __future__ import annotations

from pathlib import Path


def _native_folder() -> Path:
    # Look beside the extension module, because in an editable install the Python sources lie elsewhere.
    from gradring import _core

    return Path(str(_core.__file__)).resolve().parent


def get_include() -> str:
    """The folder to put on the include path, for ``#include "gradring/gradring.h"``.

    >>> import os, gradring as gr
    >>> os.path.exists(os.path.join(gr.get_include(), "gradring", "gradring.h"))
    True
    """
    folder = _native_folder() / "include"
    # A build tree has only the library; the header is then in the source tree.
    return str(folder if folder.is_dir() else Path(__file__).resolve().parents[2] / "csrc" / "include")


def get_library() -> str:
    """The path of the native library, ``libgradring.so``, which C programs link with.

    >>> import os, gradring as gr
    >>> os.path.basename(gr.get_library())
    'libgradring.so'
    """
    folder = _native_folder()
    beside = folder / "libgradring.so"
    return str(beside if beside.exists() else folder.parent / "libgradring.so")
