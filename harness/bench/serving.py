"""`bench generate`: the prompts and adapters that are served, which cases are measured, and what the figures say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.adapters import create_bank, save_bank, write_peft
from harness.bench.job import Asked, Job
from harness.bench.measure import Case, Measured
from harness.bench.prepare import Subject
from harness.bench.training import spread
from harness.contract import LoRA, SoftPrompt, TrainOptions
from harness.model import encode_prompt, end_of_turn_id, load_backbone, split_examples
from harness.progress import Progress
from harness.training import fit_bank

KINDS = ("prompt", "lora")
ONE_BY_ONE = ("batch_1", "peft_one_by_one")
ASKED_FASTER, ASKED_OF_SHAPES = 20.0, 3.0  # of decoding with the bank, over one by one: tiny, and a real model's shape
ONLY_LORA = ("peft_mixed",)  # PEFT ignores adapter_names for prompts, without a word


def make_asked(job: Job, subject: Subject, kind: str, replies: int | None, progress: Progress) -> Asked:
    """Test prompts and, in the job's folder, adapters of one epoch for them; written to disk.

    kind      "prompt" or "lora";  replies: at most so many, spread evenly
    What is there already is read.
    """
    if (job.folder / file_of(kind)).exists():
        return Asked.read(job.folder, file_of(kind))
    backbone = load_backbone(str(job.base), device=job.device, dtype=job.dtype)
    spec, options = _recipe(subject, kind)
    made = create_bank(backbone, spec, job.keys, job.seed)
    with progress.task(f"fit {len(job.keys)} adapters to serve", 0, "dialogues") as advance:
        fit_bank(backbone, made, made.by_row(job.data("train")), (), options, job.seed, progress=advance.to)
    folder = job.folder / f"adapters-{kind}"
    save_bank(made, folder, str(job.base))
    peft = write_peft(made, folder, str(job.base))
    protocol = subject.dataset.protocol
    asked = [e.prompt for e in split_examples(subject.dataset, "test") if e.prompt.persona in set(job.keys)]
    found = Asked(
        folder=job.folder,
        bank=folder,
        adapters={key: place.name for key, place in zip(made.keys, peft, strict=True)},
        rows=tuple(p.persona for p in asked),
        prompts=tuple(
            tuple(encode_prompt(backbone.tokenizer, p.messages, protocol.max_prompt_tokens)[0]) for p in asked
        ),
        places=tuple(range(len(asked))),
        max_new_tokens=protocol.max_new_tokens,
        stop_id=end_of_turn_id(backbone.tokenizer),
        threads=job.threads,
        dtype=job.dtype,
        device=job.device,
    )
    found = found if replies is None else found.first(replies)
    found.write(file_of(kind))
    return found


def _recipe(subject: Subject, kind: str) -> tuple[SoftPrompt | LoRA, TrainOptions]:
    """Shape and one epoch of training: adapters that differ, so that replies do."""
    once = replace(subject.options, epochs=1, patience=0)
    if kind == "prompt":
        return subject.prompt, once
    rate = subject.base_options.learning_rate if subject.base_options else TrainOptions().learning_rate
    return subject.base_lora or LoRA(), replace(once, learning_rate=rate)


def file_of(kind: str) -> str:
    return f"asked-{kind}.json"


def cases(asked: Mapping[str, Asked], ways: Sequence[str], subset: Mapping[str, int]) -> list[Case]:
    """Every kind of adapter by every way that can serve it."""
    found = []
    for kind, prompts in asked.items():
        whole = len(prompts.prompts)
        for way in ways:
            if way in ONLY_LORA and kind != "lora":
                continue
            amount = min(subset.get(way, whole), whole)
            case = Case(
                f"{kind}: {way}", way, "generate", amount, whole, whole / amount,
                asked=file_of(kind), work=amount, reported=amount,
            )  # fmt: skip
            found.append(case)
    return found


def tables(measured: Sequence[Measured], shape: str = "tiny") -> dict[str, Any]:
    """A row for each case; equality is counted on the prompts that both decoded."""
    by_label = {m.case.label: m for m in measured}
    faster = ASKED_FASTER if shape == "tiny" else ASKED_OF_SHAPES
    return {"ways": [_row(m, by_label, faster) for m in measured]}


def _row(m: Measured, by_label: Mapping[str, Measured], faster: float) -> dict[str, Any]:
    kind = m.case.label.split(":")[0]
    ours, alone = by_label.get(f"{kind}: bank"), by_label.get(f"{kind}: batch_1")
    seconds = m.seconds()
    slower = [a / b for a, b in zip(seconds, ours.seconds(), strict=True)] if ours and ours is not m else None
    return {
        "adapters": kind,
        "way": m.case.way,
        "replies": m.case.of,
        "measured_on": m.case.amount,
        "replies_per_second": spread([m.case.amount / r["seconds"] for r in m.results]),
        "seconds": spread(seconds),
        "times_slower_than_bank": spread(slower) if slower else None,
        "asked": faster if slower and m.case.way in ONE_BY_ONE else None,
        "setup_seconds": m.middle("setup_seconds"),
        "new_tokens_per_second": spread([r["new_tokens"] / r["seconds"] for r in m.results]),
        "peak_bytes": int(m.middle("peak_bytes")),
        "equal_to_one_by_one": _equal(m, alone) if alone and alone is not m else None,
    }


def _equal(m: Measured, other: Measured) -> dict[str, int]:
    """Equal replies among those that both decoded."""
    mine, theirs = m.results[0]["replies"], other.results[0]["replies"]
    common = set(mine) & set(theirs)
    return {"equal": sum(mine[place] == theirs[place] for place in common), "of": len(common)}
