"""An adapter is named on the host and found again in the worker, wherever it lives."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import snakepit
from snakepit.errors import ConfigError
from snakepit.worker import _target
from snakepit.worker._target import (
    Target,
    add_import_paths,
    describe_target,
    import_paths_for,
    load_target,
)
from snakepit.worker._tool import Adapter, tool

ROOT = str(Path(snakepit.__file__).parent.parent)
ADAPTER = """
from snakepit.worker._tool import Adapter, tool

class MyAdapter(Adapter):
    class Inner(Adapter):
        @tool
        def deep(self): ...

    @tool
    def predict(self, x: int) -> int:
        return x

class Toolless: ...

def function(): ...
"""
TOOLS = """
from snakepit.worker._tool import tool

@tool
def double(x: int) -> int:
    return 2 * x
"""


class Here(Adapter):
    class Nested(Adapter):
        @tool
        def deep(self) -> None: ...

    @tool
    def predict(self) -> None: ...


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path, with a package, loose files, and what goes wrong."""
    package = tmp_path / "target_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "adapter.py").write_text(ADAPTER)
    (package / "tools.py").write_text(TOOLS)
    (package / "needs.py").write_text("import no_such_library_at_all\n")
    (package / "fails.py").write_text("raise ValueError('on import')\n")
    (tmp_path / "loose-file.py").write_text("import beside\n" + ADAPTER)
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "bare.py").write_text(TOOLS)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("target_pkg", "snakepit_file_", "beside")):
            del sys.modules[name]


def round_trip(adapter: object) -> object:
    return load_target(describe_target(adapter))


def test_modules_and_classes_by_name(folder: Path) -> None:
    assert round_trip("target_pkg.adapter:MyAdapter").__name__ == "MyAdapter"  # type: ignore[attr-defined]
    assert round_trip("target_pkg.adapter:MyAdapter.Inner").__name__ == "Inner"  # type: ignore[attr-defined]
    assert round_trip("target_pkg.tools") is sys.modules["target_pkg.tools"]


@pytest.mark.parametrize("spec", ["loose-file.py:MyAdapter", "./loose-file.py:MyAdapter.Inner"])
def test_classes_in_files(folder: Path, spec: str) -> None:
    """The file is a module like any other, loaded once; a class of it is found again."""
    found = round_trip(spec)
    assert isinstance(found, type)
    assert getattr(sys.modules[found.__module__], "MyAdapter", None)
    assert round_trip(spec) is found
    assert describe_target(found).spec == f"{folder / 'loose-file.py'}:{found.__qualname__}"
    assert round_trip(found) is found


def test_files_are_resolved_where_the_host_stands(folder: Path) -> None:
    target = describe_target("bare.py")
    assert target == Target(str(folder / "bare.py"))
    os.chdir("/")
    assert load_target(target).double(2) == 4


def test_class_and_module_objects() -> None:
    assert describe_target(Here) == Target(f"{__name__}:Here")
    assert round_trip(Here) is Here
    assert round_trip(Here.Nested) is Here.Nested
    assert describe_target(sys.modules[__name__]) == Target(__name__)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        ":",
        ":Class",
        "a:",
        "a:b:c",
        "pkg.",
        ".pkg",
        "a..b",
        "a b",
        "a:b c",
        "a:b.",
        "a:1",
        "a\0b",
        "a:f.<locals>.C",
        5,
        None,
        b"a:b",
        Here(),
        len,
        lambda: None,
    ],
)
def test_malformed_specs_are_config_errors(spec: object) -> None:
    with pytest.raises(ConfigError) as caught:
        describe_target(spec)
    assert caught.value.option == "adapter"
    assert caught.value.value is spec


def test_a_file_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file .*nowhere\.py"):
        describe_target("nowhere.py:X")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.py"):
        load_target(Target(str(folder / "nowhere.py")))


def test_local_and_hidden_classes_are_out_of_reach() -> None:
    class Local(Adapter): ...

    with pytest.raises(ConfigError, match="module level"):
        describe_target(Local)
    with pytest.raises(ConfigError, match="module level"):
        describe_target(type("Made", (), {}))


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("target_pgk.adapter", ModuleNotFoundError, "did you mean 'target_pkg'"),
        ("target_pkg.adaptor:X", ModuleNotFoundError, "did you mean 'target_pkg.adapter'"),
        ("target_pkg.needs", ModuleNotFoundError, "no_such_library_at_all"),
        ("target_pkg.fails", ValueError, "on import"),
        ("target_pkg.adapter:MyAdaptor", AttributeError, "did you mean 'MyAdapter'"),
        ("target_pkg.adapter:MyAdapter.Iner", AttributeError, "did you mean 'Inner'"),
        ("target_pkg.adapter:function", TypeError, "is a function, not a class"),
        ("target_pkg.adapter:Toolless", ConfigError, "this class has no @tool"),
        (
            "target_pkg.adapter",
            ConfigError,
            "did you mean the class 'target_pkg.adapter:MyAdapter'",
        ),
        ("target_pkg", ConfigError, "this module has no @tool"),
    ],
)
def test_trouble_in_the_worker_is_explained(
    folder: Path, spec: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        round_trip(spec)


def test_a_file_that_fails_is_not_left_half_loaded(folder: Path) -> None:
    (folder / "broken.py").write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            round_trip("broken.py")


def test_import_paths_of_the_same_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "/a", Path("/b"), "/a", *sys.path])
    paths = import_paths_for(True)
    assert paths[:2] == (str(Path.cwd()), "/a")
    assert "/b" not in paths
    assert len(set(paths)) == len(paths)


