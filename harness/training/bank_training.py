"""Train all adapters of a bank together, each exactly as if it were trained alone: the public door.

The loop itself is in fit_loop, that of joint fits (adapters as functions of shared parameters) in joint_loop. The rows
of a step are cut in waves, an engine runs the model, and AdamW is in optimiser.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from harness.adapters import Bank
from harness.contract import TrainOptions
from harness.model import Backbone, Encoded
from harness.training.checkpoint import SECONDS_BETWEEN, Checkpoint
from harness.training.designs import DesignSpec, create_design
from harness.training.fit_loop import FitLoop
from harness.training.fit_report import AdapterReport, FitReport
from harness.training.joint_loop import JointLoop
from harness.training.optimiser import Flat

__all__ = ["AdapterReport", "FitReport", "OnProgress", "TrainOptions", "fit_bank", "fit_jointly"]

OnProgress = Callable[[int, int, str], None]
Watch = Callable[[int, float], None]


def fit_bank(
    backbone: Backbone,
    bank: Bank,
    train: Sequence[Sequence[Encoded]],
    validation: Sequence[Sequence[Encoded]],
    options: TrainOptions,
    seed: int,
    *,
    progress: OnProgress | None = None,
    announce: Callable[[str], None] | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = SECONDS_BETWEEN,
    watch: Watch | None = None,
) -> FitReport:
    """Train every adapter of a bank on its own dialogues; the values in `bank.tensors` are replaced in place.

    train, validation  encoded dialogues of each row's adapter (`Bank.by_row`); an empty `validation`: none for any. One
                       without train dialogues keeps its values ("no data"); without validation dialogues, its last ones
    seed               with a key it decides on that adapter's order and dropout
    progress           called after every step with (dialogues done, dialogues to do, a note)
    announce           called once before the first step with a line: the memory that a step is estimated to need
    checkpoint         file for the state of an unfinished fit, about every `checkpoint_seconds`; one that
                       exists is resumed and leads to the same bits. The caller removes it.
    watch              called after each epoch that all adapters have made with its number and the mean of their
                       validation losses; what it raises ends the fit
    Afterwards each row holds its best snapshot by validation loss, also after a failure.
    Raises HarnessError for another number of adapters, ids outside the vocabulary and too long dialogues;
    StoreError for a checkpoint of another fit.
    """
    fit = FitLoop(backbone, bank, train, validation, options, seed)
    return _to_the_end(fit, fit.identity(), progress, announce, checkpoint, checkpoint_seconds, watch)


def fit_jointly(
    backbone: Backbone,
    bank: Bank,
    train: Sequence[Sequence[Encoded]],
    validation: Sequence[Sequence[Encoded]],
    options: TrainOptions,
    seed: int,
    design: DesignSpec,
    cluster_of: Sequence[int],
    vectors: Tensor | None = None,
    *,
    progress: OnProgress | None = None,
    announce: Callable[[str], None] | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = SECONDS_BETWEEN,
    watch: Watch | None = None,
) -> tuple[FitReport, dict[str, Any]]:
    """Train the adapters of a bank as functions of shared parameters; else as `fit_bank`.

    design      who shares what with whom; all adapters start as the bank's first row does
    cluster_of  [N] index of each adapter's cluster;  vectors [N, E]: what is known of its persona
    An adapter without train dialogues gets what the design says of it (its cluster's part, or its vector's).
    Returns the report, and the design's facts.
    """
    made = create_design(design, bank, Flat(bank.tensors), cluster_of, vectors, seed)
    fit = JointLoop(backbone, bank, train, validation, options, seed, made)
    shared = {"design": [type(design).__name__, asdict(design)], "cluster_of": list(cluster_of)}
    if vectors is not None:
        shared["vectors"] = hashlib.sha256(vectors.cpu().numpy().tobytes()).hexdigest()
    identity = hashlib.sha256(f"{fit.identity()} {json.dumps(shared, sort_keys=True)}".encode()).hexdigest()
    report = _to_the_end(fit, identity, progress, announce, checkpoint, checkpoint_seconds, watch)
    return report, made.facts()


def _to_the_end(
    fit: FitLoop,
    identity: str,
    progress: OnProgress | None,
    announce: Callable[[str], None] | None,
    checkpoint: Path | None,
    checkpoint_seconds: float,
    watch: Watch | None,
) -> FitReport:
    if announce and fit.learning():
        announce(fit.estimate())
    with fit.waves.threads():
        file = Checkpoint(checkpoint, identity, checkpoint_seconds, announce) if checkpoint else None
        _train(fit, file, progress, watch)
    return fit.finish()


def _train(fit: FitLoop, file: Checkpoint | None, progress: OnProgress | None, watch: Watch | None) -> None:
    if file and (state := file.read(fit.backbone.device)):
        fit.restore(*state)
        if watch:  # it may be another one than before
            for epoch, loss in fit.watched:
                watch(epoch, loss)
    elif fit.options.keep_start:
        fit.validate_start()
    while fit.learning():
        note = fit.one_step()
        made_epoch = fit.watch()
        if file and file.due():
            file.save(*fit.state())
        if progress:
            progress(*fit.dialogues_done_and_total(), note)
        if watch and made_epoch:
            watch(*fit.watched[-1])
