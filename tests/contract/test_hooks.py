"""The contract: its docstrings match its signatures, and the public face of the package is light."""

from __future__ import annotations

import re
import subprocess
import sys

import pluggy
import pytest

import harness
from harness.contract.hooks import PROJECT, BenchmarkHooks, MethodHooks, hook_arguments

HOOKS = [(hooks, name) for hooks in (MethodHooks, BenchmarkHooks) for name in hook_arguments(hooks)]


def test_the_hooks_are_those_of_the_design():
    assert hook_arguments(MethodHooks) == {
        "card": (),
        "fit": ("study",),
        "predict": ("study", "fitted", "prompts"),
    }
    assert hook_arguments(BenchmarkHooks) == {"card": (), "load": ("options",)}


@pytest.mark.parametrize(("hooks", "name"), HOOKS)
def test_the_manual_documents_every_argument_and_no_other(hooks, name):
    manual = getattr(hooks, name).__doc__
    wanted = hook_arguments(hooks)[name]
    described = re.search(r"Arguments\n(.*?)\n        [A-Z]", manual, re.DOTALL)
    found = re.findall(r"^ {12}(\w+) {2,}", described.group(1), re.MULTILINE) if described else []
    assert tuple(found) == wanted
    for section in ("Returns", "Raises"):
        assert f"\n        {section}\n" in manual


@pytest.mark.parametrize("hooks", [MethodHooks, BenchmarkHooks])
def test_pluggy_accepts_the_specifications_with_one_result(hooks):
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hooks)
    for name in hook_arguments(hooks):
        spec = getattr(manager.hook, name).spec
        assert spec.opts["firstresult"]
        assert tuple(spec.argnames) == hook_arguments(hooks)[name]


def test_importing_the_package_and_its_plugin_machinery_does_not_import_torch():
    code = (
        "import sys, harness; from harness.contract import load_plugin; from harness.config import load_config; "
        "assert not {'torch', 'transformers', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_listing_methods_waits_for_nothing_heavy():
    code = (
        "import sys; from harness.cli import main\n"
        "try:\n    main(['list', 'methods'])\nexcept SystemExit as done:\n    assert not done.code\n"
        "heavy = {'torch', 'transformers', 'scipy.stats', 'bm25s', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", dir(harness))
def test_public_names_resolve(name):
    assert getattr(harness, name) is not None


def test_a_mistyped_public_name_gets_a_suggestion():
    with pytest.raises(AttributeError, match="did you mean 'MethodCard'"):
        getattr(harness, "MethodCrad")  # noqa: B009
