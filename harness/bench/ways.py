"""The ways to train N soft prompts that are measured, each from loading the model to saved adapters.

Every way gets the same job and returns what it did and what it found; processes, repeats and tables are elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.adapters import PROMPT, create_bank, write_peft
from harness.bench import ladder, peers
from harness.bench.job import Asked, Job
from harness.errors import HarnessError, did_you_mean
from harness.model import DTYPES, exact_norms, load_backbone, set_repeatable
from harness.training import fit_bank

OnProgress = Callable[[int], None]  # called with how many more dialogues were seen


@dataclass
class Result:
    """What a way did. Times in seconds; `seconds` runs from the loading of the model to saved adapters.

    load_seconds  of it, where the model is loaded once; else loading is part of each persona's work
    tokens        fed in training, virtual ones included, without padding;  padded_tokens: with padding
    prompts       key -> [P, D]
    """

    seconds: float = 0.0
    load_seconds: float = 0.0
    save_seconds: float = 0.0
    steps: int = 0
    epochs: float = 0.0
    tokens: int = 0
    padded_tokens: int = 0
    prompts: dict[str, Tensor] = field(default_factory=dict)


class Clock:
    """Seconds since the last look; waits for the device first."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")
        self.last = time.perf_counter()

    def split(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        before, self.last = self.last, now
        return now - before


def load_model(job: Job | Asked) -> Any:
    """The frozen base by transformers alone, as the peers load it."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(job.base, dtype=DTYPES[job.dtype])
    if job.dtype == "float64":  # as the harness loads it: transformers' norms round to fp32 in any model
        exact_norms(model)
    return model.to(job.device).eval().requires_grad_(False)


# ---- the harness ----


def bank(job: Job, out: Path, progress: OnProgress) -> Result:
    """The harness: all prompts together, a fixed number of epochs."""
    return _bank(job, out, progress, stopping=False)


def bank_stopping(job: Job, out: Path, progress: OnProgress) -> Result:
    """The harness with early stopping, from a start that was fitted for everybody."""
    return _bank(job, out, progress, stopping=True)


def _bank(job: Job, out: Path, progress: OnProgress, stopping: bool) -> Result:
    set_repeatable()  # what `harness run` sets for equal bits, and pays for; the peers do without
    clock, result = Clock(job.device), Result()
    backbone = load_backbone(str(job.base), device=job.device, dtype=job.dtype)
    result.load_seconds = clock.split()
    begin = None
    if stopping and job.start is not None:
        begin = create_bank(backbone, job.spec, ["all"], job.seed)
        begin = begin.with_tensors({PROMPT: job.start[None].to(begin.tensors[PROMPT])})
    made = create_bank(backbone, job.spec, job.keys, job.seed, begin)
    seen = 0

    def count(done: int, total: int, note: str) -> None:
        nonlocal seen
        progress(done - seen)
        seen = done

    held = made.by_row(job.data("validation")) if stopping else ()
    own = made.by_row(job.data("train"))
    report = fit_bank(backbone, made, own, held, _options(job, stopping), job.seed, progress=count)
    fit_seconds = clock.split()
    write_peft(made, out / "adapters", str(job.base))
    result.save_seconds = clock.split()
    result.seconds = result.load_seconds + fit_seconds + result.save_seconds
    states = report.adapters.values()
    result.steps, result.epochs = sum(s.steps for s in states), sum(s.epochs for s in states) / len(made)
    result.tokens, result.padded_tokens = report.tokens, report.padded_tokens
    result.prompts = dict(zip(made.keys, made.tensors[PROMPT].detach().cpu().clone(), strict=True))
    return result


def _options(job: Job, stopping: bool) -> Any:
    return replace(job.options, patience=max(1, job.options.patience) if stopping else 0)


# ---- its peers ----


def plain_loop(job: Job, out: Path, progress: OnProgress) -> Result:
    """The tuned loop over personas, the same steps as the bank."""
    return _plain(job, out, progress, stopping=False)


def plain_stopping(job: Job, out: Path, progress: OnProgress) -> Result:
    """The tuned loop with the same start and the same early stopping as the bank."""
    return _plain(job, out, progress, stopping=True)


def _plain(job: Job, out: Path, progress: OnProgress, stopping: bool) -> Result:
    clock, result = Clock(job.device), Result()
    model = load_model(job)
    result.load_seconds = clock.split()
    fit_seconds = 0.0
    for key in job.keys:
        start = job.start if stopping and job.start is not None else job.initial[key]
        held = job.validation[key] if stopping else ()
        done = peers.fit_one(model, key, start, job.train[key], held, _options(job, stopping), job.seed, progress)
        _add(result, done.steps, done.tokens, done.padded_tokens, done.epochs / len(job.keys))
        result.prompts[key] = done.values.cpu()
        fit_seconds += clock.split()
        _save(result.prompts[key], model, out / "adapters" / key)
        result.save_seconds += clock.split()
    result.seconds = result.load_seconds + fit_seconds + result.save_seconds
    return result


def _save(prompt: Tensor, model: Any, folder: Path) -> None:
    """One prompt in PEFT's format."""
    from peft import PromptTuningConfig
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({PROMPT: prompt.contiguous()}, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=prompt.shape[0], token_dim=prompt.shape[1],
        num_layers=model.config.num_hidden_layers, num_attention_heads=model.config.num_attention_heads,
        num_transformer_submodules=1, inference_mode=True,
    )  # fmt: skip
    config.save_pretrained(str(folder))


def peft_loop(job: Job, out: Path, progress: OnProgress) -> Result:
    """The loop that most people write: a PeftModel for each persona, padded batches, the loss that the model gives."""
    clock, result = Clock(job.device), Result()
    model = load_model(job)
    result.load_seconds = result.seconds = clock.split()
    pad = pad_token(job)
    for key in job.keys:
        adapted = peers.prompt_model(model, job.initial[key])
        done = peers.fit_peft(adapted, key, job.train[key], pad, job.options, job.seed, progress)
        _add(result, done.steps, done.tokens, done.padded_tokens, done.epochs / len(job.keys))
        result.prompts[key] = done.values.cpu()
        _save_peft(adapted, out / "adapters" / key, clock, result)
    return result


def _save_peft(adapted: Any, folder: Path, clock: Clock, result: Result) -> None:
    """Book the seconds since the last look, then save an adapter and book what that took."""
    result.seconds += clock.split()
    adapted.save_pretrained(str(folder))
    saving = clock.split()
    result.save_seconds += saving
    result.seconds += saving


def peft_trainer(job: Job, out: Path, progress: OnProgress) -> Result:
    """HF Trainer and PEFT, the model loaded once, whole dialogues, dynamic padding."""
    return _trainer(job, out, progress, study=False)


def study_loop(job: Job, out: Path, progress: OnProgress) -> Result:
    """HF Trainer and PEFT as the original study ran them: the model anew for each persona, a row a turn, 512 wide."""
    return _trainer(job, out, progress, study=True)


def _trainer(job: Job, out: Path, progress: OnProgress, study: bool) -> Result:
    clock, result = Clock(job.device), Result()
    model = None if study else load_model(job)
    result.load_seconds = 0.0 if study else clock.split()
    result.seconds = result.load_seconds
    for key in job.keys:
        base = model if model is not None else load_model(job)
        dialogues = job.train[key]
        rows = peers.study_rows(dialogues) if study else list(dialogues)
        collate = peers.Collator(pad_token(job), peers.STUDY_WIDTH if study else None)
        adapted = peers.prompt_model(base, job.initial[key])
        share = len(dialogues) / len(rows)
        seen = 0

        def tell(count: int, share: float = share) -> None:
            nonlocal seen
            before, seen = seen, seen + count
            progress(int(seen * share) - int(before * share))

        steps = peers.train(adapted, rows, collate, job.options, job.seed, out / "scratch", tell)
        virtual = job.spec.tokens * len(rows) * job.options.epochs
        _add(
            result, steps, collate.tokens + virtual, collate.padded_tokens + virtual, job.options.epochs / len(job.keys)
        )
        result.prompts[key] = peers.prompt_of(adapted).cpu()
        _save_peft(adapted, out / "adapters" / key, clock, result)
    return result


def _add(result: Result, steps: int, tokens: int, padded: int, epochs: float) -> None:
    result.steps, result.epochs = result.steps + steps, result.epochs + epochs
    result.tokens, result.padded_tokens = result.tokens + tokens, result.padded_tokens + padded


def pad_token(job: Job) -> int:
    """The id that peers pad with; any will do, it is masked."""
    from transformers import AutoConfig

    return getattr(AutoConfig.from_pretrained(job.base), "pad_token_id", None) or 0


# ---- the ladder ----


def climb(job: Job, out: Path, progress: OnProgress, names: str) -> Result:
    """The loop of `ladder` with these techniques on; adapters are saved as by the other ways."""
    clock, result = Clock(job.device), Result()
    result.prompts, done = ladder.climb(
        lambda: load_model(job), job.data("train"), job.initial, job.options, job.seed, pad_token(job),
        ladder.Switches.named(names), progress,
    )  # fmt: skip
    result.steps, result.tokens, result.padded_tokens = done["steps"], done["tokens"], done["padded_tokens"]
    result.epochs = job.options.epochs
    result.seconds = clock.split()
    result.prompts = {key: prompt.cpu() for key, prompt in result.prompts.items()}
    return result


LADDER = "ladder:"
WAYS: Mapping[str, Callable[[Job, Path, OnProgress], Result]] = {
    "bank": bank,
    "plain_loop": plain_loop,
    "peft_loop": peft_loop,
    "trainer": peft_trainer,
    "study_loop": study_loop,
    "bank_stopping": bank_stopping,
    "plain_stopping": plain_stopping,
}
# Modules that a way needs; they are imported before its clock starts.
NEEDS_PEFT = ("plain_loop", "plain_stopping", "peft_loop", "trainer", "study_loop")


def find(way: str) -> Callable[[Job, Path, OnProgress], Result]:
    """A way by its name; "ladder:a+b" is the ladder with these techniques. Raises HarnessError for a typo."""
    if way.startswith(LADDER):
        return lambda job, out, progress: climb(job, out, progress, way.removeprefix(LADDER))
    if way not in WAYS:
        raise HarnessError(f"--ways: there is no way '{way}' to train; {did_you_mean(way, WAYS)}")
    return WAYS[way]


def evaluate(job: Job, prompts: Mapping[str, Tensor]) -> dict[str, float]:
    """Validation loss (nats a label token) of each prompt, the same way for all ways."""
    model = load_model(job)
    found = {}
    for key, prompt in prompts.items():
        rows = peers.Rows(job.validation[key], len(prompt), model.device)
        found[key] = peers.validation_loss(model, prompt.to(model.device), rows)
    return found
