"""The state of a fit and its step: each adapter has its own loss, schedule, order, stop and failure.

Callers use training.fit_bank; what goes through the model is in waves. Legend: N adapters, K numbers of one adapter.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from harness.adapters import Bank, key_seed
from harness.contract import TrainOptions
from harness.engines import Entry, epoch_order, out_of_sight, rows_of_data
from harness.model import Backbone, Encoded
from harness.training.fit_report import AdapterState, FitReport
from harness.training.optimiser import BankAdamW, learning_rate_factor
from harness.training.waves import WaveRunner

# A step loss above this multiple of a uniform guess's (ln V nats a token) counts as exploded.
EXPLODED = 4.0
LONG_STEP_SECONDS = 20.0  # a trial of the speed that took longer is not repeated
# Relative gain in validation loss that counts; below it, two ways to the same sum may disagree.
SMALLEST_GAIN = 1e-6


class FitLoop:
    """A fit under way. `state` and `restore` carry it over an interruption to the bit."""

    def __init__(
        self,
        backbone: Backbone,
        bank: Bank,
        train: Sequence[Sequence[Encoded]],
        validation: Sequence[Sequence[Encoded]],
        options: TrainOptions,
        seed: int,
    ) -> None:
        self.started = time.monotonic()
        self.watched: list[tuple[int, float]] = []  # epochs that all adapters have made, with the mean of their losses
        self.backbone, self.bank, self.options, self.seed = backbone, bank, options, seed
        self.train_rows = rows_of_data(backbone, bank, train, "train")
        self.validation_rows = rows_of_data(backbone, bank, validation or [()] * len(bank), "validation")
        self.hidden = out_of_sight(backbone, bank, self.train_rows)
        self.waves = WaveRunner(backbone, bank, options.microbatch_tokens, seed)
        by_key = sorted(range(len(bank)), key=bank.keys.__getitem__)
        self.ranks = np.argsort(by_key).tolist()  # of each adapter among the sorted keys
        self.flat = self.waves.flat
        start = self.flat.join(bank.tensors)
        anchor = start.clone() if options.towards_start and options.weight_decay else None
        self.optimiser = BankAdamW(start, options.weight_decay, options.clip, anchor)
        self.best = self.optimiser.values.clone()
        self.adapters = [AdapterState(status="ok" if rows else "no data", done=not rows) for rows in self.train_rows]
        self.step = 0  # of the fit; an adapter that still learns has made as many
        self.orders: dict[int, tuple[int, np.ndarray]] = {}  # adapter -> epoch and its permutation
        vocabulary = backbone.model.get_input_embeddings().weight.shape[0]
        self.explosion = EXPLODED * math.log(vocabulary)

    def estimate(self) -> str:
        """A line on the memory that a step needs, and on the engine that computes it."""
        waves = self.waves
        why = f" ({waves.why})" if waves.why else ""
        line = f"{waves.estimate(self.train_rows, self.options.batch_size).text()}; engine {waves.engine.name}{why}"
        if self.hidden:
            rows = sum(map(len, self.train_rows))
            line += (
                f"; warning: every layer of {self.backbone.name!r} has a sliding window, and the end of {self.hidden} "
                f"of {rows} dialogues is too far from the virtual tokens to see them"
            )
        return line

    # ---- who and what is next ----

    def learning(self) -> list[int]:
        """Adapters that still learn."""
        return [i for i, state in enumerate(self.adapters) if not state.done]

    def _in_batch(self) -> list[int]:
        """Adapters with rows in the next step.

        A diverged one keeps its rows to the end of its schedule: without them the waves would have another
        shape and round otherwise, and a failure must not change one bit of a neighbour. This is rare, so the
        extra time is accepted.
        """
        return [
            i
            for i, state in enumerate(self.adapters)
            if not state.done or (state.status == "diverged" and self.step < self._last_step(i))
        ]

    def _steps_per_epoch(self, adapter: int) -> int:
        return -(-len(self.train_rows[adapter]) // self.options.batch_size)

    def _total_steps(self, adapter: int) -> int:
        return self._steps_per_epoch(adapter) * self.options.epochs

    def _last_step(self, adapter: int) -> int:
        """So many steps an adapter makes if nothing stops it earlier."""
        return self._total_steps(adapter)

    def _passes(self, adapter: int) -> int:
        """So often it goes through its dialogues then."""
        return -(-self._last_step(adapter) // max(1, self._steps_per_epoch(adapter)))

    def _entries(self, adapter: int) -> list[Entry]:
        """The adapter's rows of this step, in the order of its own shuffled epoch."""
        epoch, batch = divmod(self.step, self._steps_per_epoch(adapter))
        rows = self.train_rows[adapter]
        if self.orders.get(adapter, (-1,))[0] != epoch:
            order = epoch_order(key_seed(self.seed, self.bank.keys[adapter], "order", epoch), len(rows))
            self.orders[adapter] = (epoch, order)
        first = batch * self.options.batch_size
        chosen = self.orders[adapter][1][first : first + self.options.batch_size]
        return [Entry(adapter, self.ranks[adapter], place, rows[i]) for place, i in enumerate(chosen)]

    # ---- one step ----

    def one_step(self) -> str:
        """One step of every adapter that has one; returns a note for a progress display."""
        in_batch = self._in_batch()
        entries = [entry for adapter in in_batch for entry in self._entries(adapter)]
        tokens, labels = self.waves.count(entries)
        values, gradients = self.optimiser.values, self.optimiser.gradients
        losses = self.waves.gradients(entries, labels, values, gradients, self.step) / np.maximum(labels, 1)
        norms = self.optimiser.gradient_norms()
        good = []
        for i in self.learning():
            if math.isfinite(norms[i]) and losses[i] <= self.explosion:  # false for a NaN loss
                good.append(i)
                self.adapters[i].count_step(int(tokens[i]), int(labels[i]), float(losses[i]))
            else:
                self._give_up(i)
        if good:
            self._update(good, norms, labels)
        self.step += 1
        ended = [i for i in in_batch if self.step % self._steps_per_epoch(i) == 0]
        if ended:
            self._end_epoch(ended)
        mean = float(losses[good].mean()) if good else math.nan
        return f"{len(self.learning())} of {len(self.adapters)} adapters training, loss {mean:.3f}"

    def _update(self, good: list[int], norms: np.ndarray, labels: np.ndarray) -> None:
        """Change the adapters `good` by their gradients, whose norms [N] and label tokens [N] are known."""
        rates = np.array([self._rate(i) for i in good])
        self.optimiser.step(np.array(good), self.step + 1, rates, norms[good])

    def _rate(self, adapter: int) -> float:
        options = self.options
        factor = learning_rate_factor(self.step, self._total_steps(adapter), options.warmup, options.schedule)
        return options.learning_rate * factor

    def _give_up(self, adapter: int) -> None:
        self.adapters[adapter].status = "diverged"
        self.adapters[adapter].done = True
        self.optimiser.values[adapter] = self.best[adapter]

    def whole_epochs(self) -> int:
        """Epochs that every adapter has made which still learns; all of them once none does."""
        made = [len(state.train_loss) for state in self.adapters if not state.done]
        return min(made) if made else max(len(state.train_loss) for state in self.adapters)

    def watch(self) -> bool:
        """Whether all adapters have made another epoch; `watched` has it then."""
        if (epoch := self.whole_epochs()) <= (self.watched[-1][0] if self.watched else 0):
            return False
        self.watched.append((epoch, self.mean_validation_loss()))
        return True

    def mean_validation_loss(self) -> float:
        """Mean over the adapters of their latest validation losses; nan without any."""
        latest = [state.validation_loss[-1] for state in self.adapters if state.validation_loss]
        return sum(latest) / len(latest) if latest else math.nan

    def planned(self) -> tuple[int, int, int]:
        """(steps, tokens trained on, tokens validated on) of all epochs, summed over the adapters."""
        steps = sum(self._last_step(i) for i in range(len(self.bank)))
        once, held = (
            [sum(self.bank.prefix_tokens + len(row.inputs) for row in own) for own in rows]
            for rows in (self.train_rows, self.validation_rows)
        )
        tokens = sum(self._passes(i) * own for i, own in enumerate(once))
        return steps, tokens, self.options.epochs * sum(held)

    def speeds(self) -> tuple[float, float]:
        """Tokens a second of training and of validating, measured on rows of the first step; no adapter changes."""
        waves, values, gradients = self.waves, self.optimiser.values, self.optimiser.gradients
        entries: list[Entry] = []
        left = waves.workers * self.options.microbatch_tokens
        for entry in (entry for adapter in self.learning() for entry in self._entries(adapter)):
            if left > 0:
                entries.append(entry)
                left -= self.bank.prefix_tokens + len(entry.row.inputs)
        tokens, labels = waves.count(entries)
        with waves.threads():
            started = between = 0.0
            for _ in range(2):  # the first pays for what is made once
                started = time.perf_counter()
                waves.gradients(entries, np.maximum(labels, 1), values, gradients, 0)
                between = time.perf_counter()
                if between - started > LONG_STEP_SECONDS:
                    break
            waves.losses(entries, values)
            ended = time.perf_counter()
        return tokens.sum() / (between - started), tokens.sum() / (ended - between)

    # ---- ends of epochs ----

    def validate_start(self) -> None:
        """Let the starting values compete for the best snapshot."""
        losses = self._validation_losses(self.learning())
        for i in self.learning():
            if self.validation_rows[i]:
                self.adapters[i].start_validation_loss = float(losses[i])
                self.adapters[i].best_loss = float(losses[i]) if math.isfinite(losses[i]) else math.inf

    def _end_epoch(self, ended: list[int]) -> None:
        losses = self._validation_losses(ended)  # of diverged ones too, see _in_batch
        for i in ended:
            state = self.adapters[i]
            if state.done:
                continue
            epoch = state.end_epoch()
            if not bool(self.optimiser.values[i].isfinite().all()):
                self._give_up(i)
            elif not self.validation_rows[i]:
                self._keep(i, epoch)
            elif not math.isfinite(losses[i]):
                self._give_up(i)
            else:
                loss = float(losses[i])
                state.validation_loss.append(loss)
                if loss < state.best_loss - SMALLEST_GAIN * abs(loss):
                    state.best_loss = loss
                    self._keep(i, epoch)
                elif self._out_of_patience(state, epoch):
                    state.done = True
            if epoch >= self.options.epochs:
                state.done = True

    def _out_of_patience(self, state: AdapterState, epoch: int) -> bool:
        return bool(self.options.patience) and epoch - state.best_epoch >= self.options.patience

    def _keep(self, adapter: int, epoch: int) -> None:
        self.adapters[adapter].best_epoch = epoch
        self.best[adapter] = self.optimiser.values[adapter]

    def _validation_losses(self, adapters: list[int]) -> np.ndarray:
        """Mean loss per label token [N] on validation dialogues; 0 for adapters not asked or without any."""
        entries = [
            Entry(i, self.ranks[i], place, row) for i in adapters for place, row in enumerate(self.validation_rows[i])
        ]
        if not entries:
            return np.zeros(len(self.adapters))
        _, labels = self.waves.count(entries)
        return self.waves.losses(entries, self.optimiser.values) / np.maximum(labels, 1)

    # ---- interruption and end ----

    def identity(self) -> str:
        """sha256 (hex) of everything that decides on the outcome."""
        facts = [
            self.backbone.fingerprint,
            type(self.bank).__name__,
            asdict(self.bank.spec),
            self.bank.keys,
            asdict(self.options),
            self.seed,
        ]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for split in (self.train_rows, self.validation_rows):
            for rows in split:
                digest.update(f"\n{len(rows)}:".encode())
                for row in rows:
                    for numbers in (row.inputs, row.positions, row.targets):
                        digest.update(f"{len(numbers)} ".encode() + numbers.tobytes())
        digest.update(self.flat.join(self.bank.tensors).cpu().numpy().tobytes())
        return digest.hexdigest()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, facts) from which `restore` goes on."""
        tensors = {
            "values": self.optimiser.values,
            "moment1": self.optimiser.moment1,
            "moment2": self.optimiser.moment2,
            "best": self.best,
        }
        facts = {
            "step": self.step,
            "padded_tokens": self.waves.padded_tokens,
            "rewaved": self.waves.rewaved,
            "seconds": time.monotonic() - self.started,
            "adapters": [asdict(state) for state in self.adapters],
            "watched": [[epoch, loss if math.isfinite(loss) else None] for epoch, loss in self.watched],
        }
        return tensors, facts

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Continue from a saved state of the same fit."""
        self.optimiser.values.copy_(tensors["values"])
        self.optimiser.moment1.copy_(tensors["moment1"])
        self.optimiser.moment2.copy_(tensors["moment2"])
        self.best.copy_(tensors["best"])
        self.step = facts["step"]
        self.waves.padded_tokens, self.waves.rewaved = facts["padded_tokens"], facts["rewaved"]
        self.started = time.monotonic() - facts["seconds"]
        self.adapters = [AdapterState(**state) for state in facts["adapters"]]
        self.watched = [(epoch, math.nan if loss is None else loss) for epoch, loss in facts["watched"]]

    def dialogues_done_and_total(self) -> tuple[int, int]:
        """Training dialogues seen, and seen plus those still to come as things stand."""
        done = to_come = 0
        for i, state in enumerate(self.adapters):
            rows, per_epoch = len(self.train_rows[i]), max(1, self._steps_per_epoch(i))
            epochs, batches = divmod(state.steps, per_epoch)
            seen = epochs * rows + min(batches * self.options.batch_size, rows)
            done += seen
            to_come += 0 if state.done else self._passes(i) * rows - seen
        return done, done + to_come

    def finish(self) -> FitReport:
        """Write each adapter's best values into the bank."""
        for name, part in self.flat.split(self.best).items():
            self.bank.tensors[name].detach().copy_(part)
        return FitReport(
            adapters=dict(zip(self.bank.keys, (state.report() for state in self.adapters), strict=True)),
            seconds=time.monotonic() - self.started,
            tokens=sum(state.tokens for state in self.adapters),
            label_tokens=sum(state.label_tokens for state in self.adapters),
            padded_tokens=self.waves.padded_tokens,
            rewaved=self.waves.rewaved,
            hidden=self.hidden,
        )
