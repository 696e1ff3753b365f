"""Two ways to train one soft prompt after the other, beside which the harness is measured.

The tuned loop uses neither PEFT nor Trainer nor the harness; a careful engineer would write it for one adapter: dynamic
padding, fused attention without a mask, the head on label positions only, fused AdamW, no waiting for the device. It
makes the same steps as the bank, in the same order, so its adapters must be the bank's.
HF Trainer with PEFT is how most people train today, and how the original study's loop ran. It gets the same starting
vectors, rates and epochs, and nothing is logged or stored on the way. Order and schedule are Trainer's.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.adapters import key_seed
from harness.bench.job import padded, turn_examples
from harness.contract import TrainOptions
from harness.engines import epoch_order
from harness.model import Encoded
from harness.training import learning_rate_factor

SMALLEST_GAIN = 1e-6  # of the validation loss, relative: as for the bank
VALIDATION_ROWS = 16
STUDY_WIDTH = 512  # tokens that the study padded every example to
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}  # ours -> Trainer's


@dataclass(frozen=True)
class Trained:
    """One adapter. values [P, D]; losses per epoch on validation, where there was any."""

    values: Tensor
    steps: int
    epochs: int
    tokens: int
    padded_tokens: int
    validation_loss: tuple[float, ...] = ()


class Rows:
    """A persona's dialogues on the device, ready to be batched."""

    def __init__(self, dialogues: Sequence[Encoded], prefix: int, device: torch.device) -> None:
        self.prefix, self.device = prefix, device
        flags = [torch.tensor(row.labels) for row in dialogues]
        # What follows the last label cannot change the loss. Behind P virtual tokens P - 1 + t predicts token t.
        lasts = [int(flag.nonzero()[-1]) for flag in flags]
        self.ids = [torch.tensor(row.ids[:last], device=device) for row, last in zip(dialogues, lasts, strict=True)]
        self.positions = [flag.nonzero().squeeze(1) + (prefix - 1) for flag in flags]
        self.targets = [torch.tensor(row.ids)[flag].to(device) for row, flag in zip(dialogues, flags, strict=True)]

    def __len__(self) -> int:
        return len(self.ids)

    def tokens(self, chosen: Sequence[int]) -> tuple[int, int]:
        """(tokens, tokens with padding) of some rows, virtual tokens included."""
        lengths = [self.prefix + len(self.ids[i]) for i in chosen]
        return sum(lengths), len(lengths) * max(lengths)

    def batch(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """ids [B, T], index [n] into the B * (P + T) hidden states, targets [n]."""
        ids = torch.nn.utils.rnn.pad_sequence([self.ids[i] for i in chosen], batch_first=True)
        width = self.prefix + ids.shape[1]
        index = torch.cat([self.positions[i] + row * width for row, i in enumerate(chosen)])
        targets = torch.cat([self.targets[i] for i in chosen])
        return ids, index.to(self.device, non_blocking=True), targets


def loss_sum(model: Any, prompt: Tensor, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Cross-entropy in nats summed over the targets of a batch behind a prompt [P, D]."""
    ids, index, targets = batch
    embedded = model.get_input_embeddings()(ids)
    embedded = torch.cat([prompt.to(embedded.dtype).expand(len(ids), -1, -1), embedded], dim=1)
    # Causal attention is exact on right-padded rows. Where a model takes a mask for each type of layer, this skips its
    # building; elsewhere none is given.
    no_mask = {"full_attention": None} if hasattr(model.config, "layer_types") else None
    hidden = model.model(inputs_embeds=embedded, attention_mask=no_mask, use_cache=False).last_hidden_state
    logits = model.get_output_embeddings()(hidden.flatten(0, 1)[index])
    if logits.dtype != torch.float64:
        logits = logits.float()
    return F.cross_entropy(logits, targets, reduction="sum")


def fit_one(
    model: Any,
    key: str,
    start: Tensor,
    train: Sequence[Encoded],
    validation: Sequence[Encoded],
    options: TrainOptions,
    seed: int,
    progress: Callable[[int], None] = lambda dialogues: None,
) -> Trained:
    """Train one prompt from `start` [P, D]; with validation dialogues the best epoch is kept, and patience counts.

    progress   called with the dialogues of each step
    """
    device = model.get_input_embeddings().weight.device
    prompt = torch.nn.Parameter(start.detach().to(device, copy=True))
    optimiser = torch.optim.AdamW([prompt], lr=options.learning_rate, weight_decay=options.weight_decay, fused=True)
    rows, held = Rows(train, len(prompt), device), Rows(validation, len(prompt), device)
    steps_an_epoch = -(-len(rows) // options.batch_size)
    total = steps_an_epoch * options.epochs
    best, best_loss, best_epoch = prompt.detach().clone(), float("inf"), 0
    losses: list[float] = []
    step = epoch = tokens = padded = 0
    if options.keep_start and len(held):
        best_loss = validation_loss(model, prompt, held)
    for epoch in range(1, options.epochs + 1):
        order = epoch_order(key_seed(seed, key, "order", epoch - 1), len(rows)).tolist()
        for first in range(0, len(rows), options.batch_size):
            chosen = order[first : first + options.batch_size]
            batch = rows.batch(chosen)
            (loss_sum(model, prompt, batch) / len(batch[2])).backward()
            if options.clip:
                torch.nn.utils.clip_grad_norm_([prompt], options.clip)
            factor = learning_rate_factor(step, total, options.warmup, options.schedule)
            optimiser.param_groups[0]["lr"] = options.learning_rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            step += 1
            tokens, padded = (a + b for a, b in zip((tokens, padded), rows.tokens(chosen), strict=True))
            progress(len(chosen))
        if not len(held):
            continue
        losses.append(validation_loss(model, prompt, held))
        if losses[-1] < best_loss - SMALLEST_GAIN * abs(losses[-1]):
            best, best_loss, best_epoch = prompt.detach().clone(), losses[-1], epoch
        elif options.patience and epoch - best_epoch >= options.patience:
            break
    values = best if len(held) else prompt.detach()
    return Trained(values, step, epoch, tokens, padded, tuple(losses))


def fit_peft(
    adapted: Any,
    key: str,
    train: Sequence[Encoded],
    pad: int,
    options: TrainOptions,
    seed: int,
    progress: Callable[[int], None] = lambda dialogues: None,
) -> Trained:
    """Train a PEFT model's prompt in a plain loop: the same steps in the same order as `fit_one`."""
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=options.weight_decay)
    prompt, device = prompt_of(adapted), parameters[0].device
    total = -(-len(train) // options.batch_size) * options.epochs
    adapted.train()
    step = tokens = padded_tokens = 0
    for epoch in range(options.epochs):
        order = epoch_order(key_seed(seed, key, "order", epoch), len(train)).tolist()
        for first in range(0, len(train), options.batch_size):
            rows = [train[i] for i in order[first : first + options.batch_size]]
            batch = padded(rows, pad)
            adapted(**{name: part.to(device) for name, part in batch.items()}).loss.backward()
            if options.clip:
                torch.nn.utils.clip_grad_norm_(parameters, options.clip)
            factor = learning_rate_factor(step, total, options.warmup, options.schedule)
            optimiser.param_groups[0]["lr"] = options.learning_rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            step += 1
            tokens += int(batch["attention_mask"].sum()) + len(prompt) * len(rows)
            padded_tokens += batch["input_ids"].numel() + len(prompt) * len(rows)
            progress(len(rows))
    return Trained(prompt_of(adapted), step, options.epochs, tokens, padded_tokens)


def validation_loss(model: Any, prompt: Tensor, rows: Rows) -> float:
    """Mean loss per label token in nats; longest rows first, so that little is padded."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows.ids[i]))
    parts = [order[at : at + VALIDATION_ROWS] for at in range(0, len(order), VALIDATION_ROWS)]
    with torch.no_grad():
        total = sum(loss_sum(model, prompt, rows.batch(part)) for part in parts)
    return float(total) / sum(len(targets) for targets in rows.targets)


# ---- HF Trainer with PEFT ----


class Collator:
    """Rows of a batch as Trainer wants them: input_ids, attention_mask and labels, padded to `width` or the longest."""

    def __init__(self, pad: int, width: int | None) -> None:
        self.pad, self.width = pad, width
        self.tokens = self.padded_tokens = 0  # without virtual tokens

    def __call__(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        batch = padded(rows, self.pad, self.width)
        self.tokens += int(batch["attention_mask"].sum())
        self.padded_tokens += batch["input_ids"].numel()
        return batch


def prompt_model(model: Any, start: Tensor) -> Any:
    """A PEFT model with a soft prompt that begins at `start` [P, D]."""
    from peft import PromptTuningConfig, get_peft_model

    made: Any = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(start)))
    made.prompt_encoder["default"].embedding.weight.data.copy_(start)
    return made


def prompt_of(model: Any) -> Tensor:
    """The trained prompt [P, D] of a PEFT model."""
    return model.prompt_encoder["default"].embedding.weight.detach().clone()


def train(
    model: Any,
    dialogues: Sequence[Encoded],
    collate: Collator,
    options: TrainOptions,
    seed: int,
    scratch: Path,
    progress: Callable[[int], None] = lambda dialogues: None,
) -> int:
    """Train a PEFT model on rows with HF Trainer; returns the number of optimiser steps.

    progress   called with the rows of each step
    """
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Tell(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            progress(options.batch_size)

    arguments = TrainingArguments(
        output_dir=str(scratch),
        per_device_train_batch_size=options.batch_size,
        num_train_epochs=options.epochs,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        warmup_steps=options.warmup,
        lr_scheduler_type=SCHEDULES[options.schedule],
        max_grad_norm=options.clip,
        seed=seed,
        use_cpu=model.device.type == "cpu",
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=model.device.type == "cuda",
    )
    runner = Trainer(
        model=model,
        args=arguments,
        train_dataset=list(dialogues),  # pyright: ignore[reportArgumentType]
        data_collator=collate,
        callbacks=[Tell()],
    )
    with contextlib.redirect_stdout(io.StringIO()):  # else Trainer prints a summary after each of hundreds of fits
        return runner.train().global_step


def study_rows(dialogues: Sequence[Encoded]) -> list[Encoded]:
    """One example per assistant turn."""
    return [example for dialogue in dialogues for example in turn_examples(dialogue)]
