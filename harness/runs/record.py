"""What run.json says: `RunRecord`, its parts, and the one way to read and write it. `stored` reads schema 1.

Making the record of a run is `making`; runs on disk are `stored`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.contract import ReferenceScore
from harness.errors import StoreError
from harness.scoring import MetricSums, PersonaSums
from harness.store import signed
from harness.text import clean_json, one_line, visible_json, without_places

SCHEMA_VERSION = 2
LARGEST = 1e100  # of a score: sums of squares stay finite
Status = Literal["incomplete", "failed", "ok"]
_Kind = TypeVar("_Kind", bound="RunHead")
Score = Annotated[float | None, AfterValidator(lambda x: x if x is not None and abs(x) <= LARGEST else None)]
Count = Annotated[int, Field(ge=0, le=2**63)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")  # it is a folder, a file and a word of a command
_OF_PERSONAS = ("per_persona",)  # an id of somebody is what the data say


class Part(BaseModel):
    """A frozen part of a record; a field that it does not know is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---- flags: values; `str(flag)` are the words, `name` and `meaning` the glossary's ----


class FlagPart(Part):
    """name  the words without the run's own numbers;  meaning: one sentence for readers"""

    name: ClassVar[str]
    meaning: ClassVar[str]

    def __str__(self) -> str:
        return self.name


class EmptyReplies(FlagPart):
    """share  of the replies that hold no text, 0-1"""

    name = "empty replies"
    meaning = "more than 5 % of the replies hold no text; they are scored as they are"
    kind: Literal["empty_replies"] = "empty_replies"
    share: float

    def __str__(self) -> str:
        return f"{self.share:.0%} {self.name}"


class SomeAdapters(FlagPart):
    """count  adapters that this is said of, of so many"""

    count: int
    of: int

    def __str__(self) -> str:
        return f"{self.count} of {self.of} {self.name}"


class DivergedAdapters(SomeAdapters):
    name = "adapters: diverged"
    meaning = "the loss of these adapters was no longer finite; they stopped there, and the others were not touched"
    kind: Literal["diverged_adapters"] = "diverged_adapters"


class AdaptersWithoutData(SomeAdapters):
    name = "adapters: no data"
    meaning = "no training dialogue for these adapters: as initialised"
    kind: Literal["adapters_without_data"] = "adapters_without_data"


class LossSpikes(SomeAdapters):
    name = "adapters: loss spikes"
    meaning = "the loss of these adapters at least doubled from one epoch to a later one: the rate may be too high"
    kind: Literal["loss_spikes"] = "loss_spikes"


class StillLearning(FlagPart):
    """fall  of the mean validation loss in the last epoch, as a share of what it was before"""

    name = "still learning"
    meaning = "the mean validation loss fell by 1 % or more in the last epoch: with more epochs it may score better"
    kind: Literal["still_learning"] = "still_learning"
    fall: float

    def __str__(self) -> str:
        return f"{self.name} ({self.fall:.1%} less loss in the last epoch)"


class Rewaved(FlagPart):
    name = "rewaved"
    meaning = "memory ran out and batches were halved: equal up to rounding, not to the bit"
    kind: Literal["rewaved"] = "rewaved"


class HiddenPrompt(FlagPart):
    """count  train dialogues whose end sees no virtual token"""

    name = "dialogues end out of sight of the soft prompt"
    meaning = "every layer of the backbone has a sliding window, and these dialogues are longer"
    kind: Literal["hidden_prompt"] = "hidden_prompt"
    count: int

    def __str__(self) -> str:
        return f"{self.count} {self.name}"


class AddsText(FlagPart):
    name = "adds text to the prompt"
    meaning = "the model saw more text here than under other methods"
    kind: Literal["adds_text"] = "adds_text"


class Imported(FlagPart):
    name = "imported"
    meaning = "scores made elsewhere: nothing is known of prompts, decoding or cost"
    kind: Literal["imported"] = "imported"


class ChangedGlobalState(FlagPart):
    """what  hook and setting, such as "fit: default dtype" """

    name = "changed global state"
    meaning = "a plugin left settings of the whole process changed; they were put back after each of its hooks"
    kind: Literal["changed_global_state"] = "changed_global_state"
    what: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.what)})"


Flag = Annotated[
    EmptyReplies
    | DivergedAdapters
    | AdaptersWithoutData
    | LossSpikes
    | StillLearning
    | HiddenPrompt
    | Rewaved
    | AddsText
    | ChangedGlobalState
    | Imported,
    Field(discriminator="kind"),
]


# ---- parts ----


