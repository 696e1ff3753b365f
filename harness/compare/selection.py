"""Names on a command line -> families of stored runs. What may be compared is `harness.compare.guard`'s question.

A name is a method (all its seeds), a method with its control (`NAME-CONTROL`), the id of a run, the beginning of
ids, or several ids with commas between them. A name that fits several families is refused, with what differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.compare.guard import Family, families
from harness.config import flat
from harness.errors import StoreError, did_you_mean
from harness.runs import RunHead, StoredRun

_SHOWN = 8  # families in one refusal


def select(runs: Sequence[StoredRun], name: str, metric: str | None = None) -> Family:
    """The one family that `name` means. Raises StoreError if it means none or several.

    metric   where several fit, only those that have it are meant (an import has one metric)
    """
    known = families(runs)
    ids = {run.id: run for run in runs}
    found = [family for family in known if name in names_of(family)]
    if "," in name and not found:  # a row's name may hold commas, too
        return _joined([_one_run(ids, part.strip()) for part in name.split(",") if part.strip()], name)
    if name in ids:
        return _joined([_one_run(ids, name)], name)
    found = found or [f for f in known if name and any(run.id.startswith(name) for run in f.runs)]
    if len(found) > 1 and metric:
        found = [family for family in found if metric in family.first.head.metrics] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise StoreError(_ambiguous(name, found))
    broken = [run for run in runs if run.head.method == name or (name and run.id.startswith(name))]
    if broken:
        why = broken[0].head.error or "not finished; run the same command again"
        raise StoreError(f"'{name}' has no complete run: {broken[0].id} is {broken[0].head.status}: {why}")
    names = {label for family in known for label in names_of(family)} | set(ids)
    raise StoreError(f"there is no stored run of '{name}'; {did_you_mean(name, names)}")


def names_of(family: Family) -> tuple[str, ...]:
    """What a family may be called: its row's name, and its method's or, for a control, `NAME-CONTROL`."""
    record = family.first.head
    control = record.config.control
    return tuple(dict.fromkeys((family.name, f"{record.method}-{control}" if control else record.method)))


def _one_run(ids: Mapping[str, StoredRun], name: str) -> StoredRun:
    found = [ids[name]] if name in ids else [run for run_id, run in ids.items() if run_id.startswith(name)]
    if len(found) != 1:
        why = f"{len(found)} runs begin with '{name}'" if found else f"there is no run '{name}'"
        raise StoreError(f"{why}; {did_you_mean(name, [run.id for run in found] or ids)}")
    if not found[0].complete:
        record = found[0].head
        raise StoreError(f"{found[0].id} is {record.status}: {record.error or 'not finished'}")
    return found[0]


def _joined(runs: Sequence[StoredRun], name: str) -> Family:
    """One family of exactly these runs. Raises StoreError where they differ in more than the seed."""
    found = families(runs)
    if len(found) != 1:
        raise StoreError(f"'{name}' joins runs that differ in more than the seed:\n{_listing(found)}")
    if len(found[0].runs) != len({run.id for run in runs}):
        raise StoreError(f"'{name}' joins two runs of the same seed; one family has one run for each seed")
    return found[0]


def _ambiguous(name: str, found: Sequence[Family]) -> str:
    ids = ",".join(run.id for run in found[0].runs)
    return (
        f"'{name}' means {len(found)} different things among the stored runs:\n{_listing(found)}\n"
        f"name the runs instead, e.g. {ids}"
    )


def _listing(found: Sequence[Family]) -> str:
    facts = [_facts(family.first.head) for family in found]
    keys = list(dict.fromkeys(key for fact in facts for key in fact))
    unlike = [key for key in keys if len({str(fact.get(key)) for fact in facts}) > 1]
    # Hashes say that something differs; they are shown only where no words do.
    unlike = [key for key in unlike if not key.startswith("hash of ")] or unlike
    lines = []
    for family, fact in list(zip(found, facts, strict=True))[:_SHOWN]:
        what = ", ".join(f"{key} {fact.get(key)}" for key in unlike)
        lines.append(f"  {','.join(run.id for run in family.runs)}: {what}")
    if len(found) > _SHOWN:
        lines.append(f"  and {len(found) - _SHOWN} more")
    return "\n".join(lines)


def _facts(record: RunHead) -> dict[str, Any]:
    """What makes a family, by name, in the order in which a reader wants to know it."""
    facts: dict[str, Any] = {
        "method": record.method,
        "control": record.config.control,
        "benchmark": record.benchmark.name,
        "example set": record.imported.example_set if record.imported else None,
        "personas": record.n_personas,
        "replies": record.n_replies,
        "backbone": record.config.backbone,
    }
    for path, values in (
        ("option.", record.method_options), ("benchmark.", record.benchmark.options), ("protocol.", record.protocol),
    ):  # fmt: skip
        facts |= flat(values, path)
    facts |= record.changed_below
    facts |= {f"hash of {name}": value[:8] for name, value in record.hashes.items()}
    return facts | {"hash of plugin": record.plugin.sha256[:8]}
