"""What a metric is, and the batch of replies that it scores. Finding metrics by name is `harness.scoring`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from harness.contract.data import Dataset, Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Need = Literal["embedder", "nll", "choices", "schema"]
Unit = Literal["pt", "raw", "nats"]
Columns = dict[str, list[float]]
SCORER = "sentence-transformers/all-MiniLM-L6-v2"  # whose embeddings define the metric `similarity`
# No plugin may take these names.
CORE_METRICS = frozenset(
    {"similarity", "exact_match", "rouge_1", "rouge_l", "accuracy", "macro_f1", "mae", "rmse", "nll"}
)


@dataclass(frozen=True, eq=False, slots=True)
class Likelihood:
    """How likely a reference was after its prompt, token by token. T tokens, the last of them ends the turn.

    nats  [T] negative log-probability of each token, given the prompt and the tokens before it
    ends  [T] how many characters of the reference have been said when the token has; the last token ends behind all
    """

    nats: NDArray[np.float64]
    ends: NDArray[np.int64]

    @property
    def whole(self) -> tuple[float, int]:
        """(summed nats, number of tokens)."""
        return float(self.nats.sum()), len(self.nats)

    def split(self, place: int) -> tuple[tuple[float, int], tuple[float, int]]:
        """The same of the reference's first `place` characters, and of the rest.

        A token belongs to the part in which it ends.
        """
        first = self.ends <= place
        said, rest = self.nats[first], self.nats[~first]
        return (float(said.sum()), len(said)), (float(rest.sum()), len(rest))


class TextEmbedder(Protocol):
    """Sentence embeddings: texts -> unit vectors [len(texts), 384]."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class MetricBatch:
    """Replies to score, with all that any metric may need. N examples.

    examples          prompts with their references, N
    replies           one per example, N
    likelihoods       of the references, N, or None where the method has no likelihood
    choice_log_probs  [N, C] log probabilities of `dataset.protocol.choices`, or None
    embedder          sentence embeddings, or None if no metric asks for them
    """

    dataset: Dataset
    examples: Sequence[Example]
    replies: Sequence[str]
    likelihoods: Sequence[Likelihood] | None = None
    choice_log_probs: NDArray[np.float64] | None = None
    embedder: TextEmbedder | None = None

    def __post_init__(self) -> None:
        sizes = {"replies": len(self.replies)}
        if self.likelihoods is not None:
            sizes["likelihoods"] = len(self.likelihoods)
        if self.choice_log_probs is not None:
            sizes["choice_log_probs"] = len(self.choice_log_probs)
        wrong = {name: size for name, size in sizes.items() if size != len(self.examples)}
        if wrong:
            raise ValueError(f"{len(self.examples)} examples, but {wrong}")

    @property
    def references(self) -> list[str]:
        return [example.reference for example in self.examples]

    @property
    def nll(self) -> list[tuple[float, int]] | None:
        """(summed nats, number of tokens) of each reference, N; None where the method has no likelihood."""
        return None if self.likelihoods is None else [one.whole for one in self.likelihoods]

    def pairs(self) -> list[tuple[str, str]]:
        """(reply, reference) of each example."""
        return list(zip(self.replies, self.references, strict=True))


@dataclass(frozen=True)
class Metric:
    """A figure of replies, by name.

    name              as data sets ask for it; also the column in tables and files
    summary           one line for the tables' legend
    compute           MetricBatch -> column -> N floats; nan where a plain metric is undefined for an example. Metrics
                      with the same function share its result
    unit              "pt": a share in 0..1, shown x 100; "nats"; "raw": in the unit of the data
    higher_is_better  direction of improvement
    needs             what the batch must hold for it: "embedder", "nll", "choices"; "schema": the data set's schema
    columns           names of the columns that it uses of those that `compute` returns; left out: its own name, or of a
                      metric with a `figure` all whose names begin with its own and a colon, in their order
    figure            None: the mean over the examples. Else the columns are counts, which are summed over examples
                      (of a persona, of the whole run) first: summed counts [..., C] -> values [...], nan where
                      undefined
    group             a name that asks for this metric and all others of the group
    """

    name: str
    summary: str
    compute: Callable[[MetricBatch], Columns]
    unit: Unit = "pt"
    higher_is_better: bool = True
    needs: tuple[Need, ...] = ()
    columns: tuple[str, ...] = ()
    figure: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None
    group: str = ""

    def __post_init__(self) -> None:
        if not self.columns and self.figure is None:
            object.__setattr__(self, "columns", (self.name,))

    def columns_in(self, found: Iterable[str]) -> tuple[str, ...]:
        """Those of the columns that are this metric's."""
        return self.columns or tuple(column for column in found if column.startswith(f"{self.name}:"))

    @property
    def pooled(self) -> bool:
        """Whether counts are summed before the figure is computed, in place of a mean over examples."""
        return self.figure is not None
