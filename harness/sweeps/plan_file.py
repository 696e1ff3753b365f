"""A YAML file with phases -> `Plan`: what is tried, the gates it must pass, fallbacks, bands; all faults at once.

Entries and shared settings are read as a sweep's are (sweep_file). What passes a gate is decided in plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from harness.config import SETTINGS, RunConfig
from harness.errors import ConfigError, HarnessError
from harness.sweeps.sweep_file import Entry, Reader

PLAN_KEYS = ("phases", "fallbacks", "bands", "seeds")
PHASE_KEYS = ("name", "persona", "cluster", "method", "label", "control", "set", "gates", "published", "if_failed")
GATE_KEYS = ("beats", "reference", "source")
IfFailed = Literal["stop", "go on"]


@dataclass(frozen=True, slots=True)
class Gate:
    """What a phase asks: `beats` a method on the same replies, or the mean lies above a number (`reference`).

    source   where the number comes from
    """

    beats: Entry | None = None
    reference: float | None = None
    source: str = ""

    @property
    def name(self) -> str:
        return f"beats {self.beats.label}" if self.beats else f"above {self.reference:g}"


@dataclass(frozen=True, slots=True)
class Published:
    """A number shown beside a phase; it is not tested, since its replies are others."""

    score: float
    source: str


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of a plan.

    persona, cluster   only these are fitted and scored; neither: everybody
    candidates         tried in order until one passes all gates: the phase's method, then the fallbacks
    if_failed          what happens to the phases after this one where none passed
    """

    name: str
    persona: tuple[str, ...]
    cluster: int | None
    candidates: tuple[Entry, ...]
    gates: tuple[Gate, ...]
    published: tuple[Published, ...] = ()
    if_failed: IfFailed = "stop"


@dataclass(frozen=True, slots=True)
class Band:
    """A name for scores from `low` to below `high`; the highest band holds its upper end."""

    low: float
    high: float
    name: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Phases one after another, and what the best score at the end is called. `shared` has the baseline's method."""

    name: str
    shared: RunConfig
    baseline: str
    seeds: tuple[int, ...]
    phases: tuple[Phase, ...]
    bands: tuple[Band, ...]

    @property
    def entries(self) -> list[Entry]:
        """Everything that may be run."""
        found = [entry for phase in self.phases for entry in phase.candidates]
        return found + [gate.beats for phase in self.phases for gate in phase.gates if gate.beats]


def load_plan(reader: Reader, flags: Mapping[str, Any]) -> Plan:
    """Check all of a plan's file; `flags` as in `harness.sweeps.sweep_file.load_sweep`.

    Raises ConfigError listing every fault, one a line.
    """
    values = reader.document.values
    reader.keys("", values, (*SETTINGS, "set", *PLAN_KEYS), "a plan")
    for key in ("persona", "cluster"):
        if key in values:
            reader.fault(key, f"'{key}' belongs to a phase: each phase names its personas")
    settings, seeds = reader.shared(flags)
    shared = settings or RunConfig("-", "-")  # faults of the phases are wanted too
    fallbacks = values.get("fallbacks", [])
    if not isinstance(fallbacks, list):
        reader.fault("fallbacks", "'fallbacks' must be a list of methods")
        fallbacks = []
    found = reader.items("", values, "phases", "phases")
    phases = [_phase(reader, f"phases.{i}", item, fallbacks, shared) for i, item in enumerate(found)]
    bands = _bands(reader, values)
    if reader.faults or settings is None:
        raise ConfigError("\n".join(dict.fromkeys(reader.faults)))
    kept = tuple(phase for phase in phases if phase)
    return Plan(reader.document.name, settings, settings.method, seeds, kept, bands)


