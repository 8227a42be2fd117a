"""What grpcio needs for the protos of these measurements, made when it is asked for."""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

HERE: Final = Path(__file__).parent
# Taken out of their folder: the modules of the first would be a package of our own name.
PROTOS: Final = (HERE.parent / "protos/snakepit/v1/worker.proto", HERE / "callback.proto")


@cache
def stubs(name: str) -> tuple[Any, Any]:
    """Messages and services of the proto of this name. ImportError: grpcio-tools is not there."""
    protoc: Any = importlib.import_module("grpc_tools.protoc")
    known = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        for proto in PROTOS:
            shutil.copy(proto, folder)
        made = protoc.main(
            [
                *("protoc", f"-I{folder}", f"-I{known}"),
                *(f"--python_out={folder}", f"--grpc_python_out={folder}"),
                *(proto.name for proto in PROTOS),
            ]
        )
        assert made == 0, "protoc has told why"
        sys.path.insert(0, folder)
        try:
            return _module(f"{name}_pb2"), _module(f"{name}_pb2_grpc")
        finally:
            sys.path.remove(folder)


def _module(name: str) -> ModuleType:
    importlib.invalidate_caches()
    return importlib.import_module(name)
