"""What a stranger installs: pins, README commands, files in the wheel, the example in CONTRIBUTING."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import harness
from harness.config.run_config import help_examples
from harness.contract.plugins import load_file

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS: dict[str, str] = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}
FOLDERS = PYPROJECT["tool"]["setuptools"]["package-dir"]  # package -> folder of the repository
REQUIREMENTS = [
    Requirement(text)
    for texts in (
        PYPROJECT["project"]["dependencies"],
        *PYPROJECT["project"]["optional-dependencies"].values(),
    )
    for text in texts
]


def between(text: str, name: str) -> str:
    found = re.search(rf"<!-- begin: {name} -->\n```\w*\n(.*?)```\n<!-- end: {name} -->", text, re.DOTALL)
    assert found, f"no block '{name}' between its markers"
    return found.group(1)


def test_torch_is_pinned_to_the_version_the_results_were_made_with():
    assert PINS["torch"] == "2.13.0"


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_every_requirement_is_pinned_inside_its_range(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_everything_that_the_requirements_bring_is_pinned():
    """Follows the metadata of what is installed; what is not installed here cannot be followed."""
    waiting, seen = [(item.name, item.extras) for item in REQUIREMENTS], set()
    while waiting:
        name, extras = waiting.pop()
        key = canonicalize_name(name)
        if key in seen:
            continue
        seen.add(key)
        assert key in PINS, f"{name} is installed but not in constraints.txt"
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append((need.name, need.extras))


def test_no_pin_is_of_a_gpu_package_or_a_local_build():
    for name, version in PINS.items():
        assert not name.startswith(("nvidia", "triton", "cuda")), name
        assert "+" not in version, f"{name}=={version} is to be had only on the machine it was frozen on"


def test_the_readme_has_both_commands_each_on_one_line():
    readme = (ROOT / "README.md").read_text()
    for name, words in (
        ("run command", ("-c constraints.txt", "[offline]", help_examples()["run"].split(" --seed")[0])),
        ("test command", ("-c constraints.txt", "[offline,test]", "-m pytest")),
    ):
        command = between(readme, name).strip()
        assert "\n" not in command
        for word in words:
            assert word in command


def test_continuous_integration_runs_the_readmes_test_command_as_it_stands():
    script = (ROOT / ".ci" / "run").read_text()
    pattern = re.search(r"command=\$\((sed .*? README.md .*?)\)\n", script)
    assert pattern
    shown = subprocess.run(["bash", "-c", pattern.group(1)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == between((ROOT / "README.md").read_text(), "test command").strip()
    assert "$command" in script
    for check in ("ruff check", "ruff format --check", "pyright"):
        assert check in script


def test_pre_commit_uses_the_pinned_ruff():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {item for hook in hooks for item in hook["additional_dependencies"]} == {f"ruff=={PINS['ruff']}"}


def test_the_version_is_one():
    assert PYPROJECT["project"]["version"] == harness.__version__


def test_every_package_of_the_house_is_in_the_wheel():
    found = set()
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join((package, *path.parent.relative_to(ROOT / folder).parts)))
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == found


def test_package_data_is_read_as_package_data():
    assert "benchmark:" in files("harness.configs").joinpath("default.yaml").read_text()


WANTED = ("harness/model/embedded/tiny/model.safetensors", "harness/leaderboard/page.js", "harness/store/__init__.pyi")


@pytest.mark.slow
def test_the_wheel_brings_one_name_and_runs_beside_a_users_own_folders(tmp_path):
    """Built from the sources as they stand, installed into a new environment, run where names of ours are taken."""
    source = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split(
        "\n"
    )
    if not any(listed):
        pytest.skip("not a git checkout")
    for name in filter(None, listed):
        if (
            name.startswith(("tests/", "docs/", "leaderboard/records/", "leaderboard/plots/"))
            or not (ROOT / name).exists()
        ):
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*pip, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"harness"}
        assert set(WANTED) <= set(names)
        # A new environment that sees the packages installed here, but the harness only as the wheel has it.
        archive.extractall(tmp_path / "site")
    for package in ("methods", "configs", "benchmarks", "leaderboard", "tests"):
        (tmp_path / "work" / package).mkdir(parents=True)
        (tmp_path / "work" / package / "__init__.py").write_text(f"raise RuntimeError('{package} of the user')\n")
    (tmp_path / "work" / "methods" / "unified.py").write_text("raise RuntimeError('a method of the user')\n")
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from harness.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, str(tmp_path / "site")]
    done = subprocess.run(
        [*command, "run", "--method", "zero_shot", "--personas", "2", "--set", "dialogues=1,1,1", "--json", "-q"],
        cwd=tmp_path / "work", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        [*command, "list", "methods", "--json"], cwd=tmp_path / "work", capture_output=True, text=True, check=True
    ).stdout
    assert {Path(row["file"]).parent for row in json.loads(shown)} == {tmp_path / "site" / "harness" / "methods"}


def test_the_example_in_contributing_is_a_method_in_thirty_lines(tmp_path):
    source = between((ROOT / "CONTRIBUTING.md").read_text(), "cluster_prompt.py")
    lines = [line for line in source.splitlines() if line.strip()]
    assert len(lines) <= 30
    path = tmp_path / "cluster_prompt.py"
    path.write_text(source)
    method = load_file(path)
    assert method.name == "cluster_prompt"
    assert method.card.options().prompt.tokens == 10


def test_the_licence_is_whole():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
