"""What `adapter` names: checked on the host, loaded in the worker.

The host turns whatever the user gave into text, without importing anything; the worker turns
the text into a class or a module. What lives in the user's `__main__` is found again as
multiprocessing does it: the worker imports that file or module under the name `__mp_main__`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from types import CodeType, ModuleType
from typing import Any

from msgspec import Struct

from snakepit.errors import ConfigError

MAIN, IMPORTED_MAIN = "__main__", "__mp_main__"
FILE_MODULE_PREFIX = "snakepit_file_"
NEAR_MAX = 3
FORMS = (
    "give 'package.module:Class', 'package.module', 'path/to/file.py:Class', 'path/to/file.py', "
    "or the class or module itself"
)

importing_main = False
"""True while this process imports the user's main file for a worker: no pool may open then."""


_loaded_main: ModuleType | None = None


class Target(Struct, frozen=True):
    """An adapter as text. `main_path` or `main_module` tell where `__main__` came from."""

    spec: str
    main_path: str | None = None
    main_module: str | None = None


# The host's side


def describe_target(adapter: object) -> Target:
    """Say in text where the adapter is. Imports nothing.

    Raises: ConfigError: malformed, a file that does not exist, or out of reach of a worker.
    """
    if isinstance(adapter, str):
        place, qualname = parse_spec(adapter)
        if is_path(place):
            place = os.path.abspath(place)
            if not os.path.isfile(place):
                raise ConfigError("adapter", adapter, f"there is no file {place}")
    elif isinstance(adapter, ModuleType):
        place, qualname = _place_of(adapter.__name__, adapter), ""
    elif isinstance(adapter, type):
        place, qualname = _place_of(adapter.__module__, adapter), adapter.__qualname__
        _check_reachable(adapter)
    else:
        hint = ""
        if not callable(adapter):
            hint = f"; this is a {type(adapter).__qualname__}, the worker makes the instance"
        raise ConfigError("adapter", adapter, FORMS + hint)
    spec = f"{place}:{qualname}" if qualname else place
    if place != MAIN:
        return Target(spec)
    main_path, main_module = describe_main()
    if main_path is None and main_module is None:
        raise ConfigError(
            "adapter",
            adapter,
            "a worker cannot import what was typed into a REPL, a notebook or `python -c`: put it "
            "in a module or a file; plain functions work with run_sync where cloudpickle is installed",
        )
    return Target(spec, main_path, main_module)


def describe_main() -> tuple[str | None, str | None]:
    """`main_path` and `main_module` of this process; both None where `__main__` is no file."""
    main = sys.modules.get(MAIN)
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if isinstance(name, str) and name != MAIN:
        return None, name
    path = getattr(main, "__file__", None)
    if not isinstance(path, str):
        return None, None
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        archive = os.path.dirname(path)  # `python app.zip` has the file inside it
        return (archive, None) if os.path.isfile(archive) else (None, None)
    return path, None


def import_paths_for(python_is_same: bool) -> tuple[str, ...]:  # noqa: FBT001
    """The entries of `sys.path` that a worker needs to import what this process can.

    Another interpreter gets none of this one's libraries: only the user's own folders.
    """
    entries: list[object] = list(sys.path)  # which may hold anything
    paths = [os.path.abspath(entry) for entry in entries if isinstance(entry, str)]
    return tuple(dict.fromkeys(p for p in paths if python_is_same or not _is_library(p)))


def _is_library(path: str) -> bool:
    parts = path.split(os.sep)
    if "site-packages" in parts or "dist-packages" in parts:
        return True
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}:
        below = os.path.relpath(path, prefix).split(os.sep)
        if below[0].startswith("lib") or below[0] == sys.platlibdir:
            return True
    return False


def parse_spec(spec: str) -> tuple[str, str]:
    """The place (a module or a file) and the qualified name in it, "" for the place itself."""
    place, colon, qualname = spec.partition(":")
    if not place or (colon and not _is_dotted(qualname)) or "\0" in spec:
        raise ConfigError("adapter", spec, FORMS)
    if "<locals>" in spec:
        raise ConfigError("adapter", spec, "move the class to module level")
    if not is_path(place) and not _is_dotted(place):
        raise ConfigError("adapter", spec, FORMS)
    return place, qualname


