"""The nouns of the harness as frozen dataclasses: plain data, no behaviour beyond small look-ups.

No torch, no files, no plugins here. Everything a benchmark returns and everything a plugin sees is one of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.contract.metric import TextEmbedder

Split = Literal["train", "validation", "test"]
Role = Literal["system", "user", "assistant"]
ValidationUse = Literal["early_stopping", "selection", "training"]  # what a method may use validation dialogues for
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Message:
    """One utterance of a chat."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Persona:
    """A person to personalise for. `cluster` is the benchmark's own label where it has one."""

    id: str
    description: str = ""
    cluster: int | None = None


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One conversation of one persona; user and assistant messages only, the system text is the protocol's.

    `context` is shown to the model as a line of the system text, e.g. (("time_of_day", "evening"), ...).
    A trailing user message without a reply is allowed; it makes no example.
    `item` names what is replied to, where several people reply to the same: a joke, a comment. No method sees it.
    """

    id: str
    persona: str
    split: Split
    messages: tuple[Message, ...]
    context: tuple[tuple[str, str], ...] = ()
    item: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a method may see of an example: never the reference reply.

    id       unique in the data set, `<dialogue id>#<turn>`
    persona  id of the persona that the reply is for
    depth    index of the assistant turn in its dialogue, from 0
    messages system text, then history, the last one from the user
    """

    id: str
    persona: str
    depth: int
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt with the reply that the person really got."""

    prompt: Prompt
    reference: str


@dataclass(frozen=True, slots=True)
class Protocol:
    """How every method is asked, the same for all. Part of the protocol hash.

    system             text that opens every system message
    profile            whether the persona's description stands in the system message
    turns              which assistant turns are examples: all of them, those from the third on, or the last of each
                       dialogue
    max_new_tokens     decoding is greedy and stops at the end of the turn or here
    max_prompt_tokens  longer prompts lose their oldest turns
    choices            closed set of replies; empty means free text
    holdout_personas   so many personas are kept out of all training; their scores stand apart, as `unseen`
    decision           for choices: "median" minimises the expected absolute error, "mode" takes the most probable
    """

    system: str = ""
    profile: bool = False
    turns: Literal["all", "from_third", "last"] = "all"
    max_new_tokens: int = 64
    max_prompt_tokens: int = 1024
    choices: tuple[str, ...] = ()
    decision: Literal["median", "mode"] = "mode"
    holdout_personas: int = 0

    def __post_init__(self) -> None:
        faults = [
            f"{name} must be at least {least}, not {getattr(self, name)}"
            for name, least in (("max_new_tokens", 1), ("max_prompt_tokens", 1), ("holdout_personas", 0))
            if getattr(self, name) < least
        ]
        if len(set(self.choices)) < len(self.choices) or not all(choice.strip() for choice in self.choices):
            faults.append("choices must differ from each other, and none may be empty")
        if faults:
            raise ConfigError("\n".join(faults))


@dataclass(frozen=True, slots=True)
class ReferenceScore:
    """A published score to test against, in points (0-100), with the mean it was: over replies or over personas."""

    score: float
    aggregation: Literal["micro", "macro"]
    source: str
    se: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """An oracle's replies on the test examples: how well one could do knowing exactly `knows`."""

    name: str
    knows: str
    replies: Mapping[str, str]  # prompt id -> reply


@dataclass(frozen=True, slots=True)
class Yardstick:
    """Replies on the test examples that need no language model: what a method should beat, or cannot be asked to.

    knows      in words, what the replies are made of
    oracle     it has seen other people's replies to the test items, which no method sees
    base_rate  it stands for the person alone, whatever is asked: a personal method that is no better has learnt nothing
    """

    name: str
    knows: str
    replies: Mapping[str, str]  # prompt id -> reply
    oracle: bool = False
    base_rate: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """Everything a benchmark's `load` returns.

    metrics   names as in `harness list metrics`; the first one decides the verdict
    reference published score on the deciding metric, if there is one
    schema    what the benchmark's own metrics read replies against; any object that they understand
    ceilings  oracles, computed when asked for (they may cost a little)
    yardsticks  simple predictors, for data of real people: (data set as it is run, sentence embeddings or None) ->
              replies on its test examples; `harness.benchmarks.yardsticks` has some ready
    write     writes the data set to a new folder in the benchmark's own file format; returns counts to print
    facts     what the benchmark wants printed beside its rows, e.g. {"signal": "1.0"}
    """

    name: str
    personas: tuple[Persona, ...]
    dialogues: tuple[Dialogue, ...]
    protocol: Protocol
    metrics: tuple[str, ...]
    reference: ReferenceScore | None = None
    schema: Any = None
    ceilings: Callable[[], Sequence[Ceiling]] | None = None
    yardsticks: Callable[[Dataset, TextEmbedder | None], Sequence[Yardstick]] | None = None
    write: Callable[[Path], Mapping[str, int]] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MethodCard:
    """What a method plugin says about itself.

    summary   one line for `harness list`
    options   a frozen dataclass with a default for every field; the run validates `--set` against it
    requires  methods that must be fitted first, e.g. ("their_name",); "{base}" stands for the method, or the methods,
              that the option `base` names
    shares    whose data may shape one persona's replies: its own, its cluster's, or everybody's
    trials    how many settings were tried on validation data to choose the defaults (shown in the table)
    validation  what validation dialogues are for: only to stop each adapter early, as `study.fit_adapters` does;
              to choose between settings, weights or adapters ("selection"); or as more data to learn from ("training")
    """

    summary: str
    options: type[Any]
    requires: tuple[str, ...] = ()
    shares: Literal["persona", "cluster", "all"] = "persona"
    trials: int = 1
    validation: ValidationUse = "early_stopping"


@dataclass(frozen=True, slots=True)
class BenchmarkCard:
    """What a benchmark plugin says about itself.

    summary   one line for `harness list`
    options   a frozen dataclass with a default for every field; the run validates `--set` against it
    """

    summary: str
    options: type[Any]