class PluginSource(Part):
    """Where the method comes from. distribution, version: None for a loose file; `file` is its name without folders."""

    distribution: str | None = None
    version: str | None = None
    file: str
    sha256: str


class Settings(BaseModel):
    """The run's settings as they were asked for: the fields of RunConfig but for options and runs_dir."""

    model_config = ConfigDict(frozen=True, extra="allow")  # settings come and go; only these are read one by one

    method: str
    benchmark: str
    baseline: str | None = None
    backbone: str = ""
    personas: int | str | None = None
    persona: tuple[str, ...] = ()
    cluster: int | None = None
    seed: int = 0
    control: str | None = None
    margin: Annotated[float, Field(gt=0, le=LARGEST)] | None = None


class BenchmarkSource(Part):
    name: str
    options: dict[str, Any]
    facts: dict[str, str]
    sha256: str


class ImportedFile(Part):
    """The file that an imported run was read from. example_set: the user's label of the replies that were scored."""

    name: str
    sha256: str
    unit: str
    example_set: str


class TuningSource(Part):
    """How a run's options were found by `harness tune`.

    study      name of its file;  id: hash of all that the tuned methods have in common
    trials     made for this method, pruned ones included;  sampler, pruner: Optuna's
    space      option -> where it was looked for, in words
    loss       nats a token of the best trial, on validation replies of the personas for tuning
    personas   for tuning;  apart: none of them is among those that are scored
    """

    study: str
    id: str
    trials: int
    sampler: str
    pruner: str
    space: dict[str, str]
    loss: Score = None
    personas: int
    apart: bool


class Base(Part):
    """What a run's adapters stand on: all methods that were fitted first, each once, and what their fits cost.

    methods  deepest last; a sum over none says that the run's own cost holds everything
    """

    methods: tuple[str, ...] = ()
    trainable_parameters: Count = 0
    fits: Count | None = 0
    fit_seconds: Seconds = 0.0
    steps: Count = 0
    tokens: Count = 0


class Cost(Part):
    """What the method's own fits and replies cost; what it stands on is counted apart, in `stands_on`.

    fits             made for this method; None: not known. fit_seconds, steps and tokens are sums over all of them
    epochs           of the adapter that took most
    tokens           trained on, without padding
    validation_loss  nats a token: mean over adapters of the loss by which the best epoch was chosen
    stands_on        None: it stands on nothing, or (with `requires`) it is not known
    """

    trainable_parameters: Count
    parameters_per_adapter: Count
    adapters: Count
    stored_bytes: Count
    fits: Count | None = None
    fit_seconds: Seconds
    predict_seconds: Seconds
    score_seconds: Seconds
    steps: Count
    epochs: Count
    tokens: Count
    validation_loss: Score = None
    peak_memory_bytes: Count | None = None
    stands_on: Base | None = None


class Unseen(Part):
    """Scores with personas that were held out of all training."""

    n_personas: int
    n_replies: int
    scores: dict[str, Score]
    per_persona: PersonaSums | None = None


class Ceiling(Part):
    """What an oracle that knows exactly `knows` reaches on the same examples."""

    name: str
    knows: str
    scores: dict[str, Score]


class Yardstick(Part):
    """What a predictor that needs no model reaches on the same examples; see `harness.Yardstick`.

    per_persona   of a base rate, which methods are tested against
    """

    name: str
    knows: str
    oracle: bool = False
    base_rate: bool = False
    scores: dict[str, Score]
    per_persona: PersonaSums | None = None


