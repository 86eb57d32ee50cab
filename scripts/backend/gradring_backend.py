"""The build backend: scikit-build-core's, whose wheels it packs again, as small as zip files can be."""

from __future__ import annotations

from pathlib import Path

from pack_wheel import pack
from scikit_build_core import build as _core
from scikit_build_core.build import *  # noqa: F403 - all hooks, of which two are replaced below

Settings = dict[str, "str | list[str]"] | None


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """What a wheel's build needs: libdeflate too. A build without isolation does without it."""
    return [*_core.get_requires_for_build_wheel(config_settings), "deflate>=0.8"]


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """Build a wheel and pack it again; its name."""
    name = _core.build_wheel(wheel_directory, config_settings, metadata_directory)
    pack(Path(wheel_directory) / name)
    return name
