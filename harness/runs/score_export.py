"""A run's scores in two formats of others: Every Eval Ever's JSON and the Hub's `.eval_results` YAML.

Every Eval Ever: schema 0.3.0 (the package every-eval-ever 0.3.0, `schemas/eval.schema.json`). The Hub: as
huggingface_hub 2.4 writes it (`EvalResultEntry`; https://huggingface.co/docs/hub/eval-results).
Adapters are `export`.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import harness
from harness.errors import HarnessError, StoreError
from harness.runs.export import check_free, check_personas
from harness.runs.export_readme import base_named, literal, python_block
from harness.runs.record import RunRecord
from harness.runs.stored import StoredRun
from harness.scoring import MetricSums, PersonaSums, overall, scale
from harness.statistics import mean_and_se
from harness.store import new_folder
from harness.text import code, one_line

LIBRARY = "peft-personalisation-harness"
EEE_SCHEMA = "0.3.0"
FEWEST = 6  # personas: fewer have no standard error, as everywhere


def export_every_eval_ever(run: StoredRun, personas: Sequence[str], output: Path) -> Path:
    """Write the run's scores as one Every Eval Ever file in a new folder; returns the file.

    personas  a result for each of them and metric; none named: one for all a metric
    Raises HarnessError for an unfinished run, an unknown persona, and an output that is not empty.
    """
    record = _scored(run, personas, output)
    value = _every_eval_ever(record, personas, str(time.time()))
    place = Path("data", _word(record.benchmark.name), *value["model_info"]["id"].split("/"), f"{uuid.uuid4()}.json")
    code_lines = [
        "import json", "from pathlib import Path", "",
        f"file = Path({literal(place.as_posix())})",
        'for result in json.loads(file.read_text(encoding="utf-8"))["evaluation_results"]:',
        '    metric, score = result["metric_config"], result["score_details"]',
        '    print(result["evaluation_name"], metric["metric_name"], score["score"])',
    ]  # fmt: skip
    words = (
        f"`{place.as_posix()}` holds the scores in the format of [Every Eval Ever](https://evalevalai.com), schema "
        f"{EEE_SCHEMA}. Its folders are those of their data store. `every_eval_ever validate` of their package "
        "checks it. Before you hand it in, put your organisation into `source_organization_name`."
    )
    _write(output, record, {place: json.dumps(value, indent=2, ensure_ascii=False) + "\n"}, words, code_lines)
    return output / place


def export_eval_results(run: StoredRun, personas: Sequence[str], output: Path, dataset: str) -> Path:
    """Write the figure that decides as `.eval_results/*.yaml` of a model on the Hub, in a new folder; returns the file.

    personas  whose replies count; none named: all
    dataset   Hub id of the data set that has the leaderboard
    Raises HarnessError as above, and for an id that is no `owner/name`.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    record = _scored(run, personas, output)
    if len(dataset.split("/")) != 2 or not all(dataset.split("/")):
        raise HarnessError(f"--dataset {dataset} is no id of a data set on the Hub; it looks as owner/name")
    sums, entry = _of(record.sums, personas), record.metric_sums(record.metric)
    figure = _figure(sums, record.metric)
    if figure is None:
        raise HarnessError(f"{record.metric} of these personas is not defined in {run.id}")
    who = (
        f"{len(sums.personas)} of {len(record.sums.personas)} personas"
        if personas
        else f"{len(sums.personas)} personas"
    )
    notes = f"{record.metric} ({entry.unit}) of {record.method} on {record.config.backbone}, seed {record.seed}, {who}"
    result = EvalResultEntry(
        dataset_id=dataset, task_id="default", value=figure * scale(entry.unit), date=record.created, notes=notes
    )
    text = yaml.safe_dump(eval_result_entries_to_yaml([result]), sort_keys=False, allow_unicode=True)
    place = Path(".eval_results", f"{_word(record.benchmark.name)}.yaml")
    code_lines = [
        "from pathlib import Path", "", "import yaml", "from huggingface_hub import parse_eval_result_entries", "",
        f'text = Path({literal(place.as_posix())}).read_text(encoding="utf-8")',
        "for entry in parse_eval_result_entries(yaml.safe_load(text)):",
        "    print(entry.dataset_id, entry.value, entry.notes)",
    ]  # fmt: skip
    words = (
        f"`{place.as_posix()}` holds the run's score for a model on the Hub. Put the folder `.eval_results` into the "
        "model's repository: `hf upload OWNER/MODEL . .`. The Hub shows it where the data set "
        f"{code(dataset)} is registered as a benchmark."
    )
    _write(output, record, {place: text}, words, code_lines)
    return output / place


def _scored(run: StoredRun, personas: Sequence[str], output: Path) -> RunRecord:
    if not run.complete:
        raise HarnessError(f"{run.id} is {run.head.status} and has no scores; run it again")
    check_personas(run, personas, run.record.sums.personas)
    check_free(output)
    return run.record


def _write(output: Path, record: RunRecord, files: Mapping[Path, str], words: str, lines: Sequence[str]) -> None:
    head = f"# Scores of {one_line(record.method)} on {one_line(record.config.backbone or record.benchmark.name)}"
    made = f"Exported by `harness export` from the run `{record.id}`."
    readme = "\n\n".join([head, f"{made} {words}", "## Use", python_block(lines)]) + "\n"
    try:
        with new_folder(output) as part:
            for place, text in {**files, Path("README.md"): readme}.items():
                (part / place).parent.mkdir(parents=True, exist_ok=True)
                (part / place).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StoreError(f"cannot write {output}: {error.strerror or error}") from error


