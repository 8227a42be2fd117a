"""Environments that have these packages and no others, as links to those of this one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

# What this package requires on the host, with what that requires; a worker needs msgspec alone.
HOSTS = {
    "anyio",
    "attr",
    "attrs",
    "idna",
    "outcome",
    "psutil",
    "sniffio",
    "sortedcontainers",
    "trio",
    "typing_extensions",
}


def make_venv(folder: Path, names: set[str]) -> Path:
    """An environment with these packages and nothing else."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60
    )
    paths = {"base": str(folder), "platbase": str(folder)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", paths))
    assert site_packages.is_dir()
    for name in names:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin)
        source = source.parent if source.name == "__init__.py" else source
        (site_packages / source.name).symlink_to(source, target_is_directory=source.is_dir())
    return folder
