"""The shape of the house, read from the sources: who imports whom, and that the core knows no plugin."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
POINTS = PROJECT["entry-points"]
PLUGINS = sorted({*POINTS["harness.methods"], *POINTS["harness.benchmarks"]})

# A module imports its own layer and those below. Enter a new module here.
LAYERS = (
    "allocator errors records sources facts specs clusters",
    "hooks yaml_file options config templates prompts statistics metrics scoring progress parallel repeatable",
    "plugin_checks plugin_import plugins backbone adapters store",
    "fits fitted comparison pretraining",
    "replies fitting scope run_record evaluation",
    "study stages runner conformance testing scaffold",
    "reports sweeps",
    "bench",
    "commands cli",
)
LAYER = {name: height for height, names in enumerate(LAYERS) for name in names.split()}
# What a plugin may import, ours as a stranger's: the names of `harness` itself, and these modules of it.
PUBLIC = {"harness", *(f"harness.{name}" for name in ["records", "errors", "prompts", "metrics"])}
MODULES = sorted((ROOT / "harness").rglob("*.py"))


def imports_of(path: Path, *, typing_too: bool = False) -> Iterator[tuple[str, str]]:
    """(module, imported name or "") of every import in the file, those inside functions included."""
    nodes: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not typing_too:
            nodes.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; this project writes the full name"
            yield from ((node.module or "", alias.name) for alias in node.names)
        nodes.extend(ast.iter_child_nodes(node))


def room(path: Path) -> str:
    """harness/adapters/lora.py -> adapters, harness/config.py -> config."""
    return path.relative_to(ROOT / "harness").parts[0].removesuffix(".py")


def test_every_module_has_its_place():
    rooms = {room(path) for path in MODULES} - {"__init__", "__main__"}
    assert rooms <= set(LAYER), "enter the new module in LAYERS"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path):
    if room(path) == "__main__":
        return
    height = LAYER["hooks"] if room(path) == "__init__" else LAYER[room(path)]
    for module, name in imports_of(path):
        parts = module.split(".")
        if parts[0] in ("methods", "benchmarks"):
            pytest.fail(f"{path.name} imports {module}: the core knows no plugin")
        if parts[0] == "leaderboard":
            assert room(path) == "commands", f"{path.name} imports {module}: only the command line does"
        if parts[0] == "harness":
            target = parts[1] if len(parts) > 1 else name
            if target in LAYER:
                assert LAYER[target] <= height, f"{path.name} imports {module} from above"
            else:
                assert target in ("__version__", ""), f"{path.name}: import {name} from its own module, not the face"


@pytest.mark.parametrize("name", PLUGINS)
def test_the_core_names_no_plugin(name):
    # `.jsonl` as a file ending is no plugin; methods.NAME, benchmarks.NAME and configs/NAME are.
    word = re.compile(rf"(?<![\w.]){name}(?!\w)|(?:methods|benchmarks|configs)[./]{name}(?!\w)")
    for path in sorted((ROOT / "harness").rglob("*")):
        if path.suffix in (".py", ".md", ".yaml", ".txt", ".toml"):
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
                assert not word.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


@pytest.mark.parametrize(
    "path",
    sorted(path for folder in ("methods", "benchmarks") for path in (ROOT / folder).rglob("*.py")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_plugins_import_only_the_public_harness_and_their_own_folder(path):
    for module, name in imports_of(path, typing_too=True):
        top = module.split(".")[0]
        if top == "harness":
            whole = f"{module}.{name}"
            public = whole in PUBLIC if module == "harness" and name not in harness.__all__ else module in PUBLIC
            assert public, f"{path.name} imports {whole}, which is not public"
            assert not name.startswith("_"), f"{path.name} imports {whole}"
        elif top in ("methods", "benchmarks", "leaderboard", "configs"):
            assert top == path.relative_to(ROOT).parts[0], f"{path.name} imports {module} across the house"


@pytest.mark.parametrize("package", ["harness", "methods", "benchmarks", "configs", "leaderboard"])
def test_packages_resolve_inside_the_repository(package):
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(ROOT), f"{package} is somebody else's: {spec.origin}"


@pytest.mark.parametrize("group", sorted(POINTS))
def test_entry_points_are_named_as_their_files(group):
    for name, target in POINTS[group].items():
        assert target == f"{group.removeprefix('harness.')}.{name}"
        assert importlib.util.find_spec(target), f"{target} does not exist"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_says_what_lives_there(path):
    assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), f"{path.name}: no docstring"


def test_the_reader_of_imports_sees_through_functions_and_not_through_type_checking(tmp_path):
    path = tmp_path / "sample.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import one\nelse:\n    import two\n"
        "def f():\n    from three import four\n"
    )
    assert set(imports_of(path)) == {("typing", "TYPE_CHECKING"), ("two", ""), ("three", "four")}
    assert ("one", "") in set(imports_of(path, typing_too=True))
