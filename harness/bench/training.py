"""`bench train`: which cases are measured, and what their figures say beside each other.

Tables as text are in report; the processes in measure.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.bench import ladder, ways
from harness.bench.job import Job, turn_examples
from harness.bench.measure import Case, Measured
from harness.bench.peers import STUDY_WIDTH
from harness.model import Encoded

LADDER_PERSONAS, LADDER_EPOCHS = 4, 1
# way -> (what it is compared with, how many times faster that is asked to be: 200 prompts, tiny, 2 cores)
ASKED = {"study_loop": ("bank", 20.0), "trainer": ("bank", 3.0), "plain_loop": ("bank", 1.4)}
ASKED |= {"plain_stopping": ("bank_stopping", 2.0)}
ASKED_OF_SHAPES = {"peft_loop": ("bank", 2.0)}  # of a real model's shape
ASKED_ALONE = 1 / 1.1  # one adapter: the bank may take 10 % longer than the tuned loop


@dataclass(frozen=True)
class Measurements:
    """What is measured.

    ways     names from ways.WAYS
    subset   way -> personas it is measured on at most; its figure is scaled to all
    sizes    numbers of adapters for the table of sizes;  rungs: names of the ladder
    ladder_personas, ladder_epochs   the size of the ladder's job
    asked    way -> (what it is compared with, how many times faster that is asked to be)
    """

    ways: Sequence[str]
    subset: Mapping[str, int]
    sizes: Sequence[int]
    rungs: Sequence[str]
    ladder_personas: int = LADDER_PERSONAS
    ladder_epochs: int = LADDER_EPOCHS
    asked: Mapping[str, tuple[str, float]] = field(default_factory=lambda: ASKED)


def asked_of(shape: str) -> Mapping[str, tuple[str, float]]:
    """What is asked of the ways: on the embedded model, or on a real model's shape."""
    return ASKED if shape == "tiny" else ASKED_OF_SHAPES


def cases(job: Job, plan: Measurements) -> list[Case]:
    """Every case once; the table of sizes shares the case with all personas with the table of ways."""
    people = len(job.keys)
    found = [_case(job, way, min(plan.subset.get(way, people), people), people) for way in plan.ways]
    for size in plan.sizes:
        if size < people:
            found += [_case(job, way, size, size, f"{way} {size}") for way in ("bank", "plain_loop")]
    few = min(plan.ladder_personas, people)
    for rung in plan.rungs:
        found.append(_case(job, ways.LADDER + rung, few, few, epochs=plan.ladder_epochs))
    if plan.rungs:
        found.append(_case(job, "bank", few, few, f"bank {few} short", plan.ladder_epochs))
    return found


def _case(job: Job, way: str, amount: int, of: int, label: str | None = None, epochs: int | None = None) -> Case:
    keys = job.keys[:amount]
    passes = epochs or job.options.epochs
    rows: list[Encoded] = [row for key in keys for row in job.train[key]]
    work = passes * sum(_width(row, way, job.spec.tokens) for row in rows) / 1000
    scale = sum(len(job.train[key]) for key in job.keys[:of]) / len(rows)
    return Case(label or way, way, "train", amount, of, scale, epochs, work=work, reported=passes * len(rows))


def _width(row: Encoded, way: str, prefix: int) -> int:
    """Padded tokens that a dialogue costs, roughly."""
    names = way.removeprefix(ways.LADDER)
    switches = ladder.Switches.named("none" if way == "study_loop" else names) if _switched(way) else None
    if switches is None:
        return prefix + len(row)
    examples = [row] if switches.whole_dialogues else turn_examples(row)
    return sum(prefix + (len(e) if switches.dynamic_padding else STUDY_WIDTH) for e in examples)


def _switched(way: str) -> bool:
    return way.startswith(ways.LADDER) or way == "study_loop"


# ---- figures ----


def tables(job: Job, plan: Measurements, measured: Sequence[Measured]) -> dict[str, Any]:
    """All figures as plain data: ways, sizes, ladder, and how equal the results are."""
    by_label = {m.case.label: m for m in measured}
    common = min((by_label[way].case.amount for way in plan.ways), default=0)
    people = job.keys[:common]
    rows = [_row(by_label[way], by_label, people, plan.asked) for way in plan.ways]
    return {
        "ways": rows,
        "sizes": [row for size in plan.sizes if (row := _size(size, len(job.keys), by_label))],
        "ladder": _ladder(plan, by_label),
        "equality": _equality(by_label),
    }


