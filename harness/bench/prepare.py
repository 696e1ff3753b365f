"""From a configuration to the work that is measured: a benchmark's dialogues, a method's shapes and options, the base.

Method and benchmark come from the plugins' registry as in a run; their `fit` is not called. Nothing here is timed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from harness.adapters import PROMPT, create_bank, merged
from harness.bench.job import BASE, JOB, Job
from harness.config import RunConfig, with_config
from harness.contract import Dataset, LoRA, SoftPrompt, TrainOptions, load_benchmark, load_with_required
from harness.errors import HarnessError
from harness.model import (
    DTYPES,
    Backbone,
    Encoded,
    dialogue_messages,
    encode_dialogue,
    load_backbone,
    random_model,
    without_progress_bars,
)
from harness.progress import Progress
from harness.training import fit_bank

T = TypeVar("T")
# What is fitted for everybody before the clocks start (base, start) sees so many dialogues: enough to be like one.
POOLED = 1_500
POOLED_BATCH = 16


@dataclass(frozen=True)
class Subject:
    """What plugins say about the work: a method's prompt, its training, what it stands on, and the people."""

    dataset: Dataset
    prompt: SoftPrompt
    options: TrainOptions
    base_lora: LoRA | None
    base_options: TrainOptions | None


def subject_of(config: RunConfig, files: Sequence[str | Path]) -> Subject:
    """Read method, what it requires, and benchmark. Raises HarnessError for a method that trains no soft prompts."""
    methods = load_with_required(config.method, files, config.method_options, config.required_options)
    method = methods[config.method]
    prompt, options = _field(config.method_options, SoftPrompt), _field(config.method_options, TrainOptions)
    if prompt is None or options is None or prompt.kind != "input":
        raise HarnessError(
            f"'{config.method}' cannot be measured here: the peers train soft prompts (kind: input), and its options "
            "name none; choose a method with a SoftPrompt and TrainOptions"
        )
    below, given = method.requires(config.method_options), config.required_options
    required = [given.get(name) or methods[name].card.options() for name in below]
    lora = next((found for below in required if (found := _field(below, LoRA))), None)
    training = next((found for below in required if (found := _field(below, TrainOptions))), None)
    benchmark = load_benchmark(config.benchmark, files)
    dataset = with_config(benchmark.load(config.benchmark_options), config, benchmark.card.options)
    return Subject(dataset, prompt, options, lora, training)


def _field(options: Any, kind: type[T]) -> T | None:
    """The value of an options dataclass that is of a kind."""
    values = (getattr(options, field.name) for field in dataclasses.fields(options))
    return next((value for value in values if isinstance(value, kind)), None)


def encoded(dataset: Dataset, tokenizer: Any, split: str) -> dict[str, list[Encoded]]:
    """Persona -> its dialogues of a split."""
    people = {p.id: p for p in dataset.personas}
    made: dict[str, list[Encoded]] = {p.id: [] for p in dataset.personas}
    for d in dataset.dialogues:
        if d.split == split:
            messages = dialogue_messages(dataset.protocol, people[d.persona], d)
            row = encode_dialogue(tokenizer, messages, dataset.protocol.max_prompt_tokens)
            if any(row.labels):
                made[d.persona].append(row)
    return made


