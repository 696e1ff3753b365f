"""The contract between the harness and its plugins: hooks of methods, benchmarks, metrics and kinds of adapters.

The docstrings below are the plugin manual. Loading and checking plugins is `harness.contract.plugins`; what a study
offers is `harness.study`. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import pluggy

if TYPE_CHECKING:
    from harness.contract.data import BenchmarkCard, Dataset, MethodCard, Prompt
    from harness.contract.metric import Metric
    from harness.contract.specs import AdapterKind
    from harness.study import Fitted, Study

PROJECT = "harness"
Kind = Literal["method", "benchmark", "metric", "adapter"]  # of plugins; the entry-point group is harness.<kind>s

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
OPTIONAL = frozenset({"predict"})  # hooks that a plugin may leave out


class MethodHooks:
    """A method: a way to personalise the frozen backbone.

    A plugin is a module (or an object) with one function per hook, each marked with ``@hookimpl``. Only
    ``predict`` may be left out. The arguments have the names given here, without defaults, in any order; an
    argument that is not needed may be left out. A plugin is declared as an entry point of the group
    ``harness.methods`` or given to a command as ``--plugin FILE``, in which case the file's name without
    ``.py`` is the method's name. A helper function may have any name that does not read like a hook.
    """

    @hookspec(firstresult=True)
    def card(self) -> MethodCard:
        """Say what the method is, without doing any work: called by every command that lists methods.

        Returns
            a `harness.MethodCard`: one line of summary; `options`, a frozen dataclass in which every field
            has a type and a default (`--set name=value` is validated against it); `requires`, the names of
            the methods whose fitted adapters this one stands on, e.g. ``requires=("their_name",)`` (mind the
            comma); `shares`, whose data may shape a persona's replies; `validation`, what validation dialogues
            are used for.
        Raises
            nothing. An exception here makes the plugin unusable and is listed with it.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def fit(self, study: Study) -> Fitted:
        """Learn whatever the method learns, from train and validation dialogues.

        Arguments
            study   the frozen backbone, the personas with their train and validation dialogues (never test
                    ones), the groupings persona -> adapter (`by_persona()`, `by_cluster()`, `for_all()`), the
                    fitted adapters of a method in `requires` (`study.fitted(name)`), the validated
                    `study.options`, the seed, progress, and the service
                    `study.fit_adapters(spec, grouping, base, train)`, which trains all adapters of a grouping
                    together on top of `base` (None: the bare backbone), caches them and resumes after an
                    interruption. `study.dialogues(persona, "validation")` is for methods whose card declares
                    `validation` as "selection" or "training".
        May change
            nothing in `study`. The backbone's weights are checked by fingerprint after the call. Settings of the
            process (random generators, default dtype, threads, current folder ...) are put back, and the run
            is flagged; draw from generators of your own.
        Returns
            a `harness.Fitted`; `fit_adapters` makes one, `study.fitted_from` makes one of the method's own
            tensors. A method that learns nothing returns `study.bare()`. What is returned is saved; adapters
            that were changed after they were saved end the run as failed.
        Raises
            `harness.HarnessError` if the data cannot carry the method (say what is missing); any other
            exception, an exit too, ends the run as failed, and the run is stored with its file and line.
        Same study, same seed: the same adapters, to the bit.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def predict(self, study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
        """Reply to every prompt. Left out, the replies are those of `study.generate(fitted, prompts)`.

        It is called several times a run, turn depth by turn depth, so that no history shows a reference
        which is still to be predicted.

        Arguments
            study    as in `fit`; `study.generate(fitted, prompts)` is the batched greedy decoding of the
                     protocol
            fitted   what `fit` returned in this process
            prompts  `harness.Prompt`: id, persona, depth, messages (system text, history, the last one from
                     the user). They carry no reference. A persona may be one that was never seen in `fit`.
        May change
            nothing; prompts are frozen, and adapters that are changed here end the run as failed. Text that the
            method adds is given in `fit`, as `fitted.with_messages(messages)`: then the likelihood is computed
            on the same text, and the row in the leaderboard shows it.
        Returns
            one string per prompt, in the order of `prompts`. The order and the company of a prompt must not
            matter to its reply. An empty string counts as an empty reply. Metrics of likelihood stay empty
            unless every reply is what `study.generate` returned for `fitted` and that prompt.
        Raises
            as `fit`. A wrong number of replies, or one that is no string or holds half a surrogate pair, is a
            `harness.PluginError`.
        """
        raise NotImplementedError


class BenchmarkHooks:
    """A benchmark: people, their dialogues, and the terms on which every method is compared.

    Declared as an entry point of the group ``harness.benchmarks``, or given as ``--plugin FILE``; otherwise
    as for methods.
    """

    @hookspec(firstresult=True)
    def card(self) -> BenchmarkCard:
        """Say what the benchmark is, without reading any data: called by every command that lists benchmarks.

        Returns
            a `harness.BenchmarkCard`: one line of summary, and `options`, a frozen dataclass in which every
            field has a type and a default (`--set name=value` is validated against it).
        Raises
            nothing, as for methods.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def load(self, options: Any) -> Dataset:
        """Make or read the data.

        Arguments
            options  an instance of the card's options dataclass, validated. A field named `personas` is
                     filled with the run's `--personas N` (`all`: None), for benchmarks that can make a smaller
                     world; of any other benchmark the first N personas are taken.
        Returns
            a `harness.Dataset`: personas, dialogues with their splits, protocol (prompt, decoding, splits),
            metrics of which the first decides, and optionally a reference score, a schema for the benchmark's
            own metrics, ceilings, yardsticks.
        Raises
            `harness.DataError` naming the file and, where there is one, the line.
        Same options, same data set, to the byte: its hash goes into every record.
        """
        raise NotImplementedError


class MetricHooks:
    """Metrics of replies, for benchmarks to ask for by name.

    Declared as an entry point of the group ``harness.metrics``, or given as ``--plugin FILE``; the file may be
    that of a benchmark as well. A method needs a file of its own: it runs in another process, which has no metrics.
    """

    @hookspec(firstresult=True)
    def metrics(self) -> Sequence[Metric]:
        """Name the metrics, without scoring anything: called when a metric is looked up.

        Returns
            a list of `harness.Metric`, each with a name that no other metric has. The first column of every
            plain metric has the metric's own name.
        Raises
            nothing, as `card` of methods.
        """
        raise NotImplementedError


class AdapterHooks:
    """Kinds of adapters, for methods to fit.

    Declared as an entry point of the group ``harness.adapters``, or given as ``--plugin FILE``; the file may be
    that of a method as well.
    """

    @hookspec(firstresult=True)
    def adapters(self) -> Sequence[AdapterKind]:
        """Name the kinds, without making any adapter: called when a kind is looked up.

        Returns
            a list of `harness.AdapterKind`, each with a name and a spec that no other kind has.
        Raises
            nothing, as `card` of methods.
        """
        raise NotImplementedError


HOOKS: dict[Kind, type] = {
    "method": MethodHooks,
    "benchmark": BenchmarkHooks,
    "metric": MetricHooks,
    "adapter": AdapterHooks,
}


def hook_arguments(hooks: type) -> dict[str, tuple[str, ...]]:
    """Hook name -> argument names, of one of the classes above."""
    found = {}
    for name, function in vars(hooks).items():
        if callable(function) and hasattr(function, PROJECT + "_spec"):
            code = function.__code__
            found[name] = code.co_varnames[1 : code.co_argcount]
    return found