class RunHead(Part):
    """What is written about a run but for scores by persona, in the order of run.json.

    error          why a run failed
    imported       the file behind an imported run; None: the harness made this run
    requires       methods that were fitted first
    trials         tuning trials behind the method's options;  validation: what it reads validation dialogues for
    changed        target ("method", "benchmark", "protocol", or a method that it stands on) -> options that are not
                   the defaults, by dotted name
    config         the settings as asked;  plugin_files: loose files that the command needs, as given
    subset         not all personas of the data set were scored
    hashes         of what comparable runs share: protocol, examples, split, backbone, scorer
    scores         metric -> figure over all replies, shares in 0-1
    cut_prompts    how many prompts lost old turns to fit
    base           fingerprint of the backbone below the adapters, with what is merged into it
    files          the other files of the run's folder -> their SHA-256; of adapters/ that of its seal (store.seal)
    unit           of the metric that decides; empty: only its sums say it
    tuning         how the options were found; None: they are given, or the method's own
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    id: str
    status: Status = "incomplete"
    error: str | None = None
    imported: ImportedFile | None = None
    method: str
    plugin: PluginSource
    summary: str = ""
    requires: tuple[str, ...] = ()
    shares: str = "unknown"
    trials: int | None = None
    tuning: TuningSource | None = None
    validation: str | None = None
    method_options: dict[str, Any] = {}
    changed: dict[str, dict[str, Any]] = {}
    config: Settings
    plugin_files: tuple[str, ...] = ()
    seed: int
    subset: bool = False
    benchmark: BenchmarkSource
    protocol: dict[str, Any] = {}
    metrics: tuple[str, ...]
    reference: ReferenceScore | None = None
    hashes: dict[str, str]
    numerics: dict[str, str] = {}
    versions: dict[str, str] = {}
    hardware: dict[str, str | int | None] = {}
    git: dict[str, str | bool | None] = {}
    created: str
    n_personas: int = 0
    n_replies: int = 0
    scores: dict[str, Score] = {}
    notes: dict[str, Any] = {}
    cut_prompts: int | None = None
    adds_text: bool | None = None
    cost: Cost | None = None
    flags: tuple[Flag, ...] = ()
    base: str | None = None
    files: dict[str, str] = {}
    unit: str = ""

    @property
    def changed_below(self) -> dict[str, Any]:
        """Options of what the method stands on that are not the defaults: "NAME.train.epochs" -> value."""
        own = ("method", "benchmark", "protocol")
        return {f"{t}.{name}": v for t, given in self.changed.items() if t not in own for name, v in given.items()}

    @property
    def row_name(self) -> str:
        """The method's name, with the control where the run is one, and with changed options of what it stands on."""
        control = self.config.control
        parts = [f"control: {control}"] if control else []
        if self.tuning:
            parts.append(f"tuned, {self.tuning.trials} trials")
        else:
            parts += [f"{name}={value}" for name, value in sorted(self.changed_below.items())]
        return f"{self.method} ({', '.join(parts)})" if parts else self.method

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return self.metrics[0]


class RunRecord(RunHead):
    """Everything that is written about a run.

    per_persona   sums per persona: what comparisons are made of
    """

    unseen: Unseen | None = None
    ceilings: tuple[Ceiling, ...] = ()
    yardsticks: tuple[Yardstick, ...] = ()
    per_persona: PersonaSums | None = None

    @model_validator(mode="after")
    def _complete(self) -> RunRecord:
        if self.status == "ok" and (self.per_persona is None or not self.metrics):
            raise ValueError("a complete run needs metrics and per_persona")
        return self

    @property
    def sums(self) -> PersonaSums:
        """The sums of a complete run. Raises StoreError for another."""
        if self.per_persona is None:
            raise StoreError(f"{self.id} is {self.status}: {self.error or 'not finished'}")
        return self.per_persona

    @property
    def all_sums(self) -> dict[str, PersonaSums]:
        """All sums per persona that the record holds, by the dotted place of each."""
        found = {"per_persona": self.per_persona, "unseen.per_persona": self.unseen and self.unseen.per_persona}
        found |= {f"yardsticks.{i}.per_persona": one.per_persona for i, one in enumerate(self.yardsticks)}
        return {place: sums for place, sums in found.items() if sums is not None}

    def metric_sums(self, name: str) -> MetricSums:
        """A metric's sums, with its unit and direction. Raises StoreError for one that the run does not have."""
        found = self.sums.metrics
        if name not in found:
            raise StoreError(f"{self.id} has no metric '{name}'; it has {', '.join(found) or 'none'}")
        return found[name]

    def amended(self, **fields: Any) -> RunRecord:
        """The record with other values of these fields, checked again."""
        return RunRecord.model_validate({**dict(self), **fields})

    def without_places(self) -> RunRecord:
        """The record as it may be published: of a path outside the current folder only its name is left."""
        sums = {"per_persona": True, "unseen": {"per_persona"}, "yardsticks": {"__all__": {"per_persona"}}}
        fields = self.model_dump(mode="json", exclude=sums)
        if without_places(fields) == fields:
            return self
        return RunRecord.model_validate(without_places(self.model_dump(mode="json"), _OF_PERSONAS))

    def text(self, apart: Mapping[str, str] | None = None) -> str:
        """run.json: strict JSON, one line a field, so that a person finds a field and a diff stays small.

        It names no place on this machine but what lies below the current folder. The last field is the digest of the
        others; whoever edits a record by hand takes it out.
        apart   sums that lie in files of their own, `all_sums`' place of each -> the file's name
        """
        apart = apart or {}
        fields = without_places(clean_json(self.model_dump(mode="json", exclude=_tree(apart))), _OF_PERSONAS)
        for place, file in apart.items():
            *above, last = place.split(".")
            inner = fields
            for name in above:
                inner = inner[int(name) if isinstance(inner, list) else name]
            inner[last] = {"file": file}
        texts = {name: json.dumps(v, ensure_ascii=False, allow_nan=False) for name, v in fields.items()}
        return signed("{\n" + ",\n".join(f'"{name}": {visible_json(text)}' for name, text in texts.items()) + "\n}\n")


