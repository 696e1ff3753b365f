"""Sums per persona in files of their own: what run.json holds for few people, people.parquet holds for many.

A file is one `PersonaSums`, a row a persona, in data set order:

| column | what it is |
|---|---|
| persona, replies | whose row it is, and how many examples they have |
| cluster | whole numbers or text, as the data have it; JSON where a data set has both |
| METRIC.sum, METRIC.n | of a metric that is a mean: the sum of its values, and of how many |
| METRIC.counts.COLUMN, METRIC.values | of a pooled metric: counts, and jackknife pseudo-values where they are defined |

What is said of the metrics themselves stands in the file's metadata. pyarrow is imported on first use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StoreError
from harness.runs.record import RunRecord
from harness.scoring import MetricSums, PersonaSums
from harness.store import file_damage

if TYPE_CHECKING:
    import pyarrow

INLINE = 1_000  # people whose sums stay in run.json, where a person reads them and thousands of runs are quick to read
_FILE = re.compile(r"people(-[a-z0-9]+)*\.parquet")
_ABOUT = b"harness"


def write_people(folder: Path, record: RunRecord) -> dict[str, str]:
    """Write the sums of many people to files; returns the place of each in the record -> the file's name."""
    large = {place: sums for place, sums in record.all_sums.items() if len(sums.personas) > INLINE}
    files = {place: _name(place) for place in large}
    for place, sums in large.items():
        write_sums(folder / files[place], sums)
    return files


def _name(place: str) -> str:
    """per_persona -> people.parquet, yardsticks.0.per_persona -> people-yardsticks-0.parquet."""
    return "-".join(["people", *place.split(".")[:-1]]) + ".parquet"


def with_people(value: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The JSON value of a record with the sums in place of `{"file": NAME}`.

    Raises StoreError for a file that is damaged, missing, or none of a run.
    """
    found = dict(value)
    digests = value.get("files")
    digests = digests if isinstance(digests, dict) else {}

    def filled(part: Any) -> Any:
        if not isinstance(part, dict) or not isinstance(part.get("per_persona"), dict):
            return part
        name = part["per_persona"].get("file")
        if name is None:
            return part
        if not isinstance(name, str) or not _FILE.fullmatch(name) or not isinstance(digests.get(name), str):
            raise StoreError(f"{folder / 'run.json'}: per_persona: {name!r:.60} is no file of this run")
        if fault := file_damage(folder / name, digests[name]):
            raise StoreError(fault)
        return {**part, "per_persona": read_sums(folder / name)}

    if isinstance(found.get("yardsticks"), list):
        found["yardsticks"] = [filled(one) for one in found["yardsticks"]]
    if "unseen" in found:
        found["unseen"] = filled(found["unseen"])
    return filled(found)


def write_sums(path: Path, sums: PersonaSums) -> None:
    """Write a file of sums. Raises StoreError."""
    import pyarrow
    import pyarrow.parquet

    clusters, kind = _written_clusters(sums.clusters)
    columns: dict[str, Any] = {
        "persona": pyarrow.array(sums.personas, pyarrow.string()),
        "replies": pyarrow.array(sums.replies, pyarrow.int64()),
    }
    if clusters is not None:
        columns["cluster"] = clusters
    about: dict[str, Any] = {"clusters": kind, "metrics": {}}
    for name, entry in sums.metrics.items():
        about["metrics"][name] = {
            "unit": entry.unit,
            "higher_is_better": entry.higher_is_better,
            "summary": entry.summary,
            "counts": None if entry.counts is None else list(entry.counts),
            "values": entry.values is not None,
        }
        columns |= {f"{name}.{column}": values for column, values in _columns(entry)}
    try:
        table = pyarrow.table(columns).replace_schema_metadata({_ABOUT: json.dumps(about)})
        pyarrow.parquet.write_table(table, path, compression="zstd")
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise StoreError(f"cannot write {path}: {error}") from error


def _columns(entry: MetricSums) -> Iterable[tuple[str, pyarrow.Array]]:
    import pyarrow

    def numbers(values: Iterable[float]) -> pyarrow.Array:
        return pyarrow.array(values, pyarrow.float64())

    if entry.counts is None:
        yield "sum", numbers(entry.sum)
        yield "n", pyarrow.array(entry.n, pyarrow.int64())
    for column, values in (entry.counts or {}).items():
        yield f"counts.{column}", numbers(values)
    if entry.values is not None:
        yield "values", numbers(entry.values)


def _written_clusters(clusters: tuple[int | str | None, ...] | None) -> tuple[pyarrow.Array | None, str | None]:
    """Clusters as a column, and how to read it: "int", "text" or "json"."""
    import pyarrow

    if clusters is None:
        return None, None
    kinds = {type(cluster) for cluster in clusters if cluster is not None}
    if kinds <= {int}:
        return pyarrow.array(clusters, pyarrow.int64()), "int"
    if kinds == {str}:
        return pyarrow.array(clusters, pyarrow.string()), "text"
    return pyarrow.array(map(json.dumps, clusters), pyarrow.string()), "json"


def read_sums(path: Path) -> PersonaSums:
    """The sums in a file that `write_sums` wrote. Raises StoreError."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path).read()
        about = json.loads((table.schema.metadata or {})[_ABOUT])

        def column(name: str) -> tuple[Any, ...]:
            return tuple(table[name].to_pylist())

        clusters = column("cluster") if about["clusters"] else None
        if clusters is not None and about["clusters"] == "json":
            clusters = tuple(map(json.loads, clusters))
        metrics = {}
        for name, said in about["metrics"].items():
            counts, values = said.pop("counts"), said.pop("values")
            if counts is None:
                said |= {"sum": column(f"{name}.sum"), "n": column(f"{name}.n")}
            else:
                said["counts"] = {one: column(f"{name}.counts.{one}") for one in counts}
            said["values"] = column(f"{name}.values") if values else None
            metrics[name] = MetricSums(**said)
        return PersonaSums(personas=column("persona"), clusters=clusters, replies=column("replies"), metrics=metrics)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pyarrow.ArrowException) as error:
        raise StoreError(f"cannot read {path}: {error}") from error
