"""What a method says about its adapters: shape (SoftPrompt, LoRA, ...) and training, checked when made.

Plain dataclasses without torch, so that listing methods stays quick. The adapters themselves are in `adapters`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Annotated, Any, Literal

from harness.errors import ConfigError, did_you_mean

KINDS = ("input", "kv", "discrete")
INITS = ("random", "vocab_sample", "text")
Schedule = Literal["linear", "cosine", "constant"]
SOURCES = ("given", "description", "behaviour")
SCHEDULES = ("linear", "cosine", "constant")
DEFAULT_TARGETS, ALL_LINEAR = "default", "all-linear"  # of a LoRA
# No plugin may take these names.
CORE_ADAPTERS = frozenset({"soft_prompt", "kv_prefix", "discrete_prompt", "gated_prefix", "lora", "steering_vector"})


def _check(*wanted: tuple[object, str]) -> None:
    """Raise ConfigError with every text whose condition does not hold, one a line."""
    if faults := [text for holds, text in wanted if not holds]:
        raise ConfigError("\n".join(faults))


@dataclass(frozen=True)
class Search:
    """Where `harness tune` looks for an option's value; it stands in the field's type:

        learning_rate: Annotated[float, Search(1e-4, 0.1, log=True)] = 1e-3

    low, high  both included; whole numbers for an option that is one
    log        equally many trials for each factor, not for each step
    choices    in place of the two: these values
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        low, high = self.low, self.high
        _check(
            ((low is not None and high is not None) != bool(self.choices), "a search needs low and high, or choices"),
            (low is None or high is None or low < high, f"a search must go upwards, not from {low} to {high}"),
            (not self.log or (low or 0) > 0, f"a search by factors must begin above 0, not at {low}"),
        )


@dataclass(frozen=True)
class AdapterKind:
    """A kind of adapter, from its shape to its files.

    name     as it stands in the index of stored adapters and in `harness list adapters`
    summary  one line for the list
    spec     a frozen dataclass: the adapter's shape, which a method gives to `study.fit_adapters`
    create   (backbone, spec, count, seeds) -> `harness.adapters.Bank` of so many fresh adapters. seeds(part) gives an
             integer for each; row i follows from the spec and its own integers alone. What a bank does, in the
             model and in files, is the manual of `Bank`
    when     field of the spec -> value, for kinds that share a spec; this one is meant where all are equal
    """

    name: str
    summary: str
    spec: type[Any]
    create: Callable[..., Any]
    when: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SoftPrompt:
    """Shape of a soft prompt.

    tokens  P, virtual tokens
    init    "vocab_sample": embeddings of P tokens drawn from the vocabulary, special tokens left out;
            "random": normal numbers with the embedding matrix's mean and standard deviation;
            "text": embeddings of `text`, repeated or cut to P tokens
    kind    "input": vectors before the input embeddings (prompt tuning);
            "kv": keys and values of every layer (prefix tuning), begun as those of the input prompt;
            "discrete": as "input", each vector held to the nearest entry of the vocabulary
    text    what init "text" begins with
    """

    tokens: Annotated[int, Search(2, 32, log=True)] = 10
    init: Literal["random", "vocab_sample", "text"] = "vocab_sample"
    kind: Literal["input", "kv", "discrete"] = "input"
    text: str = ""

    def __post_init__(self) -> None:
        own = f"soft prompt init {self.init!r}"
        _check(
            (self.tokens >= 1, f"a soft prompt needs at least 1 token, not {self.tokens}"),
            (self.init in INITS, f"{own} is unknown; {did_you_mean(self.init, INITS)}"),
            (self.kind in KINDS, f"soft prompt kind {self.kind!r} is unknown; {did_you_mean(self.kind, KINDS)}"),
            (
                self.init != "text" or self.text.strip(),
                f"{own} needs a text to begin with; give `text`, or another init",
            ),
            (self.init == "text" or not self.text, f"{own} does not use `text`; leave it out, or set init to 'text'"),
        )


@dataclass(frozen=True)
class GatedPrefix:
    """Shape of a gated prefix: attention over trained keys and values, added by a gate that starts closed.

    tokens  P, virtual tokens of each layer
    """

    tokens: int = 10

    def __post_init__(self) -> None:
        _check((self.tokens >= 1, f"a gated prefix needs at least 1 token, not {self.tokens}"))


@dataclass(frozen=True)
class LoRA:
    """Shape of a LoRA.

    rank, alpha  the update is alpha / rank * B A
    targets      names of linear layers, as the model calls them: "q_proj", or longer to be choosier; "default": q_proj
                 and v_proj, or what PEFT takes for an architecture without them; "all-linear": all but the head
    dropout      share of the adapter's input that training drops, in [0, 1)
    """

    rank: Annotated[int, Search(2, 32, log=True)] = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = (DEFAULT_TARGETS,)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))  # a list from YAML is as good
        _check(
            (self.rank >= 1, f"LoRA rank must be at least 1, not {self.rank}"),
            (0 < self.alpha < math.inf, f"LoRA alpha must be above 0, not {self.alpha}"),
            (bool(self.targets), "LoRA targets are empty; name at least one linear layer, e.g. q_proj"),
            (
                len(self.targets) == 1 or not {DEFAULT_TARGETS, ALL_LINEAR} & set(self.targets),
                f"LoRA targets {', '.join(self.targets)}: '{DEFAULT_TARGETS}' and '{ALL_LINEAR}' stand alone",
            ),
            (0 <= self.dropout < 1, f"LoRA dropout must lie in [0, 1), not {self.dropout}"),
        )

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