def _tree(places: Iterable[str]) -> dict[Any, Any]:
    """Dotted places as pydantic wants to have what it leaves out; a number is a place in a list."""
    tree: dict[Any, Any] = {}
    for place in places:
        *above, last = (int(name) if name.isdigit() else name for name in place.split("."))
        inner = tree
        for name in above:
            inner = inner.setdefault(name, {})
        inner[last] = True
    return tree


_NOT_OF_THE_HEAD = (
    *(f'"{name}": ' for name in RunRecord.model_fields if name not in RunHead.model_fields),
    '"digest": ',
)
_BELOW_THE_HEAD = tuple("\n" + begins for begins in _NOT_OF_THE_HEAD)  # a digest is in every text that has a head


def parse_head(text: str, path: Path) -> RunHead:
    """The head of a record as `RunRecord.text` writes it; the rest is not looked at, and so costs no time."""
    first = min(filter(lambda place: place >= 0, map(text.find, _BELOW_THE_HEAD)))
    lines = text[first + 1 :].split("\n")[:-2]
    more = [line.removesuffix(",") for line in lines if not line.startswith(_NOT_OF_THE_HEAD)]
    return _parsed(RunHead, ",".join([text[:first].removesuffix(","), *more]) + "}", path)


def parse_record(value: Any, path: Path) -> RunRecord:
    """The record in a JSON value of schema 2. Raises StoreError with file and field for every fault."""
    version = value.get("schema_version") if isinstance(value, Mapping) else None
    if version != SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        why = "was written by a newer harness: update this one" if newer else "is no record of a run"
        raise StoreError(f"{path} {why} (schema_version {version!r:.20}, known up to {SCHEMA_VERSION})")
    return _parsed(RunRecord, value, path)


def _parsed(kind: type[_Kind], value: Any, path: Path) -> _Kind:
    try:
        found = kind.model_validate_json(value) if isinstance(value, str) else kind.model_validate(value)
        faults = list(_faults(found))
    except ValidationError as error:
        found = None
        faults = [f"{_where(f['loc'])}: {f['msg']}" for f in error.errors(include_url=False)]
    if found is None or faults:
        more = [f"and {len(faults) - 5} more faults"] if len(faults) > 5 else []
        raise StoreError(f"{path}: {'; '.join([*(one_line(fault)[:300] for fault in faults[:5]), *more])}")
    return found


def _where(names: Iterable[Any]) -> str:
    """The dotted name of a field, whatever a file calls it."""
    return ".".join(str(without_places(name)) for name in names) or "record"


def _faults(record: RunHead) -> Iterator[str]:
    """What is wrong with a record although every field has its type."""
    if not _ID.fullmatch(record.id):
        yield f"id: {record.id[:60]!r} is not an id: up to 200 letters, digits, _ . and -, not beginning with . or -"
    if not isinstance(record, RunRecord) or record.status != "ok":
        return
    if missing := [name for name in record.metrics if name not in record.sums.metrics]:
        yield f"metrics: '{missing[0]}' has no sums"
    if record.reference and not _finite([record.reference.score, record.reference.se or 0.0]):
        yield "reference: score and se must be numbers"
    for where, found in record.all_sums.items():
        yield from (f"{where}.{fault}" for fault in _faults_of(found))


def _faults_of(sums: PersonaSums) -> Iterator[str]:
    if not sums.personas or len(set(sums.personas)) != len(sums.personas):
        yield "personas: empty, or a name occurs twice"
    if min(sums.replies, default=0) < 0:
        yield "replies: a number is negative"
    for name, entry in sums.metrics.items():
        columns = (entry.sum, entry.values or (), *(entry.counts or {}).values())
        if not all(_finite(column) for column in columns):
            yield f"metrics.{name}: sums must be numbers"
        if not 0 <= min(entry.n, default=0) <= max(entry.n, default=0) <= 2**53:
            yield f"metrics.{name}: n must count replies"


def _finite(numbers: Sequence[float]) -> bool:
    return bool((np.abs(np.asarray(numbers, dtype=float)) <= LARGEST).all())  # nan is not
