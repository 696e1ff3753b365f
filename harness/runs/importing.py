"""Scores made elsewhere -> a stored run without adapters. `harness.compare` decides what such a run is compared with.

Reading the file is `score_file`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.contract import read_file
from harness.errors import ConfigError, DataError, HarnessError, StoreError
from harness.runs.record import BenchmarkSource, Imported, ImportedFile, PluginSource, RunHead, RunRecord, Settings
from harness.runs.replies import write_scores
from harness.runs.score_file import ScoreLine, Unit, read_scores
from harness.runs.stored import StoredRun, all_runs, write_run
from harness.scoring import MetricSums, PersonaSums, expand_metrics, metric_named, overall
from harness.store import Store, canonical_hash

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Source:
    """What the user says about a file of scores.

    metric            any name; one that is not known here needs unit and higher_is_better
    example_set       label of the replies that were scored; runs of one label are compared, no others
    unit              of the scores: "share" 0-1 and "pt" 0-100 for metrics in points, else "raw"; None: share or raw
    baseline          the method that the leaderboard compares with
    higher_is_better  direction of the metric; None: the known metric's
    """

    path: Path
    method: str
    benchmark: str
    metric: str
    example_set: str
    unit: Unit | None = None
    seed: int = 0
    baseline: str | None = None
    higher_is_better: bool | None = None


def import_scores(source: Source, store: Store) -> tuple[StoredRun, bool]:
    """The stored run of a file of scores, and whether it is new (the same file again changes nothing).

    Raises DataError with every fault of the file, HarnessError for a wrong name or unit, StoreError where another
    file was imported under the same method, label, metric and seed.
    """
    _check(source)
    metric, unit = _metric_of(source)
    try:
        data = read_file(source.path)
    except OSError as error:
        raise DataError(f"{source.path}: cannot be read ({error.strerror or error})") from error
    lines = read_scores(source.path, data, unit)
    digest = hashlib.sha256(data).hexdigest()
    identity = (source.method, source.benchmark, source.metric, source.example_set, source.seed)
    run_id = f"{source.method}-import-{canonical_hash([*identity, unit, metric.higher_is_better, digest])[:12]}"
    with store.lock("imports"):  # two at once are seen by each other
        store.clear_abandoned()
        for run in all_runs(store.root, named=f"{source.method}-import-"):
            if run.id == run_id and run.complete:
                return run, False
            if run.complete and _identity(run.head) == identity:
                raise StoreError(
                    f"{run.id} has other scores of '{source.method}' on '{source.example_set}', seed {source.seed}, or "
                    "another unit or direction; choose another --seed or --method, or delete that run's folder"
                )
        return _write(source, metric, unit, lines, digest, run_id, store), True


def notes_on(run: StoredRun) -> list[str]:
    """What looks like a slip in an import that nothing forbids."""
    file = run.record.imported
    (entry,) = run.record.sums.metrics.values()
    largest = max(abs(total / n) for total, n in zip(entry.sum, entry.n, strict=True))
    if file and file.unit == "pt" and 0 < largest <= 0.01:
        return [
            f"no persona scores more than {100 * largest:.3g} of 100 points; if the scores of {file.name} are "
            "shares from 0 to 1, delete this run's folder and import them with --unit share"
        ]
    return []


def _identity(record: RunHead) -> tuple[str, str, str, str, int] | None:
    """What no two imports may share; None for a run that the harness made."""
    if record.imported is None:
        return None
    return record.method, record.benchmark.name, record.metric, record.imported.example_set, record.seed


def _check(source: Source) -> None:
    """Raises HarnessError for what the file need not be read to refuse."""
    for what in ("method", "benchmark", "metric"):
        name = getattr(source, what)
        if not _NAME.fullmatch(name):
            raise HarnessError(f"--{what} '{name}': use letters, digits, _ . and - only")
    if not source.example_set.strip():
        raise HarnessError("--example-set needs a label: a word for the replies that were scored")
    if source.seed < 0:
        raise HarnessError(f"--seed must be 0 or more, not {source.seed}")


def _metric_of(source: Source) -> tuple[MetricSums, Unit]:
    """What the record says of the metric, still without sums, and the unit of the file.

    Raises HarnessError for a metric without a mean, and for flags that are missing or contradict the known metric.
    """
    up = source.higher_is_better
    try:
        members = expand_metrics([source.metric])
    except ConfigError as error:
        if source.unit is None or up is None:
            flags = "--unit, and --higher-is-better or --lower-is-better"
            raise HarnessError(f"{error}\nTo import scores of a metric that is not known here, give {flags}") from error
        unit = "raw" if source.unit == "raw" else "pt"
        return MetricSums(unit=unit, higher_is_better=up, summary="scores made elsewhere"), source.unit
    if members != (source.metric,):
        raise HarnessError(f"{source.metric} is a group of metrics; import one of {', '.join(members)}")
    metric = metric_named(source.metric)
    if metric.pooled:
        raise HarnessError(
            f"{source.metric} is computed from counts over all replies: its per-persona values have no mean to test. "
            "Import a metric that is a mean over replies"
        )
    allowed = ("share", "pt") if metric.unit == "pt" else ("raw",)
    unit = source.unit or allowed[0]
    if unit not in allowed:
        raise HarnessError(f"--unit {unit} does not fit {source.metric} ({metric.unit}); use {' or '.join(allowed)}")
    if up not in (None, metric.higher_is_better):
        right, wrong = ("higher", "lower") if metric.higher_is_better else ("lower", "higher")
        raise HarnessError(f"--{wrong}-is-better does not fit {source.metric}; use --{right}-is-better or neither")
    entry = MetricSums(unit=metric.unit, higher_is_better=metric.higher_is_better, summary=metric.summary)
    return entry, unit


def _write(
    source: Source,
    metric: MetricSums,
    unit: Unit,
    lines: Sequence[ScoreLine],
    digest: str,
    run_id: str,
    store: Store,
) -> StoredRun:
    totals: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    for line in lines:
        totals.setdefault(line.persona, []).append(line.score * line.n)
        counts[line.persona] = counts.get(line.persona, 0) + line.n
    personas = sorted(totals)
    replies = [counts[p] for p in personas]
    entry = metric.model_copy(update={"sum": tuple(math.fsum(totals[p]) for p in personas), "n": tuple(replies)})
    sums = PersonaSums(personas=tuple(personas), replies=tuple(replies), metrics={source.metric: entry})
    # Not part of what makes runs alike (the label is), but seeds of one method must agree in them to be one row.
    more = {"replies": canonical_hash(dict(zip(personas, replies, strict=True))), **_example_ids(lines)}
    record = _record(source, unit, digest, run_id, sums, more)

    def fill(folder: Path) -> None:
        if lines[0].example is not None:
            ids, personas = [_example_id(line) for line in lines], [line.persona for line in lines]
            write_scores(folder, ids, personas, {source.metric: [line.score for line in lines]})

    return write_run(store, record, fill)


def _example_id(line: ScoreLine) -> str:
    """One persona's example "3" is not another's."""
    return f"{line.persona}/{line.example}"


def _example_ids(lines: Sequence[ScoreLine]) -> dict[str, str]:
    """Hash of which replies were scored, whatever their order; nothing where the file has means only."""
    if lines[0].example is None:
        return {}
    return {"example_ids": canonical_hash(sorted(_example_id(line) for line in lines))}


def _record(source: Source, unit: Unit, digest: str, run_id: str, sums: PersonaSums, more: dict[str, str]) -> RunRecord:
    """The record of an import, empty where nothing is known; `more`: hashes beside those that the guard asks for."""
    metric = sums.metrics[source.metric]
    protocol = {"metric": source.metric, "unit": metric.unit, "higher_is_better": metric.higher_is_better}
    hashes = {
        "protocol": canonical_hash(["imported", protocol]),
        "examples": canonical_hash(["imported", source.benchmark, source.example_set]),
        **dict.fromkeys(("split", "backbone", "scorer"), "imported"),
    }
    return RunRecord(
        id=run_id,
        status="ok",
        imported=ImportedFile(name=source.path.name, sha256=digest, unit=unit, example_set=source.example_set),
        method=source.method,
        plugin=PluginSource(distribution="imported", version="", file="", sha256=""),
        summary=f"scores imported from {source.path.name}",
        config=Settings(
            method=source.method,
            benchmark=source.benchmark,
            baseline=source.baseline,
            backbone="imported",
            seed=source.seed,
        ),
        seed=source.seed,
        benchmark=BenchmarkSource(
            name=source.benchmark, options={}, facts={"example set": source.example_set}, sha256=""
        ),
        protocol=protocol,
        metrics=(source.metric,),
        hashes={**hashes, **more},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        n_personas=len(sums.personas),
        n_replies=sum(sums.replies),
        scores={source.metric: overall(sums, source.metric)},
        flags=(Imported(),),
        per_persona=sums,
    )
