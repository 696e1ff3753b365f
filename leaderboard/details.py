"""What stands below a group's ranking in markdown: cost, further metrics, flags, protocol, commands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from harness.compare import Family, against_base_rates
from harness.runs import Base
from harness.show import interval, number, p_value, shown, yardstick_lines
from harness.statistics import ComparisonRow
from harness.text import code, fenced, markdown as md

from .remake import command
from .rows import Group, Line, flags_of, glossary


def cost(group: Group) -> str:
    if group.record.imported:
        return ""  # nothing is known of it
    head = ["method", "trained parameters", "per adapter", "adapters", "stored kB", "fits", "epochs", "steps",
            "M tokens", "fit s", "reply s", "peak MiB", "tuning trials"]  # fmt: skip
    text = "### Cost\n\n" + table(head, [_cost_row(line) for line in group.lines])
    below = [(line.name, line.cost.stands_on) for line in group.lines if line.cost]
    rows = [_base_row(name, base) for name, base in below if base and base.methods]
    if rows:
        head = ["method", "base", "trained parameters", "fits", "steps", "M tokens", "fit s"]
        text += "\n\nThe base of a method was fitted first; its cost is not included in the figures above:\n\n"
        text += table(head, rows)
    if len({line.family.first.record.trials for line in group.lines}) > 1:
        text += "\n\nThe methods were tuned with different numbers of trials. Keep this in mind when you compare them."
    return text


def _cost_row(line: Line) -> list[str]:
    spent = line.cost
    assert spent is not None
    return [
        md(line.name),
        f"{spent.trainable_parameters:,}",
        f"{spent.parameters_per_adapter:,}",
        str(spent.adapters),
        f"{spent.stored_bytes / 1e3:,.0f}",
        number(spent.fits, 0),
        str(spent.epochs),
        f"{spent.steps:,}",
        f"{spent.tokens / 1e6:.2f}",
        f"{spent.fit_seconds:.0f}",
        f"{spent.predict_seconds:.0f}",
        "-" if spent.peak_memory_bytes is None else f"{spent.peak_memory_bytes / 2**20:,.0f}",
        str(line.family.first.record.trials),
    ]


def _base_row(name: str, base: Base) -> list[str]:
    return [
        md(name),
        md(", ".join(base.methods)),
        f"{base.trainable_parameters:,}",
        number(base.fits, 0),
        f"{base.steps:,}",
        f"{base.tokens / 1e6:.2f}",
        f"{base.fit_seconds:.0f}",
    ]


def other_metrics(group: Group) -> str:
    names = [m for m in group.record.metrics if m != group.metric]
    if not names:
        return ""
    units = [group.record.metric_sums(m).unit for m in names]
    rows = []
    for line in group.lines:
        record = line.family.first.record
        scores = [shown(record, m, record.scores.get(m)) for m in names]
        rows.append([md(line.name), *(number(x, 2 if u == "pt" else 3) for x, u in zip(scores, units, strict=True))])
    heads = [f"{m} ({unit})" for m, unit in zip(names, units, strict=True)]
    return "### Also measured (no tests)\n\n" + table(["method", *map(md, heads)], rows)


def yardsticks(group: Group) -> str:
    """What predictors without a model reach, and which methods beat the person's base rate."""
    lines = yardstick_lines(group.record)
    if not lines:
        return ""
    text = (
        "### Yardsticks\n\nPredictors without a language model. An oracle has seen others' replies to the test items."
    )
    known = [one.knows for one in group.record.yardsticks]
    rows = [[*map(md, line.values()), md(knows)] for line, knows in zip(lines, known, strict=True)]
    parts = [text, table([*map(md, lines[0]), "made of"], rows)]
    for against in against_base_rates([line.family for line in group.lines]):
        unit = group.record.metric_sums(against.metric).unit
        where = f"*{md(against.yardstick.name)}* by {md(against.metric)} ({md(unit)})"
        parts.append(f"Against {where}, all methods tested jointly:")
        head = ["method", "delta", "simultaneous 95 % CI", "p adj.", "could detect", "so"]
        parts.append(table(head, [_beside(against.sentence(row), row) for row in against.rows]))
    return "\n\n".join(parts)


def _beside(words: str, row: ComparisonRow) -> list[str]:
    figures = [number(row.delta_pts, 3, sign=True), interval(row.sim_ci_pts, digits=3), p_value(row.p_adj)]
    return [md(row.method), *figures, number(row.mde80_adj_pts, 3), md(words)]


def flags(group: Group) -> str:
    rows = [f"* {md(line.name)}: {md(', '.join(found))}" for line in group.lines if (found := flags_of(line))]
    if not rows:
        return ""
    meanings = [f"* *{md(name)}*: {md(meaning)}" for name, meaning in glossary(group.lines).items()]
    return "### Flags\n\n" + "\n".join(rows) + "\n\nWhat they mean:\n\n" + "\n".join(meanings)


def protocol(group: Group) -> str:
    record = group.record
    if record.imported:
        files = "; ".join(
            f"{md(run.id)} from {md(file.name)} (sha256 {code(file.sha256[:12])})"
            for line in group.lines
            for run in line.family.runs
            if (file := run.record.imported)
        )
        words = "Imported: the common label states that all these runs used the same prompts and scoring"
        return f"### Protocol\n\n{words}, {md(record.imported.example_set)}. {files}."
    settings = ", ".join(
        f"{md(k)} {md(json.dumps(v, ensure_ascii=False))}"
        for k, v in sorted(record.protocol.items())
        if v not in ("", [])
    )
    hashes = ", ".join(f"{md(k)} {code(v[:12])}" for k, v in sorted(record.hashes.items()))
    versions = ", ".join(f"{md(k)} {md(v)}" for k, v in sorted(record.versions.items()))
    hardware = record.hardware
    machine = f"{md(hardware.get('processor', ''))}, {md(hardware.get('cores', '?'))} cores"
    return (
        f"### Protocol\n\n{settings}. Greedy decoding, one prompt builder, loss on assistant tokens only.\n\n"
        f"Hashes: {hashes}.\n\nMade with {versions}; {machine}, {md(record.numerics.get('threads', '?'))} threads, "
        f"{md(record.numerics.get('dtype', '?'))}."
    )


def how(group: Group) -> str:
    return "### How to reproduce\n\n" + commands(line.family for line in group.lines)


def commands(families: Iterable[Family]) -> str:
    return fenced(f"{command(run.record)}   # {run.id}" for family in families for run in family.runs)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabulate([list(row) for row in rows], headers=list(head), tablefmt="pipe", disable_numparse=True)