def _row(
    m: Measured, by_label: Mapping[str, Measured], people: Sequence[str], asks: Mapping[str, tuple[str, float]]
) -> dict[str, Any]:
    seconds = m.seconds()
    losses = [statistics.mean(r["validation_loss"][key] for key in people) for r in m.results]
    fits = [r["seconds"] - r["load_seconds"] - r["save_seconds"] for r in m.results]
    rates = [r["tokens"] / s for r, s in zip(m.results, fits, strict=True)]
    other, asked = asks.get(m.case.way, ("bank", None))
    reference = by_label.get(other)
    faster = _ratios(seconds, reference.seconds()) if reference and reference is not m else None
    return {
        "way": m.case.label,
        "personas": m.case.of,
        "measured_on": m.case.amount,
        "seconds": spread(seconds),
        "against": other if faster else None,
        "times_faster": spread(faster) if faster else None,
        "asked": asked if faster else None,
        "steps": round(m.middle("steps") * m.case.scale),
        "epochs": m.middle("epochs"),
        "tokens_per_second": spread(rates),
        "padding": 1 - m.middle("tokens") / m.middle("padded_tokens"),
        "peak_bytes": int(m.middle("peak_bytes")),
        "before_bytes": int(m.middle("before_bytes")),
        "device_peak_bytes": int(m.middle("device_peak_bytes")) if "device_peak_bytes" in m.results[0] else None,
        "validation_loss": statistics.median(losses),
        "loss_of_personas": len(people),
    }


def _ratios(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    """Of the same repeat: what drifted, drifted for both."""
    return [a / b for a, b in zip(slow, fast, strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _size(size: int, people: int, by_label: Mapping[str, Measured]) -> dict[str, Any] | None:
    suffix = "" if size == people else f" {size}"
    bank, loop = by_label.get(f"bank{suffix}"), by_label.get(f"plain_loop{suffix}")
    if bank is None or loop is None:
        return None
    ratios = _ratios(loop.seconds(), bank.seconds())
    return {
        "adapters": size,
        "bank_seconds": spread(bank.seconds()),
        "plain_loop_seconds": spread(loop.seconds()),
        "times_faster": spread(ratios),
        "asked": ASKED_ALONE if size == 1 else None,
        "bank_peak_bytes": int(bank.middle("peak_bytes")),
        "padding": 1 - bank.middle("tokens") / bank.middle("padded_tokens"),
    }


def _ladder(plan: Measurements, by_label: Mapping[str, Measured]) -> list[dict[str, Any]]:
    found = []
    bottom = by_label[ways.LADDER + "none"].seconds() if "none" in plan.rungs else None
    labels = [ways.LADDER + rung for rung in plan.rungs]
    labels += [label for label in by_label if label.startswith("bank ") and label.endswith(" short")]
    for label in labels:
        m = by_label[label]
        seconds = m.seconds()
        found.append({
            "techniques": "the harness" if m.case.way == "bank" else label.removeprefix(ways.LADDER),
            "personas": m.case.amount,
            "seconds": spread(seconds),
            "times_faster": spread(_ratios(bottom, seconds)) if bottom else None,
            "steps": round(m.middle("steps")),
            "padding": 1 - m.middle("tokens") / m.middle("padded_tokens"),
            "peak_bytes": int(m.middle("peak_bytes")),
            "validation_loss": statistics.mean(m.results[0]["validation_loss"].values()),
        })  # fmt: skip
    return found


def _equality(by_label: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """The bank's adapters beside those of the tuned loop, which made the same steps."""
    found = []
    for ours, theirs in (("bank", "plain_loop"), ("bank_stopping", "plain_stopping")):
        if ours in by_label and theirs in by_label:
            distance, size = difference(by_label[ours].prompts, by_label[theirs].prompts)
            found.append({"ways": [ours, theirs], "largest_difference": distance, "largest_value": size})
    return found


def difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> tuple[float, float]:
    """Largest difference of any number of the adapters that both have, and the largest number."""
    common = sorted(set(ours) & set(theirs))
    a, b = (torch.stack([table[key].double() for key in common]) for table in (ours, theirs))
    return float((a - b).abs().max()), float(b.abs().max())
