"""Text for people about stored runs: a joint comparison, one run read closely, two runs side by side. No computing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.compare import Diff, Joint, Plan, Sample, View
from harness.runs import Cost, Learning, RunRecord, StoredRun
from harness.scoring import scale
from harness.show.layout import Block, as_text, table_lines
from harness.show.printing import interval, number, p_value, shown
from harness.text import as_lines, one_line, terminal


def _digits(unit: str) -> int:
    return 2 if unit == "pt" else 3


def joint_lines(found: Joint) -> list[dict[str, Any]]:
    """The lines of a comparison's table, the baseline's last."""
    unit = found.own.unit
    micro = found.estimand == "micro"
    score = f"{found.metric} ({unit})" if unit != "raw" else found.metric

    digits = _digits(unit)

    def own(row) -> str:
        return number(row.score_micro_pts if micro else row.score_macro_pts, digits)

    lines = [
        {
            "": row.method, score: own(row), "delta": number(row.delta_pts, digits, sign=True),
            "se": number(row.se_pts, digits), "df": number(row.df, 0 if row.df == int(row.df) else 1),
            "95 % CI": interval(row.ci95_pts, digits=digits),
            "simultaneous CI": interval(row.sim_ci_pts, digits=digits), "p": p_value(row.p_raw),
            "p adj.": p_value(row.p_adj), "seeds": len(row.seeds),
        }
        for row in found.rows
    ]  # fmt: skip
    base = {"": found.own.method, score: own(found.own), "seeds": len(found.own.seeds)}
    return [*lines, {key: base.get(key, "") for key in lines[0]}]


def joint_text(found: Joint) -> str:
    """The table of a comparison, a verdict a line, what varies between clusters, notes."""
    return as_text(joint_blocks(found))


def joint_blocks(found: Joint) -> list[Block]:
    """The same as a table and sentences."""
    text: list[Block] = [joint_lines(found)]
    replies = found.baseline.first.record.n_replies
    kind = "mean over replies" if found.estimand == "micro" else "mean over personas"
    text.append(f"{found.own.n_personas} personas, {replies} replies; {found.estimand}: {kind}")
    for place, row in enumerate(found.rows):
        text.append(f"{row.method}: {row.verdict}")
        if flags := found.flags(place):
            text.append(f"  flags: {', '.join(flags)}")
        if row.method in found.clusters:
            text += _clusters(found.clusters[row.method], found.own.unit)
    text += [f"note: {note}" for note in found.notes]
    if found.own.reference:
        against = found.own.reference
        parts = [
            f"{row.method} {number(row.reference.delta_pts, sign=True)} (p {p_value(row.reference.p)}"
            + (
                ""
                if row.reference.p_with_se is None
                else f", including the published standard error {p_value(row.reference.p_with_se)}"
            )
            + ")"
            for row in (*found.rows, found.own)
            if row.reference
        ]
        text.append(f"against the published {against.score_pts:.2f}: {', '.join(parts)}; {against.caveat}")
    return text


def _clusters(groups, unit: str) -> list[str]:
    factor, digits = scale(unit), _digits(unit)
    rows = [
        {
            "cluster": g.group,
            "personas": g.n_personas,
            "replies": g.n_replies,
            "delta": number(g.delta * factor, digits, sign=True),
            "simultaneous CI": interval([x * factor for x in g.ci], digits=digits) if g.ci else "",
            "p adj.": p_value(g.p_adj) if g.ci else "",
        }
        for g in groups.rows
    ]
    return [f"  {groups.sentence}", *table_lines(rows, indent=2)]


def run_text(run: StoredRun, seen: View | None, sampled: Sequence[Sample], top: int) -> str:
    """A stored run for reading: what it is, scores, cost, flags, clusters, best and worst personas, replies.

    seen  None: it is not complete, or none of its metrics has a value per reply
    """
    record = run.record
    if not run.complete:
        return as_lines(_head(record))
    lines = [*_head(record), "", *table_lines(_scores(record))]
    if record.cost:
        lines += ["", *_cost(record.cost)]
    if learnt := run.learning():
        lines += ["", *_learning(learnt)]
    if record.flags:
        lines.append("flags: " + "; ".join(map(str, record.flags)))
    if seen:
        lines += _view(seen, top)
    if sampled:
        lines += ["", "replies:"]
        for sample in sampled:
            score = f"  {seen.metric} {number(sample.score, _digits(seen.unit))}" if seen else ""
            lines.append(f"  {one_line(sample.id)}{score}")
            lines += _texts(sample.prompt, sample.reference, [("reply", sample.reply)])
    return as_lines(lines)


def run_blocks(run: StoredRun) -> list[Block]:
    """What a stored run is, and its scores."""
    record = run.record
    flags = ["flags: " + "; ".join(map(str, record.flags))] if record.flags else []
    return [*_head(record), *([_scores(record)] if run.complete else []), *flags]


def _head(record: RunRecord) -> list[str]:
    if record.status != "ok":
        return [f"{record.id}: {record.status}: {record.error or 'not finished; run the same command again'}"]
    lines = [
        f"{record.id}: {record.row_name} on {record.benchmark.name}, backbone {record.config.backbone}, "
        f"seed {record.seed}",
        f"{record.n_personas} personas, {record.n_replies} replies; made {record.created}",
    ]
    if file := record.imported:
        lines.append(f"imported from {file.name} (sha256 {file.sha256[:12]}), example set {file.example_set}")
    return lines


def _scores(record: RunRecord) -> list[dict[str, str]]:
    return [{"metric": m, "score": number(shown(record, m, record.scores.get(m)), 3)} for m in record.metrics]


def _texts(prompt: str | None, reference: str | None, replies: Sequence[tuple[str, str | None]]) -> list[str]:
    """What was asked, what the person really got and what was replied, one under the other for the eye to compare."""
    known = [(name, text) for name, text in (("prompt", prompt), ("reference", reference)) if text is not None]
    named = [*known, *((name, "(no reply stored)" if text is None else text) for name, text in replies)]
    named = [(one_line(name), text) for name, text in named]
    wide = max(len(name) for name, _ in named) + 2
    return [
        f"    {name + ':' if i == 0 else '':<{wide}}{line}"
        for name, text in named
        for i, line in enumerate(terminal(text).split("\n"))
    ]


def _cost(cost: Cost) -> list[str]:
    """The method's own cost, and beside it that of the methods that it stands on."""
    base = cost.stands_on
    apart = {} if base is None else base.model_dump(exclude={"methods"})
    head = "base " + ", ".join(base.methods) if base and base.methods else "base"

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:,}"

    return table_lines(
        [
            {"cost": name, "own": cell(value), head: cell(apart[name]) if name in apart else ""}
            for name, value in cost.model_dump(exclude={"stands_on"}).items()
        ]
    )


