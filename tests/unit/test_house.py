"""The rooms: none imports another, none imports itself in a circle, and no file is too long to read."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

ROOMS = ["router", "ui", "loadtests", "mock_engine"]
ROOMS += sorted(f"services.{path.name}" for path in (ROOT / "services").iterdir() if any(path.rglob("*.py")))
# What tests and load tests start may be imported by name, and nothing else of it.
SHARED = {("loadtests", "mock_engine")}
MOST_LINES = 500


def _files(room: str) -> list[Path]:
    return sorted((ROOT / room.replace(".", "/")).rglob("*.py"))


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _run_time(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below `node`, without what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from _run_time(child)


def _imports(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    found = set()
    for node in _run_time(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            for alias in node.names:
                inner = ROOT / (node.module or "").replace(".", "/") / alias.name
                is_module = inner.is_dir() or inner.with_suffix(".py").exists()
                found.add(f"{node.module}.{alias.name}" if is_module else str(node.module))
    return found


def _inside(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_another(room: str) -> None:
    others = [other for other in [*ROOMS, "tests"] if other != room]
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in _files(room)
        for module in _imports(path)
        for other in others
        if _inside(module, other) and not (module == other and (room, other) in SHARED)
    ]
    assert not wrong


@pytest.mark.parametrize("room", ROOMS)
def test_no_imports_go_in_a_circle(room: str) -> None:
    graph = {_name(path): _imports(path) - {_name(path)} for path in _files(room)}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_no_test_imports_the_fixtures_of_another_folder() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in _files("tests")
        for module in _imports(path)
        if module.endswith(".conftest") and module != f"{_name(path).rpartition('.')[0]}.conftest"
    ]
    assert not wrong


def test_files_are_short() -> None:
    """Apart from the tests of one subject, which are read one by one."""
    paths = [path for room in [*ROOMS, "tests"] for path in _files(room)]
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in paths}
    assert not {
        str(path): lines
        for path, lines in lengths.items()
        if lines > MOST_LINES and not path.name.startswith("test_")
    }
