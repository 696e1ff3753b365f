"""A new method as three files that work at once: the plugin, its configuration, its test.

The template is the same kind of code as the example in CONTRIBUTING.md. What the method stands on is the baseline
of configs/default.yaml: the core knows no method by name. No torch here.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path
from string import Template

from harness.config import default_values
from harness.contract import BenchmarkHooks, MethodHooks, hook_arguments, list_plugins
from harness.errors import HarnessError
from harness.store import write_atomically

PLUGIN = Template('''\
"""A soft prompt per persona, on the frozen $base adapter: say here what $name does, and whom it follows."""

from dataclasses import dataclass

from harness import MethodCard, SoftPrompt, TrainOptions, hookimpl


@dataclass(frozen=True)
class Options:
    """Every field is an option with a default: `--set tokens=5`, or under `set:` in a configuration."""

    prompt: SoftPrompt = SoftPrompt()  # or LoRA
    train: TrainOptions = TrainOptions(learning_rate=3e-2, epochs=10)


@hookimpl
def card():
    summary = "one soft prompt per persona on the frozen $base adapter"
    return MethodCard(summary, Options, requires=("$base",), shares="persona")


@hookimpl
def fit(study):
    options, base = study.options, study.fitted("$base")
    # by_persona(), or by_cluster() and shares="cluster" above, or for_all() and shares="all"
    return study.fit_adapters(options.prompt, study.by_persona(), base, options.train)
''')
CONFIG = Template("""\
# harness run --config $config --plugin $plugin
#
# Say here what this run is for. Options of the method, the benchmark and the protocol go under `set:`.
method: $name
set:
  tokens: 10
  epochs: 10
""")
TEST = Template('''\
"""$name keeps the contract of the harness, and does what it is for."""

from pathlib import Path

from harness.testkit import check_method, tiny_trial

FILES = [Path(__file__).with_name("$name.py")]


def test_it_keeps_the_contract():
    report = check_method("$name", FILES)
    assert report.ok, report.text()


def test_each_persona_has_an_adapter_of_its_own(tmp_path):
    trial = tiny_trial("$name", tmp_path, FILES)
    people = [persona.id for persona in trial.study.personas]
    assert len({trial.fitted.row(person) for person in people}) == len(people)
''')


def new_method(name: str, folder: Path) -> tuple[Path, Path, Path]:
    """Write plugin, configuration and test of a new method into a folder, which is made if it is not there.

    Returns the three paths. Raises HarnessError, and writes nothing, for a name that cannot be used or is taken.
    """
    if fault := name_fault(name):
        raise HarnessError(f"'{name}' cannot be the name of a method: {fault}")
    plugin, config, test = folder / f"{name}.py", folder / f"{name}.yaml", folder / f"test_{name}.py"
    for path in (plugin, config, test):
        if path.exists():
            raise HarnessError(f"{path} exists and is not overwritten; choose another name, or another --output")
    words = {"name": name, "base": str(default_values()["baseline"]), "plugin": plugin, "config": config}
    for path, template in ((plugin, PLUGIN), (config, CONFIG), (test, TEST)):
        write_atomically(path, template.substitute(words))
    return plugin, config, test


def name_fault(name: str) -> str:
    """Why a method cannot be called this, and what to do; empty if it can."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        return "use letters, digits and underscores, and begin with a letter"
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        return "it is a word of Python; choose another"
    hooks = {hook for hooks in (MethodHooks, BenchmarkHooks) for hook in hook_arguments(hooks)}
    if name in hooks:
        return f"it is a hook ({', '.join(sorted(hooks))}); choose another"
    if name.startswith("test_") or name == "conftest":
        return "pytest would take its file for tests; choose another"
    for listing in (*list_plugins("method"), *list_plugins("benchmark")):
        if listing.name == name:
            return f"there is a {listing.kind} of that name ({listing.distribution or listing.file}); choose another"
    if importlib.util.find_spec(name) is not None:
        return "it would shadow the Python module of that name; choose another"
    return ""