@dataclass(frozen=True)
class SteeringVector:
    """A vector that is added to the output of one block at every token (Subramani et al. 2022, steering vectors).

    layer  block from 0, negative ones from the end; None: the hidden states behind the last norm, which the head reads
    """

    layer: int | None = None


@dataclass(frozen=True)
class TrainOptions:
    """How every adapter of a bank is trained.

    learning_rate     peak rate of AdamW (betas .9 and .999)
    epochs            passes over an adapter's own dialogues, at most
    batch_size        dialogues per step and adapter
    warmup            share of an adapter's steps in which the rate rises, in [0, 1)
    weight_decay      decoupled, times the rate; towards 0, or with `towards_start` towards the starting values
    clip              largest gradient norm per adapter; 0: off
    patience          epochs without a better validation loss before an adapter stops; 0: never stops early
    schedule          after the warm-up: "linear" or "cosine" to 0, or "constant"
    microbatch_tokens padded tokens that go through the model at once; changes speed and memory, not results
    keep_start        whether the starting values compete for the best snapshot (one more validation pass)
    """

    learning_rate: Annotated[float, Search(1e-4, 0.3, log=True)] = 1e-3
    epochs: int = 10
    batch_size: int = 2
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    patience: int = 0
    schedule: Schedule = "linear"
    microbatch_tokens: int = 2048
    keep_start: bool = False
    towards_start: bool = False

    def __post_init__(self) -> None:
        _check(
            (0 < self.learning_rate < math.inf, f"learning_rate must be above 0, not {self.learning_rate}"),
            (self.epochs >= 1, f"epochs must be at least 1, not {self.epochs}"),
            (self.batch_size >= 1, f"batch_size must be at least 1, not {self.batch_size}"),
            (0 <= self.warmup < 1, f"warmup must lie in [0, 1), not {self.warmup}"),
            (0 <= self.weight_decay < math.inf, f"weight_decay must not be below 0, not {self.weight_decay}"),
            (0 <= self.clip < math.inf, f"clip must not be below 0, not {self.clip}"),
            (self.patience >= 0, f"patience must not be below 0, not {self.patience}"),
            (self.microbatch_tokens >= 1, f"microbatch_tokens must be at least 1, not {self.microbatch_tokens}"),
            (
                self.schedule in SCHEDULES,
                f"schedule {self.schedule!r} is unknown; {did_you_mean(self.schedule, SCHEDULES)}",
            ),
        )


# ---- who shares parameters with whom, for adapters that are trained jointly (harness.training.designs) ----


@dataclass(frozen=True)
class Levels:
    """theta_u = mu + c_k + delta_u: everybody's part, the cluster's and the persona's, added and trained together.

    shrink  empirical Bayes: normal priors with mean 0 on c and delta, whose variances are estimated from the data
            after every epoch; False: no prior, the sum is merely over-parametrised
    """

    shrink: bool = True


@dataclass(frozen=True)
class Coefficients:
    """LoRA with shared factors A and B; a persona owns a vector of rank scalings s_u = 1 + c_k + d_u for each layer.

    shrink  as for Levels: c towards 0, d towards 0, that is s_u towards its cluster's mean
    """

    shrink: bool = True


@dataclass(frozen=True)
class Subspace:
    """theta_u = theta_0 + c_u W: a persona owns `rank` coordinates in a subspace that everybody's data choose.

    rank  of the subspace
    """

    rank: Annotated[int, Search(1, 32, log=True)] = 8

    def __post_init__(self) -> None:
        _check((self.rank >= 1, f"a subspace needs rank 1 or more, not {self.rank}"))


@dataclass(frozen=True)
class FromVector:
    """theta_u = theta_0 + W2 gelu(W1 e_u + b): a small network maps what is known of a persona to its adapter.

    width  hidden units
    """

    width: int = 64

    def __post_init__(self) -> None:
        _check((self.width >= 1, f"a network needs at least 1 hidden unit, not {self.width}"))


@dataclass(frozen=True)
class Clusters:
    """Where clusters of personas come from.

    by  "given": the benchmark's own labels; "description": K-means on embeddings of the personas' descriptions;
        "behaviour": K-means on the mean embedding of their train replies
    k   number of clusters; 0: the one with the best silhouette from 2 to 8 (ignored for "given")
    """

    by: Literal["given", "description", "behaviour"] = "given"
    k: int = 0

    def __post_init__(self) -> None:
        _check(
            (self.by in SOURCES, f"clusters by {self.by!r} are unknown; {did_you_mean(self.by, SOURCES)}"),
            (self.k == 0 or self.k >= 2, f"the number of clusters must be at least 2, or 0 to choose it, not {self.k}"),
        )


def specs_by_name() -> dict[str, type]:
    """Class name -> dataclass, of all that plugins use in their options."""
    return {name: item for name, item in globals().items() if isinstance(item, type) and is_dataclass(item)}
