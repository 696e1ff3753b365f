"""The shape of the house, read from the sources: floors, faces, cycles, and that the core knows no plugin."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.store import imported_sources

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
POINTS = PYPROJECT["project"]["entry-points"]
PLUGINS = sorted({*POINTS["harness.methods"], *POINTS["harness.benchmarks"]})

# From the ground up. A room imports from rooms on lower floors; rooms of one floor do not know each other.
FLOORS = (
    "errors text",
    "progress",
    "contract",
    "store",
    "config model statistics",
    "adapters",
    "engines",
    "training",
    "scoring",
    "runs",
    "study",
    "compare workers",
    "runner",
    "show",
    "sweeps testkit bench",
    "methods benchmarks leaderboard configs",
    "commands",
    "cli",
)
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names.split()}
FILES = {"__init__", "__main__", "cli", "runner", "study", "errors", "progress"}
FOLDERS = ("methods", "benchmarks", "leaderboard", "configs")  # beside harness/ in the repository
ROOMS = set(FLOOR) - FILES - set(FOLDERS)
MODULES = sorted((ROOT / "harness").rglob("*.py"))
OUTSIDE = sorted(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The tree of a source file, which several tests look at and none changes."""
    return ast.parse(path.read_text("utf-8"))


@functools.cache
def text_of(path: Path) -> str:
    return path.read_text("utf-8")


@functools.cache
def words_of(path: Path) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text_of(path)))


