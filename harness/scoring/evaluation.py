"""Replies of a run and of a benchmark's oracles, scored with everything that its metrics need.

The benchmark names the metrics. The runner chooses the examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from harness.contract import Ceiling, Dataset, Example, Yardstick, is_text
from harness.engines import Answering, Predicted, reply_nll
from harness.errors import ConfigError, PluginError
from harness.progress import Advance, Progress
from harness.scoring.registry import expand_metrics, metric_named
from harness.scoring.similarity import Embedder, locate_scorer
from harness.scoring.sums import PersonaSums, needs_embedder, overall, persona_sums, score_replies
from harness.store import Store, canonical_hash, dump_json, read_json

T = TypeVar("T")


class Evaluation:
    """Scores for one data set; the sessions that share the data share its sentence encoder, too.

    scorer   name of the sentence encoder, or its folder; None: by its name
    elsewhere  where likelihoods are computed; None: in this process
    Raises ConfigError for a metric that the data set cannot have.
    """

    def __init__(
        self,
        dataset: Dataset,
        scorer: str | None,
        store: Store,
        progress: Progress,
        elsewhere: Answering | None = None,
    ) -> None:
        self.dataset, self.store, self.progress, self.elsewhere = dataset, store, progress, elsewhere
        self.names = expand_metrics(dataset.metrics)
        there = {"schema": dataset.schema, "choices": dataset.protocol.choices}
        for name in self.names:
            if missing := [need for need in metric_named(name).needs if not there.get(need, True)]:
                what = "a schema" if missing == ["schema"] else "a closed set of choices"
                raise ConfigError(f"metric '{name}' needs {what}, and {dataset.name} has none")
        self._embedder: Embedder | None = None
        if needs_embedder(dataset):
            cache = store.cache / "embeddings"
            self._embedder = Embedder(locate_scorer(scorer), cache=cache, progress=self._embedding, note=progress.warn)
        self._advance: Advance | None = None

    @property
    def scorer_digest(self) -> str:
        """What embeds: a hash of the encoder and of how it is run; "none" without one."""
        return self._embedder.digest if self._embedder else "none"

    def columns(self, examples: Sequence[Example], predicted: Predicted) -> dict[str, list[float]]:
        """Column -> one value an example; no likelihood for replies that the fitted model did not generate."""
        likelihoods = None
        references = [example.reference for example in examples]
        if predicted.asked is not None:
            likelihoods = reply_nll(predicted.asked, references, self.progress, self.elsewhere)
        elif predicted.likelihood is not None:
            likelihoods = predicted.likelihood(references)
        with self.progress.task("score", 0, "texts") as self._advance:
            found = score_replies(
                self.dataset, examples, predicted.replies, self._embedder, likelihoods, predicted.choice_log_probs
            )
        self._advance = None
        return found

    def sums(
        self, examples: Sequence[Example], places: Sequence[int], columns: Mapping[str, Sequence[float]]
    ) -> PersonaSums:
        """Per-persona sums over those of the examples that lie at `places`."""
        chosen = {name: [values[i] for i in places] for name, values in columns.items()}
        return persona_sums(self.dataset, [examples[i] for i in places], chosen)

    def figures(self, sums: PersonaSums) -> dict[str, float | None]:
        """Every metric's figure over all examples."""
        return {name: overall(sums, name) for name in self.names}

    def oracles(self, examples: Sequence[Example], identity: Sequence[str]) -> list[dict[str, Any]]:
        """Scores of the benchmark's oracles, made once and kept under `identity`; empty without oracles."""
        ceilings = self.dataset.ceilings
        if ceilings is None:
            return []

        def scored() -> list[dict[str, Any]]:
            return [
                {"name": one.name, "knows": one.knows, "scores": self.figures(self._sums_of(examples, one))}
                for one in self._made_by(ceilings(), Ceiling)
            ]

        return self._kept("ceilings", "score the oracles", identity, scored)

    def yardsticks(self, examples: Sequence[Example], identity: Sequence[str]) -> list[dict[str, Any]]:
        """The same for the simple predictors that the benchmark has; with sums per persona for the base rates."""
        find = self.dataset.yardsticks
        if find is None:
            return []

        def scored() -> list[dict[str, Any]]:
            rows = []
            for one in self._made_by(find(self.dataset, self._embedder), Yardstick):
                sums = self._sums_of(examples, one)
                row = {"name": one.name, "knows": one.knows, "oracle": one.oracle, "base_rate": one.base_rate}
                per_persona = sums.model_dump(mode="json") if one.base_rate else None
                rows.append({**row, "scores": self.figures(sums), "per_persona": per_persona})
            return rows

        return self._kept("yardsticks", "score the yardsticks", identity, scored)

    def _made_by(self, found: Any, wanted: type[T]) -> Sequence[T]:
        """What a benchmark's own function returned. Raises PluginError for another thing."""
        if not isinstance(found, list | tuple) or not all(isinstance(one, wanted) for one in found):
            raise PluginError(f"{self.dataset.name}: it must return a list of harness.{wanted.__name__}")
        return found

    def _sums_of(self, examples: Sequence[Example], one: Ceiling | Yardstick) -> PersonaSums:
        """Of replies by prompt id. Raises PluginError where a text is missing."""
        texts = []
        for example in examples:
            text = one.replies.get(example.prompt.id)
            if not isinstance(text, str) or not is_text(text):
                raise PluginError(f"{self.dataset.name}: '{one.name}' has no text for '{example.prompt.id}'")
            texts.append(text)
        return persona_sums(self.dataset, examples, score_replies(self.dataset, examples, texts, self._embedder))

    def _kept(
        self, kind: str, task: str, identity: Sequence[str], make: Callable[[], list[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Rows that are made once."""

        def fill(folder: Path) -> None:
            with self.progress.task(task, 0, "texts") as self._advance:
                rows = make()
            self._advance = None
            dump_json(rows, folder / f"{kind}.json")

        return read_json(self.store.cached(kind, canonical_hash(list(identity)), fill) / f"{kind}.json")

    def _embedding(self, done: int, total: int) -> None:
        if self._advance is not None:
            self._advance.to(done, total)
