"""Joint fits: the adapters of a bank are functions of shared parameters (a design), trained together.

The steps are those of fit_loop, in which every adapter has its own batch and its own mean loss; only the update
differs. Each adapter keeps its best snapshot by its own validation loss; all stop together, so that one with fewer
dialogues goes through them more often: what it shares with others is not ready before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.adapters import Bank
from harness.contract import TrainOptions
from harness.model import Backbone, Encoded
from harness.training.designs import Design
from harness.training.fit_loop import FitLoop
from harness.training.fit_report import AdapterState
from harness.training.optimiser import BETA1, BETA2, EPSILON, learning_rate_factor


class JointLoop(FitLoop):
    """A joint fit under way: the adapters' values are what the design says."""

    def __init__(
        self,
        backbone: Backbone,
        bank: Bank,
        train: Sequence[Sequence[Encoded]],
        validation: Sequence[Sequence[Encoded]],
        options: TrainOptions,
        seed: int,
        design: Design,
    ) -> None:
        super().__init__(backbone, bank, train, validation, options, seed)
        self.design = design
        self.torch_optimiser = torch.optim.AdamW(
            design.parameters(), lr=0.0, betas=(BETA1, BETA2), eps=EPSILON, weight_decay=self.options.weight_decay
        )
        self.longest = max((self._total_steps(i) for i in range(len(self.adapters))), default=0)
        # A step's loss is a mean per label; the prior stands against the sum over an adapter's labels.
        labels = [sum(len(row.targets) for row in rows) for rows in self.train_rows if rows]
        self.prior_weight = 1.0 / float(np.mean(labels))
        self.best_mean, self.best_joint_epoch, self.joint_epochs = math.inf, 0, 0
        self._refresh()
        self.best.copy_(self.optimiser.values)

    def _refresh(self) -> None:
        with torch.no_grad():
            self.optimiser.values.copy_(self.design())

    def _update(self, good: list[int], norms: np.ndarray, labels: np.ndarray) -> None:
        """One AdamW step of the design on the summed mean losses of the adapters `good`, clipped one by one."""
        options, device = self.options, self.optimiser.values.device
        raw = self.optimiser.gradients
        kept = torch.zeros(len(self.adapters), 1, dtype=raw.dtype, device=device)
        kept[good] = 1.0
        raw = torch.where(kept > 0, raw, torch.zeros_like(raw))  # 0 * nan would stay nan
        self.design.observe(raw * torch.as_tensor(labels, dtype=raw.dtype, device=device)[:, None])
        factors = np.ones(len(self.adapters))
        if options.clip:
            factors[good] = np.minimum(1.0, options.clip / (norms[good] + 1e-6))
        clipped = raw * torch.as_tensor(factors, dtype=raw.dtype, device=device)[:, None]
        self.torch_optimiser.zero_grad(set_to_none=True)
        values = self.design()
        penalty = self.design.penalty()
        if penalty.requires_grad:
            (penalty * self.prior_weight).backward()
        values.backward(clipped)
        rate = options.learning_rate * learning_rate_factor(self.step, self.longest, options.warmup, options.schedule)
        for group in self.torch_optimiser.param_groups:
            group["lr"] = rate
        self.torch_optimiser.step()
        self._refresh()

    def _last_step(self, adapter: int) -> int:
        return self.longest if self.train_rows[adapter] else 0

    def _out_of_patience(self, state: AdapterState, epoch: int) -> bool:
        return False  # all stop together, see _end_epoch

    def _give_up(self, adapter: int) -> None:
        self.adapters[adapter].status = "diverged"
        self.adapters[adapter].done = True

    def _end_epoch(self, ended: list[int]) -> None:
        learners = [i for i, rows in enumerate(self.train_rows) if rows]
        if self.step % max(map(self._steps_per_epoch, learners)):
            return  # an epoch is one of whoever has most dialogues, for all
        super()._end_epoch(learners)
        self.design.end_epoch()
        self.joint_epochs += 1
        last = [state.validation_loss[-1] for state in self.adapters if state.validation_loss]
        mean = float(np.mean(last)) if last else math.nan
        if not last or mean < self.best_mean:
            self.best_mean, self.best_joint_epoch = mean, self.joint_epochs
            without = [i for i, rows in enumerate(self.train_rows) if not rows]
            self.best[without] = self.optimiser.values[without]  # what the design says of people it never saw
        elif self.options.patience and self.joint_epochs - self.best_joint_epoch >= self.options.patience:
            for state in self.adapters:
                state.done = True

    # ---- interruption ----

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, facts = super().state()
        tensors |= {f"design.{name}": value for name, value in self.design.state_dict().items()}
        for i, moments in self.torch_optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": torch.as_tensor(value) for name, value in moments.items()}
        facts["joint"] = [self.best_mean, self.best_joint_epoch, self.joint_epochs]
        return tensors, facts

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        super().restore(tensors, facts)
        mine = {name.removeprefix("design."): t for name, t in tensors.items() if name.startswith("design.")}
        self.design.load_state_dict(mine)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, number, part = name.split(".")
                moments.setdefault(int(number), {})[part] = tensor
        whole = self.torch_optimiser.state_dict()
        self.torch_optimiser.load_state_dict({**whole, "state": moments})
        self.best_mean, self.best_joint_epoch, self.joint_epochs = facts["joint"]