def _word(text: str) -> str:
    """A text as the name of a folder."""
    return "".join(c if c.isalnum() or c in "._-+" else "-" for c in text).strip(".-") or "unnamed"


# ---- Every Eval Ever ----


def _every_eval_ever(record: RunRecord, personas: Sequence[str], now: str) -> dict[str, Any]:
    model = _model_id(record)
    groups = [(persona, _of(record.sums, [persona])) for persona in personas] or [(None, record.sums)]
    results = [_result(record, name, persona, sums) for persona, sums in groups for name in sums.metrics]
    return {
        "schema_version": EEE_SCHEMA,
        "evaluation_id": f"{record.benchmark.name}/{model}/{now}",
        "evaluation_timestamp": record.created,
        "retrieved_timestamp": now,
        "source_metadata": {
            "source_name": LIBRARY,
            "source_type": "evaluation_run",
            "source_organization_name": "not stated",
            "evaluator_relationship": "other" if record.imported else "first_party",
        },
        "eval_library": {"name": LIBRARY, "version": harness.__version__},
        "model_info": {"name": model.partition("/")[2], "id": model, "additional_details": _details(record)},
        "evaluation_results": [result for result in results if result is not None],
    }


def _model_id(record: RunRecord) -> str:
    """owner/name of the base, with the method's name behind it: the adapters are no model of their own."""
    base = base_named(record).shown if record.config.backbone else "unknown"
    owner, _, name = base.rpartition("/")
    return f"{_word(owner) if owner else LIBRARY}/{_word(f'{name}+{record.method}')}"


def _details(record: RunRecord) -> dict[str, str]:
    open_weights = "unknown" if record.imported else "open_weights"
    found = {
        "deployment_type": "unknown" if record.imported else "self_deployed",
        "model_availability": open_weights,
        "run": record.id,
        "method": record.method,
        "method_options": json.dumps(record.method_options, sort_keys=True),
        "stands_on": ", ".join(record.requires),
        "backbone": record.config.backbone,
        "backbone_fingerprint": record.hashes.get("backbone", ""),
        "seed": str(record.seed),
        "control": record.config.control or "",
    }
    return {name: value for name, value in found.items() if value}


def _result(record: RunRecord, name: str, persona: str | None, sums: PersonaSums) -> dict[str, Any] | None:
    """One metric's score; None where it is undefined."""
    figure, entry = _figure(sums, name), sums.metrics[name]
    if figure is None:
        return None
    share = entry.unit == "pt"
    metric: dict[str, Any] = {
        "metric_id": f"{LIBRARY}/{name}",
        "metric_name": name,
        "metric_unit": "proportion" if share else entry.unit,
        "lower_is_better": not entry.higher_is_better,
        "score_type": "continuous",
        "min_score": 0.0 if share else None,
        "max_score": 1.0 if share else None,
    }
    if entry.summary:
        metric["evaluation_description"] = entry.summary
    tokens = record.protocol.get("max_new_tokens")
    decoding = {"generation_args": {"temperature": 0.0, "max_tokens": int(tokens)}} if tokens else None
    facts = {key: str(value) for key, value in record.benchmark.facts.items()}
    return {
        "evaluation_result_id": "/".join([record.id, name, *([] if persona is None else [persona])]),
        "evaluation_name": record.benchmark.name if persona is None else f"{record.benchmark.name}, {persona}",
        "source_data": {"dataset_name": record.benchmark.name, "source_type": "other", "additional_details": facts},
        "metric_config": metric,
        "score_details": {"score": figure, "uncertainty": _uncertainty(sums, entry)},
        **({} if decoding is None else {"generation_config": decoding}),
    }


def _uncertainty(sums: PersonaSums, entry: MetricSums) -> dict[str, Any]:
    """The number of replies, and a standard error over personas where there are enough of them."""
    if entry.pooled:
        return {"num_samples": sum(sums.replies)}
    known = [(total, n) for total, n in zip(entry.sum, entry.n, strict=True) if n]
    found: dict[str, Any] = {"num_samples": sum(n for _, n in known)}
    if len(known) >= FEWEST:
        import numpy as np

        totals, n = (np.array(column, dtype=float) for column in zip(*known, strict=True))
        error = float(mean_and_se(totals / n, n)[1])
        found["standard_error"] = {"value": error, "method": "analytic, clustered by persona"}
    return found


def _figure(sums: PersonaSums, name: str) -> float | None:
    """A metric's figure over all replies, in stored units; None where it is undefined.

    Raises HarnessError for a pooled metric whose plugin is not there.
    """
    value = overall(sums, name)
    return value if math.isfinite(value) else None


def _of(sums: PersonaSums, personas: Sequence[str]) -> PersonaSums:
    """The sums of these personas; none named: of all."""
    if not personas:
        return sums
    rows = [sums.personas.index(persona) for persona in dict.fromkeys(personas)]

    def taken(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
        return None if values is None else tuple(values[row] for row in rows if row < len(values))

    metrics = {
        name: entry.model_copy(
            update={
                "sum": taken(entry.sum),
                "n": taken(entry.n),
                "values": None,
                "counts": entry.counts and {column: taken(values) for column, values in entry.counts.items()},
            }
        )
        for name, entry in sums.metrics.items()
    }
    return PersonaSums(
        personas=taken(sums.personas) or (),
        clusters=taken(sums.clusters),
        replies=taken(sums.replies) or (),
        metrics=metrics,
    )
