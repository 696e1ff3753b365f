"""HF Trainer with PEFT, a prompt at a time: as most people train today, and as the original study's loop ran.

Own choices are only those that make the comparison fair: the same starting vectors, rates and epochs, nothing logged
or stored on the way. Order and schedule are Trainer's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from harness.bench.job import padded, turn_examples
from harness.contract import TrainOptions
from harness.model import Encoded

STUDY_WIDTH = 512  # tokens that the study padded every example to
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


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
    with quiet():
        return runner.train().global_step


def study_rows(dialogues: Sequence[Encoded]) -> list[Encoded]:
    """One example per assistant turn."""
    return [example for dialogue in dialogues for example in turn_examples(dialogue)]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the summary that Trainer prints to stdout after each of hundreds of fits."""
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        yield