def is_path(place: str) -> bool:
    return place.endswith(".py") or os.sep in place


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _place_of(module_name: str, adapter: object) -> str:
    """The module's name as the worker can import it; its file where it has no such name."""
    if module_name in (MAIN, IMPORTED_MAIN):
        return MAIN
    if module_name.startswith(FILE_MODULE_PREFIX):
        return str(sys.modules[module_name].__file__)
    if not _is_dotted(module_name):
        raise ConfigError("adapter", adapter, f"module {module_name!r} cannot be imported by name")
    return module_name


def _check_reachable(cls: type) -> None:
    if "<locals>" in cls.__qualname__:
        raise ConfigError(
            "adapter", cls, "a class made inside a function is out of a worker's reach: "
            "move it to module level"
        )  # fmt: skip
    found: Any = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    if found is not cls:
        raise ConfigError(
            "adapter", cls, f"{cls.__module__} has no {cls.__qualname__} that is this class: "
            "give it that name at module level"
        )  # fmt: skip


# The worker's side


def add_import_paths(paths: Iterable[str]) -> None:
    """Look for imports where the host does, in its order, and then where this process did."""
    wanted = list(dict.fromkeys(paths))
    sys.path[:] = wanted + [entry for entry in sys.path if entry not in wanted]


def load_target(target: Target) -> Any:
    """Import the class or module. Whatever goes wrong there is raised as it is, or explained.

    Raises: ConfigError: it has no tools. ImportError, AttributeError, TypeError, and whatever
    the user's module raises.
    """
    place, _ = parse_spec(target.spec)
    if place == MAIN:
        module = load_main(target.main_path, target.main_module)
    elif is_path(place):
        module = _load_file(os.path.abspath(place))
    else:
        module = _import(place)
    return find_in(module, target.spec)


def find_in(module: ModuleType, spec: str) -> Any:
    """What the spec names in the module that it names. Raises as `load_target`."""
    _, qualname = parse_spec(spec)
    found: Any = module
    for name in qualname.split(".") if qualname else ():
        found = _attribute(found, name)
    if qualname and not isinstance(found, (type, ModuleType)):
        raise TypeError(
            f"adapter {spec!r} is a {type(found).__qualname__}, not a class or a module"
        )
    check_tools(found, spec)
    return found


def check_tools(found: Any, spec: str) -> None:
    """Raise ConfigError if the class or module has no tools."""
    from snakepit.worker._toolbox import has_tools

    if not has_tools(found):
        what = "class" if isinstance(found, type) else "module"
        where = "a method" if isinstance(found, type) else "a function"
        place = spec.partition(":")[0]
        raise ConfigError(
            "adapter", spec, f"this {what} has no @tool: put it on {where} of it"
            + _hint("did you mean the class", _classes_with_tools(found), f"{place}:")
        )  # fmt: skip


def load_main(main_path: str | None, main_module: str | None) -> ModuleType:
    """Import the host's `__main__` under another name, once, and let it stand for `__main__`.

    Its `if __name__ == "__main__":` block does not run.
    """
    # Not what sys.modules has under that name: `import multiprocessing` puts the worker's own
    # program there.
    global importing_main, _loaded_main
    if _loaded_main is not None:
        return _loaded_main
    title = main_module or main_path
    if title is None:
        raise ImportError("the host's main program is no file that a worker can import")
    module = ModuleType(IMPORTED_MAIN)
    before = sys.modules.get(MAIN)
    importing_main = True
    try:
        code = _prepare_main(module, main_path, main_module)
        sys.modules[MAIN] = sys.modules[IMPORTED_MAIN] = module
        exec(code, module.__dict__)  # noqa: S102 - this is how a module is run
    except BaseException as error:
        sys.modules.pop(IMPORTED_MAIN, None)
        if before is not None:
            sys.modules[MAIN] = before
        if isinstance(error, SystemExit):
            raise ImportError(  # noqa: TRY004 - it is the import that failed
                f"{title} ended itself (SystemExit: {error.code}) when the worker imported it: "
                'put what starts the program under `if __name__ == "__main__":`'
            ) from error
        raise
    finally:
        importing_main = False
    _loaded_main = module
    return module