def make_job(
    config: RunConfig,
    subject: Subject,
    folder: Path,
    progress: Progress,
    shape: str = "tiny",
    layers: int | None = None,
    dialogues: int | None = None,
) -> Job:
    """The job and, beside it in `folder`, the base in the Hub's format; written to disk.

    shape   "tiny": the configured backbone with a LoRA for everybody, shortly fitted, merged into it; a name of the
            catalogue: its dimensions with random weights, and random tokens in dialogues as long as the benchmark's
    layers  fewer than the shape has, to try it out;  dialogues: at most so many of a persona and split
    A complete one that is there already is read.
    """
    if (folder / JOB).exists():
        return Job.read(folder)
    torch.set_num_threads(config.threads)
    backbone = load_backbone(config.backbone)
    data = {split: encoded(subject.dataset, backbone.tokenizer, split) for split in ("train", "validation")}
    data = {split: {key: rows[:dialogues] for key, rows in table.items()} for split, table in data.items()}
    keys = [key for key in data["train"] if data["train"][key] and data["validation"][key]]
    if not keys:
        raise HarnessError("no persona has both train and validation dialogues; check the splits of the data")
    if shape == "tiny":
        base = _fitted_base(backbone, subject, data["train"], config.seed, progress)
    else:
        model, _ = random_model(shape, DTYPES[config.dtype], layers)
        base = Backbone(f"random {shape}", model.eval().requires_grad_(False), backbone.tokenizer, fingerprint="random")
        vocabulary = model.config.vocab_size
        data = {split: _random_ids(rows, vocabulary, config.seed) for split, rows in data.items()}
    write_base(base, folder)
    # As the ways will load it: fp64 work begins at fp64 vectors.
    served = load_backbone(str(folder / BASE), dtype=config.dtype, device=config.device)
    bank = create_bank(served, subject.prompt, keys, config.seed)
    start = _start(served, subject, data["train"], config.seed, progress)
    job = Job(
        folder=folder,
        keys=tuple(keys),
        train={key: data["train"][key] for key in keys},
        validation={key: data["validation"][key] for key in keys},
        spec=subject.prompt,
        options=subject.options,
        seed=config.seed,
        threads=config.threads,
        dtype=config.dtype,
        device=config.device,
        initial=dict(zip(keys, bank.tensors[PROMPT].cpu().clone(), strict=True)),
        start=start.cpu(),
    )
    job.write()
    return job


def write_base(backbone: Backbone, folder: Path) -> None:
    """A frozen model and its tokenizer as a folder in the Hub's format."""
    with without_progress_bars():
        backbone.model.save_pretrained(folder / BASE)
        backbone.tokenizer.save_pretrained(folder / BASE)


def pooled(data: Mapping[str, Sequence[Encoded]], limit: int = POOLED) -> list[Encoded]:
    """Dialogues of everybody in turn, at most `limit`."""
    longest = max(map(len, data.values()))
    found = [rows[i] for i in range(longest) for rows in data.values() if i < len(rows)]
    return found[:limit]


def _fitted_base(
    backbone: Backbone, subject: Subject, data: Mapping[str, Sequence[Encoded]], seed: int, progress: Progress
) -> Backbone:
    """The backbone with one epoch of the required LoRA merged into it; as it is, where the method stands on nothing."""
    if subject.base_lora is None or subject.base_options is None:
        return backbone
    bank = create_bank(backbone, subject.base_lora, ["all"], seed)
    options = replace(subject.base_options, epochs=1, patience=0)
    with progress.task("prepare the base", 0, "dialogues") as advance:
        fit_bank(backbone, bank, [pooled(data)], (), options, seed, progress=advance.to)
    return merged(backbone, bank, 0)


def _start(
    backbone: Backbone, subject: Subject, data: Mapping[str, Sequence[Encoded]], seed: int, progress: Progress
) -> torch.Tensor:
    """One prompt [P, D] fitted for everybody in one epoch: where the ways that stop early begin."""
    bank = create_bank(backbone, subject.prompt, ["all"], seed)
    options = replace(subject.options, epochs=1, patience=0, batch_size=POOLED_BATCH)
    with progress.task("prepare a common start", 0, "dialogues") as advance:
        fit_bank(backbone, bank, [pooled(data)], (), options, seed, progress=advance.to)
    return bank.tensors[PROMPT][0].detach().clone()


def _random_ids(data: Mapping[str, Sequence[Encoded]], vocabulary: int, seed: int) -> dict[str, list[Encoded]]:
    """The same lengths and labels with random tokens of the shape's vocabulary."""
    generator = np.random.default_rng(seed)
    return {
        key: [Encoded(tuple(generator.integers(2, vocabulary, len(row)).tolist()), row.labels) for row in rows]
        for key, rows in data.items()
    }