def imports_of(path: Path, *, typing_too: bool = False) -> Iterator[tuple[str, str]]:
    """(module, imported name or "") of every import in the file, those inside functions included."""
    nodes: list[ast.AST] = [parsed(path)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not typing_too:
            nodes.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # Relative imports are those of the folders that are mapped into the package: they stay inside.
            yield from (("." * node.level + (node.module or ""), alias.name) for alias in node.names)
        nodes.extend(ast.iter_child_nodes(node))


def room(path: Path) -> str:
    """harness/adapters/lora.py -> adapters, harness/study.py -> study, methods/unified.py -> methods."""
    parts = path.relative_to(ROOT).parts
    return parts[1 if parts[0] == "harness" else 0].removesuffix(".py")


@functools.cache
def face(name: str) -> set[str]:
    """What a room lets others import: the names in its stub."""
    stub = ast.parse((ROOT / "harness" / name / "__init__.pyi").read_text("utf-8"))
    return {alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_top_of_the_house_is_seven_files_and_its_rooms():
    top = ROOT / "harness"
    assert {path.stem for path in top.glob("*.py")} == FILES
    assert {path.name for path in top.iterdir() if path.is_dir() and path.name != "__pycache__"} == ROOMS
    assert len(FILES) <= 7
    assert len(ROOMS) <= 18


@pytest.mark.parametrize("path", [*MODULES, *OUTSIDE], ids=named)
def test_imports_point_downwards_and_to_faces(path):
    own = room(path)
    if own in ("__init__", "__main__"):
        return
    for module, name in imports_of(path):
        parts = module.split(".")
        if parts[0] != "harness":
            continue
        target = parts[1] if len(parts) > 1 else name
        if target == own:
            continue
        if len(parts) == 1 and target not in FLOOR:
            continue  # a public name of `harness` itself
        assert target in FLOOR, f"{module} is no room of the house"
        assert FLOOR[target] < FLOOR[own], f"{own} imports {target}, which is not below it"
        assert len(parts) <= 2, f"{module}: import from the face of harness.{target}"
        if target in ROOMS and len(parts) == 2 and target != "commands":
            assert name in face(target), f"{name} is not on the face of harness.{target}"


@pytest.mark.parametrize("path", [*MODULES, *OUTSIDE], ids=named)
def test_what_is_imported_for_typing_is_on_a_face_or_known(path):
    known = {("contract", "study"), ("contract", "engines"), ("runs", "runner")}
    for module, name in imports_of(path, typing_too=True):
        parts = module.split(".")
        if parts[0] == "harness" and len(parts) == 2 and parts[1] in ROOMS and parts[1] != room(path):
            if parts[1] == "commands":
                continue
            assert name in face(parts[1])
            lower = FLOOR[parts[1]] < FLOOR.get(room(path), len(FLOORS))
            assert lower or (room(path), parts[1]) in known, f"{room(path)} names {module}.{name}, which lies above"


@pytest.mark.parametrize("name", sorted(ROOMS - {"commands"}))
def test_a_room_says_what_lives_there_and_what_does_not(name):
    tree = ast.parse((ROOT / "harness" / name / "__init__.py").read_text("utf-8"))
    lines = [line for line in (ast.get_docstring(tree) or "").splitlines() if line.strip()]
    assert len(lines) == 2, f"harness/{name}/__init__.py: two lines"


@pytest.mark.parametrize("name", sorted(ROOMS - {"commands"}))
def test_every_name_on_a_face_is_used_by_another_room(name):
    """A face that only grows says nothing. Tests, plugins and the public names of `harness` count as users."""
    users = [
        words_of(path)
        for folder in ("harness", *FOLDERS, "tests")
        for path in (ROOT / folder).rglob("*.py*")
        if path.suffix in (".py", ".pyi") and (room(path) != name or folder == "tests")
    ]
    assert not face(name).difference(*users)


def test_files_import_each_other_in_no_circle():
    """Within a room, too; imports inside functions count."""
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if not name.endswith("__init__") and path.name != "__init__.py":
            graph[name] = {m for m in imported_sources_once(name) if m != name}
    done: set[str] = set()
    while left := {name: targets & set(graph) - done for name, targets in graph.items() if name not in done}:
        free = {name for name, targets in left.items() if not targets}
        assert free, f"these import each other in a circle: {sorted(left)[:6]}"
        done |= free


def imported_sources_once(name: str) -> set[str]:
    """Modules that a module imports itself, with names on a face followed to their file."""
    from harness.store.sources import _file, _imports

    path = _file(name)
    assert path is not None
    return {module for module in _imports(name, path) if module.startswith("harness.")}


@pytest.mark.parametrize("name", PLUGINS)
def test_the_core_names_no_plugin(name):
    # `.jsonl` as a file ending is no plugin, nor is a steering vector; methods.NAME and configs/NAME are.
    word = re.compile(rf"(?<![\w.]){name}(?!\w| vectors?\b)|(?:methods|benchmarks|configs)[./]{name}(?!\w)")
    for path in sorted((ROOT / "harness").rglob("*")):
        if path.suffix in (".py", ".pyi", ".md", ".yaml", ".txt", ".toml"):
            if not word.search(text_of(path)):  # no match is longer than a line
                continue
            for number, line in enumerate(text_of(path).splitlines(), 1):
                assert not word.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


@pytest.mark.parametrize("path", [p for p in OUTSIDE if room(p) != "leaderboard"], ids=named)
def test_plugins_import_only_public_names_and_their_own_folder(path):
    for module, name in imports_of(path, typing_too=True):
        parts = module.split(".")
        if parts[0] == "harness":
            assert not name.startswith("_"), f"{path.name} imports {module}.{name}"
            assert len(parts) <= 2, f"{path.name} imports {module}.{name}, which is inside a room"
        assert parts[0] not in FOLDERS, f"{path.name}: {module}"


@pytest.mark.parametrize("package", sorted(PYPROJECT["tool"]["setuptools"]["package-dir"]))
def test_packages_resolve_inside_the_repository(package):
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(ROOT), f"{package} is somebody else's: {spec.origin}"


@pytest.mark.parametrize("group", ["harness.methods", "harness.benchmarks", "harness.metrics"])
def test_entry_points_are_named_as_their_files(group):
    for name, target in POINTS[group].items():
        assert target == f"{group.replace('metrics', 'benchmarks')}.{name}"
        assert importlib.util.find_spec(target), f"{target} does not exist"


@pytest.mark.parametrize("path", [*MODULES, *OUTSIDE], ids=named)
def test_every_file_says_what_lives_there(path):
    assert ast.get_docstring(parsed(path)), f"{path.name}: no docstring"


@pytest.mark.parametrize("path", [*MODULES, *OUTSIDE], ids=named)
def test_no_function_is_longer_than_sixty_lines(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{path.name}:{node.lineno}: {node.name} has {length} lines"


def test_every_import_of_our_own_resolves():
    """pyright does not see the folders that are mapped into the package; this does."""
    for path in [*MODULES, *OUTSIDE, *(ROOT / "tests").rglob("*.py")]:
        for module, _ in imports_of(path, typing_too=True):
            if module.split(".")[0] == "harness":
                assert importlib.util.find_spec(module), f"{named(path)} imports {module}"


def test_the_sources_of_a_run_follow_from_imports():
    sources = imported_sources(["harness.study", "harness.scoring.evaluation"])
    assert {"harness.adapters.lora", "harness.training.fit_loop", "harness.engines.serve"} <= set(sources)
    assert not {name.split(".")[1] for name in sources if "." in name} & {"show", "compare", "commands", "bench"}


def test_the_reader_of_imports_sees_through_functions_and_not_through_type_checking(tmp_path):
    path = tmp_path / "sample.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import one\nelse:\n    import two\n"
        "def f():\n    from three import four\n"
    )
    assert set(imports_of(path)) == {("typing", "TYPE_CHECKING"), ("two", ""), ("three", "four")}
    assert ("one", "") in set(imports_of(path, typing_too=True))
