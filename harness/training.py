"""Train all adapters of a bank together, each exactly as if it were trained alone: the public door.

The loop itself is in fit_loop; rows and waves in batching, the model in forward, AdamW in optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.adapters import Bank
from harness.backbone import Backbone
from harness.checkpoint import SECONDS_BETWEEN, Checkpoint
from harness.fit_loop import FitLoop
from harness.fit_report import AdapterReport, FitReport
from harness.prompts import Encoded
from harness.specs import TrainOptions

__all__ = ["AdapterReport", "FitReport", "Progress", "TrainOptions", "fit_bank"]

Progress = Callable[[int, int, str], None]


def fit_bank(
    backbone: Backbone,
    bank: Bank,
    train: Mapping[str, Sequence[Encoded]],
    validation: Mapping[str, Sequence[Encoded]],
    options: TrainOptions,
    seed: int,
    *,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = SECONDS_BETWEEN,
) -> FitReport:
    """Train every adapter of a bank on its own dialogues; the values in `bank.tensors` are replaced in place.

    train, validation  key -> encoded dialogues. A key without train dialogues keeps its values ("no data");
                       one without validation dialogues keeps its last values
    seed               with a key it decides on that adapter's order and dropout
    progress           called after every step with (dialogues done, dialogues to do, a note)
    checkpoint         file for the state of an unfinished fit, about every `checkpoint_seconds`; one that
                       exists is resumed and leads to the same bits. The caller removes it.
    Afterwards each row holds its best snapshot by validation loss, also after a failure.
    Raises HarnessError for unknown keys, ids outside the vocabulary and too long dialogues;
    StoreError for a checkpoint of another fit.
    """
    fit = FitLoop(backbone, bank, train, validation, options, seed)
    file = Checkpoint(checkpoint, fit.identity(), checkpoint_seconds) if checkpoint else None
    if file and (state := file.read(backbone.device)):
        fit.restore(*state)
    elif options.keep_start:
        fit.validate_start()
    while fit.learning():
        note = fit.one_step()
        if file and file.due():
            file.save(*fit.state())
        if progress:
            progress(*fit.dialogues_done_and_total(), note)
    return fit.finish()