def _prepare_main(module: ModuleType, main_path: str | None, main_module: str | None) -> CodeType:
    from importlib import util
    from importlib.machinery import SourceFileLoader

    spec: Any
    if main_module is not None:
        name, spec = main_module, util.find_spec(main_module)
    else:
        assert main_path is not None
        name, spec = IMPORTED_MAIN, _spec_in_archive(main_path)
        if spec is None:
            loader = SourceFileLoader(name, main_path)
            spec = util.spec_from_file_location(name, main_path, loader=loader)
        else:
            name = MAIN
    code = spec.loader.get_code(name) if spec is not None and spec.loader is not None else None
    if spec is None or code is None:
        raise ImportError(f"no code found for the main program {main_module or main_path}")
    module.__file__ = spec.origin
    module.__loader__ = spec.loader
    module.__package__ = spec.parent
    # A script has no spec in its own process either, and multiprocessing looks at that.
    module.__spec__ = None if name == IMPORTED_MAIN else spec
    return code  # type: ignore[no-any-return]


def _spec_in_archive(path: str) -> Any:
    """The spec of the `__main__` in `python app.zip`; None for a plain file."""
    if path.endswith(".py"):
        return None
    import zipimport

    try:
        importer = zipimport.zipimporter(path)
    except zipimport.ZipImportError:
        return None
    if path not in sys.path:
        sys.path.insert(0, path)
    return importer.find_spec(MAIN)


def _load_file(path: str) -> ModuleType:
    from importlib import util
    from zlib import crc32

    stem = os.path.basename(path).removesuffix(".py")
    stem = "".join(letter if letter.isalnum() else "_" for letter in stem)
    name = f"{FILE_MODULE_PREFIX}{stem}_{crc32(path.encode(errors='surrogateescape')):08x}"
    if name in sys.modules:
        return sys.modules[name]
    if not os.path.isfile(path):
        raise FileNotFoundError(2, "no such adapter file", path)
    from importlib.machinery import SourceFileLoader

    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.append(folder)  # what lies beside it can be imported, and shadows nothing
    spec = util.spec_from_file_location(name, path, loader=SourceFileLoader(name, path))
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not (name == missing or name.startswith(missing + ".")):
            raise  # the adapter's own import failed: that traceback says it best
        parent, _, last = missing.rpartition(".")
        near = _near(last, _modules_in(parent))
        prefix = f"{parent}." if parent else ""
        raise ModuleNotFoundError(
            f"no module named {missing!r}"
            + (f", wanted for adapter {name!r}" if missing != name else "")
            + _hint("did you mean", near, prefix),
            name=missing,
        ) from error


def _modules_in(parent: str) -> list[str]:
    import pkgutil

    try:
        path = list(sys.modules[parent].__path__) if parent else None
        return [module.name for module in pkgutil.iter_modules(path)]
    except Exception:
        return []


def _attribute(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        what = "module" if isinstance(owner, ModuleType) else "class"
        names = [one for one, value in vars(owner).items() if isinstance(value, (type, ModuleType))]
        raise AttributeError(
            f"{what} {owner.__name__!r} has no {name!r}"
            + _hint("did you mean", _near(name, names)),
            name=name,
            obj=owner,
        ) from None


def _classes_with_tools(owner: Any) -> list[str]:
    from snakepit.worker._toolbox import has_tools

    return [
        name
        for name, value in vars(owner).items()
        if isinstance(value, type) and value.__module__ == owner.__name__ and has_tools(value)
    ] if isinstance(owner, ModuleType) else []  # fmt: skip


def _near(name: str, names: Iterable[str]) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(name, list(names), NEAR_MAX)


def _hint(question: str, names: list[str], prefix: str = "") -> str:
    return f"; {question} {' or '.join(repr(prefix + name) for name in names)}?" if names else ""