def _phase(reader: Reader, path: str, item: Any, fallbacks: list[Any], shared: RunConfig) -> Phase | None:
    if not isinstance(item, dict):
        reader.fault(path, f"a phase is a mapping of {', '.join(PHASE_KEYS)}")
        return None
    reader.keys(path, item, PHASE_KEYS, "a phase")
    name: str = reader.value(path, item, "name", str) or f"phase {int(path.rsplit('.', 1)[-1]) + 1}"
    persona = reader.value(path, item, "persona", tuple[str, ...], ())
    cluster = reader.value(path, item, "cluster", Annotated[int, Field(ge=0)])
    if persona and cluster is not None:
        reader.fault(f"{path}.cluster", "give persona or cluster, not both")
    if not item.get("method"):
        reader.fault(path, "a phase needs a method")
        return None
    own = {key: item[key] for key in ("method", "label", "control", "set") if key in item}
    first = reader.entry(path, own, shared)
    tried = [reader.entry(f"fallbacks.{i}", again, shared, item["method"]) for i, again in enumerate(fallbacks)]
    candidates: dict[str, Entry] = {}
    for entry in (first, *tried):
        if entry:  # a fallback that is the phase's own method has been tried
            candidates.setdefault(entry.identity, entry)
    gates = reader.items(path, item, "gates", "gates, e.g. {beats: METHOD} or {reference: NUMBER}")
    return Phase(
        name,
        persona,
        cluster,
        tuple(candidates.values()),
        tuple(g for i, gate in enumerate(gates) if (g := _gate(reader, f"{path}.gates.{i}", gate, shared))),
        tuple(_published(reader, path, item)),
        reader.value(path, item, "if_failed", IfFailed, "stop"),
    )


def _gate(reader: Reader, path: str, item: Any, shared: RunConfig) -> Gate | None:
    if not isinstance(item, dict) or ("beats" in item) == ("reference" in item):
        reader.fault(path, "a gate is {beats: METHOD} or {reference: NUMBER, source: TEXT}")
        return None
    reader.keys(path, item, GATE_KEYS, "a gate")
    source = reader.value(path, item, "source", str, "")
    if "reference" in item:
        number = reader.value(path, item, "reference", float)
        return None if number is None else Gate(reference=number, source=source)
    try:
        return Gate(beats=reader.plain(str(item["beats"]), shared), source=source)
    except HarnessError as error:
        reader.fault(f"{path}.beats", str(error))
        return None


def _published(reader: Reader, path: str, item: Mapping[str, Any]) -> list[Published]:
    found = []
    given = item.get("published", [])
    for place, one in enumerate(given if isinstance(given, list) else [given]):
        where = f"{path}.published.{place}"
        if not isinstance(one, dict) or set(one) != {"score", "source"}:
            reader.fault(where, "a published number is {score: NUMBER, source: TEXT}")
            continue
        score, source = reader.value(where, one, "score", float), reader.value(where, one, "source", str)
        if score is not None and source:
            found.append(Published(score, source))
    return found


def _bands(reader: Reader, values: Mapping[str, Any]) -> tuple[Band, ...]:
    given = values.get("bands", [])
    if not isinstance(given, list):
        reader.fault("bands", "'bands' must be a list of {from: NUMBER, to: NUMBER, name: TEXT}")
        return ()
    bands: list[Band] = []
    for place, one in enumerate(given):
        where = f"bands.{place}"
        if not isinstance(one, dict) or set(one) != {"from", "to", "name"}:
            reader.fault(where, "a band is {from: NUMBER, to: NUMBER, name: TEXT}")
            continue
        low, high = reader.value(where, one, "from", float), reader.value(where, one, "to", float)
        name = reader.value(where, one, "name", str)
        if low is None or high is None or name is None:
            continue
        if not low < high:
            reader.fault(f"{where}.to", f"the band '{name}' ends at {high:g}, where it begins ({low:g}) or before")
        elif bands and low != bands[-1].high:
            reader.fault(f"{where}.from", f"'{name}' must begin where '{bands[-1].name}' ends ({bands[-1].high:g})")
        bands.append(Band(low, high, name))
    return tuple(bands)