def _learning(found: Learning) -> list[str]:
    """Validation loss by epoch: mean and band over adapters. One that has stopped early counts with its lowest loss."""
    adapters = f"{found.adapters} adapter{'s' * (found.adapters != 1)}"
    rows = [
        {
            "epoch": "start" if epoch == 0 else str(epoch),
            "validation loss": f"{mean:.4f}",
            **({"10 % to 90 %": f"{low:.4f} to {high:.4f}"} if found.adapters > 1 else {}),
            "training": str(training),
        }
        for epoch, mean, low, high, training in zip(
            found.epochs, found.mean, found.low, found.high, found.training, strict=True
        )
    ]
    return [f"learning, nats a token over {adapters}:", *table_lines(rows)]


def _view(seen: View, top: int) -> list[str]:
    digits = _digits(seen.unit)
    lines = ["", f"by {seen.metric}" + (f" ({seen.unit})" if seen.unit != "raw" else "")]
    if seen.clusters:
        rows = [
            {
                "cluster": c.cluster, "personas": c.n_personas, "replies": c.n_replies, "mean": number(c.mean, digits),
                "95 % CI": interval(c.ci95, sign=False, digits=digits) if c.ci95 else "",
            }
            for c in seen.clusters
        ]  # fmt: skip
        lines += [*table_lines(rows), ""]
    many = len(seen.personas) > 2 * top
    shown_rows = [*seen.personas[:top], *seen.personas[-top:]] if many else seen.personas
    rows = [
        {
            "persona": p.persona, "cluster": p.cluster, "replies": p.n, "plain mean": number(p.mean, digits),
            "estimate": number(p.estimate, digits) if p.estimate is not None else "",
            "95 % CI": interval((p.low, p.high), sign=False, digits=digits) if p.estimate is not None else "",
        }
        for p in shown_rows
    ]  # fmt: skip
    if top > 0:
        lines.append(f"the best {top} and the worst {top} of {len(seen.personas)} personas:" if many else "personas:")
        lines += table_lines(rows)
    if seen.spread is not None:
        spread, noise = (number(x, digits) for x in (seen.spread, seen.noise))
        lines.append(f"between personas: sd {spread}; noise of a persona's mean: sd {noise}")
    return lines + [f"note: {note}" for note in seen.notes]


def diff_text(found: Diff, top: int) -> str:
    """Where two runs differ most, example by example."""
    first, second = found.runs
    unit, digits = "" if found.unit == "raw" else f" {found.unit}", _digits(found.unit)
    lines = [
        f"{second} minus {first}, {found.metric}: {number(found.mean_delta, digits, sign=True)}{unit} "
        f"on {found.n} examples; {found.higher} higher, {found.lower} lower, {found.equal} equal"
    ]
    if found.undefined:
        lines.append(f"{found.undefined} further examples are left out: {found.metric} is undefined in one of the runs")
    if found.same_replies is not None:
        lines.append(f"{found.same_replies} replies are the same text")
    for x in found.examples[:top]:
        if x.delta == 0:
            break
        lines.append("")
        lines.append(f"{one_line(x.id)} ({one_line(x.persona)}): {number(x.delta, digits, sign=True)}")
        names = [f"{run} ({number(score, digits)})" for run, score in zip(found.runs, x.scores, strict=True)]
        lines += _texts(x.prompt, x.reference, list(zip(names, x.replies, strict=True)))
    return as_lines(lines)


def plan_text(found: Plan) -> str:
    """What a planned comparison can find, in sentences."""
    spread, unit = found.spread, "" if found.unit == "raw" else f" {found.unit}"
    line = f"persona differences: sd {spread.sd:.3g}{unit}"
    if spread.replies is not None:
        line += f" with {spread.replies:.3g} replies a persona"
    if spread.true_sd is not None:
        line += f" ({spread.true_sd:.3g} between personas, {spread.reply_sd:.3g} of a reply)"
    lines = [line + (f", measured on {spread.personas} personas" if spread.personas else "")]
    share = f"{found.power:.0%}"
    if found.mde is not None:
        lines.append(f"{found.personas} personas: detect a true difference of {found.mde:.3g}{unit} with {share} power")
    if found.difference is not None:
        text = f"a true difference of {found.difference:g}{unit}: {found.personas_needed} personas for {share} power"
        if found.power_at is not None:
            text += f"; {found.personas} personas have {found.power_at:.0%}"
        lines.append(text)
    return as_lines([*lines, *(f"note: {note}" for note in found.notes)])