def test_another_interpreter_gets_the_users_folders_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = [entry for entry in sys.path if "python" in Path(entry).name.lower()]
    user_site = "/home/me/.local/lib/python3.11/site-packages"
    monkeypatch.setattr(sys, "path", ["/src", *sys.path, user_site, f"{sys.prefix}/src/mine"])
    paths = import_paths_for(False)
    assert paths[0] == "/src"
    assert f"{sys.prefix}/src/mine" in paths
    assert not {*libraries, user_site} & set(paths)
    assert not any("site-packages" in path or "lib-dynload" in path for path in paths)


def test_the_hosts_order_of_imports_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/own", "/b"])
    add_import_paths(("/script", "/b", "/c"))
    assert sys.path == ["/script", "/b", "/c", "/own"]


# What lives in `__main__`: a host that describes, and a worker that loads, each a process.

HOST = """
import sys, msgspec
from snakepit.worker._target import describe_target, import_paths_for
from snakepit.worker._tool import Adapter, tool

ran = 0

class InMain(Adapter):
    @tool
    def predict(self, x: int) -> int:
        global ran
        ran += x
        return ran

if __name__ == "__main__":
    print(msgspec.json.encode([describe_target(InMain), import_paths_for(True)]).decode())
"""
WORKER = """
import sys, msgspec
from snakepit.worker import _target
from snakepit.worker._toolbox import collect
target, paths = msgspec.json.decode(sys.argv[1], type=tuple[_target.Target, tuple[str, ...]])
_target.add_import_paths(paths)
cls = _target.load_target(target)
assert _target.load_target(target) is cls
assert cls.__module__ == "__mp_main__", cls.__module__
assert sys.modules["__main__"] is sys.modules["__mp_main__"]
assert not _target.importing_main
tools = collect(cls())
tools["predict"].call(x=2)
print(tools["predict"].call(x=3), sys.modules["__main__"].ran, sys.modules["__main__"].__package__)
"""


def python(*argv: str, cwd: Path, fails: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, *argv],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout.strip()


def test_a_script(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(HOST)
    described = python("script.py", cwd=tmp_path)
    assert python("-c", WORKER, described, cwd=Path("/")) == "5 5"


def test_a_script_without_suffix(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(HOST)
    described = python("script", cwd=tmp_path)
    assert python("-c", WORKER, described, cwd=Path("/")) == "5 5"


def test_python_m_module_and_package(tmp_path: Path) -> None:
    """Relative imports work, as they do for `python -m` itself."""
    package = tmp_path / "main_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "sibling.py").write_text("")
    for name in ("module.py", "__main__.py"):
        (package / name).write_text("from . import sibling\n" + HOST)
    for name in ("main_pkg.module", "main_pkg"):
        described = python("-m", name, cwd=tmp_path)
        assert python("-c", WORKER, described, cwd=tmp_path) == "5 5 main_pkg"


def test_a_folder_and_an_archive(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text(HOST)
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        archive.writestr("__main__.py", HOST)
    for name in ("app", "app.zip"):
        described = python(name, cwd=tmp_path)
        assert python("-c", WORKER, described, cwd=Path("/")) == "5 5"


def test_python_c_is_told_what_to_do(tmp_path: Path) -> None:
    stderr = python("-c", HOST, cwd=tmp_path, fails=True)
    assert "ConfigError" in stderr
    assert "put it in a module or a file" in stderr


def test_the_flag_is_set_while_main_is_imported(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        textwrap.dedent("""
        from snakepit.worker import _target
        raise RuntimeError(f"importing: {_target.importing_main}")
        """)
    )
    worker = "from snakepit.worker._target import *; load_main('script.py', None)"
    assert "RuntimeError: importing: True" in python("-c", worker, cwd=tmp_path, fails=True)


def test_a_main_that_exits_is_told_of_the_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import sys\nsys.exit(3)\n")
    worker = "from snakepit.worker._target import *; load_main('script.py', None)"
    stderr = python("-c", worker, cwd=tmp_path, fails=True)
    assert "ImportError" in stderr
    assert '`if __name__ == "__main__":`' in stderr


def test_no_main_to_import() -> None:
    with pytest.raises(ImportError, match="no file"):
        _target.load_main(None, None)


def test_multiprocessing_does_not_stand_in_the_way_of_main(tmp_path: Path) -> None:
    """`import multiprocessing` gives the worker's own program the name of the host's."""
    (tmp_path / "script.py").write_text("value = 7\n")
    code = (
        "import multiprocessing; from snakepit.worker._target import *; "
        "print(load_main('script.py', None).value, load_main('script.py', None).value)"
    )
    assert python("-c", code, cwd=tmp_path).split() == ["7", "7"]
