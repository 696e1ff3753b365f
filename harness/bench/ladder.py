"""The ladder: one loop in which each technique of the bank is a switch, so that each can be measured alone.

It is written for comparison, not for use: with all switches on it is a bank, but not the harness's.
Legend: G adapters of a group, B rows, T tokens, P virtual tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.adapters import key_seed
from harness.bench.job import padded
from harness.bench.peers import STUDY_WIDTH, study_rows
from harness.contract import TrainOptions
from harness.engines import epoch_order
from harness.model import Encoded
from harness.training import learning_rate_factor

WAVE_TOKENS = 16_384  # padded tokens that go through the model at once


@dataclass(frozen=True)
class Switches:
    """Which techniques are on.

    load_once        the model is loaded once, not anew for each persona
    dynamic_padding  to the longest row of a batch, not to 512
    whole_dialogues  all turns of a dialogue in one row, not a row for each turn
    label_logits     the head on label positions, not on all
    together         all adapters in one step, not one after another
    """

    load_once: bool = False
    dynamic_padding: bool = False
    whole_dialogues: bool = False
    label_logits: bool = False
    together: bool = False

    @classmethod
    def named(cls, names: str) -> Switches:
        """From names joined by "+"; "none" for none."""
        return cls(**dict.fromkeys([name for name in names.split("+") if name != "none"], True))


TECHNIQUES = tuple(field.name for field in fields(Switches))


def rungs() -> list[str]:
    """All measured combinations: none, each technique alone, then one after another on top."""
    together = ["+".join(TECHNIQUES[:count]) for count in range(2, len(TECHNIQUES) + 1)]
    return ["none", *TECHNIQUES, *together]


def rows_of(dialogues: Sequence[Encoded], switches: Switches) -> list[Encoded]:
    """What one adapter trains on."""
    return list(dialogues) if switches.whole_dialogues else study_rows(dialogues)


def climb(
    load: Callable[[], Any],
    train: Mapping[str, Sequence[Encoded]],
    initial: Mapping[str, Tensor],
    options: TrainOptions,
    seed: int,
    pad: int,
    switches: Switches,
    progress: Callable[[int], None] = lambda dialogues: None,
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Train a soft prompt per key with the given techniques; returns the prompts [P, D] and what was done.

    load   gives the frozen model
    progress   called with the dialogues' worth of each step
    """
    rows = {key: rows_of(dialogues, switches) for key, dialogues in train.items()}
    groups: list[list[str]] = [[key] for key in rows]
    if switches.together:  # those with equally many rows, so that all of a group make the same steps
        counts = sorted({len(own) for own in rows.values()})
        groups = [[key for key in rows if len(rows[key]) == count] for count in counts]
    model = load() if switches.load_once else None
    found: dict[str, Tensor] = {}
    done = {"steps": 0, "tokens": 0, "padded_tokens": 0}
    for group in groups:
        loop = _Loop(model or load(), group, rows, initial, options, seed, pad, switches, done)
        for step in range(loop.total):
            loop.step(step)
            progress(sum(len(train[key]) for key in group) * (step + 1) // loop.steps_an_epoch
                 - sum(len(train[key]) for key in group) * step // loop.steps_an_epoch)  # fmt: skip
        found |= dict(zip(group, loop.prompts.detach().clone(), strict=True))
    return found, done


class _Loop:
    """A group of adapters in training; loss, clipping and AdamW per adapter."""

    def __init__(
        self, model: Any, group: Sequence[str], rows: Mapping[str, Sequence[Encoded]], initial: Mapping[str, Tensor],
        options: TrainOptions, seed: int, pad: int, switches: Switches, done: dict[str, int],
    ) -> None:  # fmt: skip
        self.model, self.group, self.options, self.seed = model, group, options, seed
        self.rows, self.pad, self.switches, self.done = rows, pad, switches, done
        device = model.get_input_embeddings().weight.device
        self.prompts = torch.nn.Parameter(torch.stack([initial[key] for key in group]).to(device))  # [G, P, D]
        self.optimiser = torch.optim.AdamW([self.prompts], weight_decay=options.weight_decay)
        self.steps_an_epoch = -(-len(rows[group[0]]) // options.batch_size)
        self.total = self.steps_an_epoch * options.epochs

    def step(self, number: int) -> None:
        epoch, batch = divmod(number, self.steps_an_epoch)
        size, options = self.options.batch_size, self.options
        entries: list[tuple[int, Encoded]] = []
        labels = []
        for place, key in enumerate(self.group):
            order = epoch_order(key_seed(self.seed, key, "order", epoch), len(self.rows[key]))
            chosen = [self.rows[key][i] for i in order[batch * size : (batch + 1) * size]]
            entries += [(place, row) for row in chosen]
            labels.append(sum(map(sum, (row.labels for row in chosen))))
        for wave in self._waves(entries):
            self._backward(wave, labels)
        assert self.prompts.grad is not None
        if options.clip:
            norms = self.prompts.grad.flatten(1).norm(dim=1)
            self.prompts.grad *= (options.clip / (norms + 1e-6)).clamp(max=1.0)[:, None, None]
        factor = learning_rate_factor(number, self.total, options.warmup, options.schedule)
        self.optimiser.param_groups[0]["lr"] = options.learning_rate * factor
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.done["steps"] += len(self.group)

    def _waves(self, entries: list[tuple[int, Encoded]]) -> list[list[tuple[int, Encoded]]]:
        width = max(len(row) for _, row in entries) if self.switches.dynamic_padding else STUDY_WIDTH
        share = max(1, WAVE_TOKENS // (self.prompts.shape[1] + width))
        ordered = sorted(entries, key=lambda entry: -len(entry[1]))
        return [ordered[at : at + share] for at in range(0, len(ordered), share)]

    def _backward(self, wave: Sequence[tuple[int, Encoded]], labels: Sequence[int]) -> None:
        device, prefix = self.prompts.device, self.prompts.shape[1]
        owners = torch.tensor([place for place, _ in wave], device=device)
        width = None if self.switches.dynamic_padding else STUDY_WIDTH
        batch = padded([row for _, row in wave], self.pad, width)
        self.done["tokens"] += int(batch["attention_mask"].sum()) + prefix * len(wave)
        self.done["padded_tokens"] += batch["attention_mask"].numel() + prefix * len(wave)
        batch = {name: part.to(device) for name, part in batch.items()}
        embedded = self.model.get_input_embeddings()(batch["input_ids"])
        embedded = torch.cat([self.prompts[owners].to(embedded.dtype), embedded], dim=1)
        mask = F.pad(batch["attention_mask"], (prefix, 0), value=1)
        # Position P - 1 + t predicts token t.
        targets = F.pad(batch["labels"], (prefix - 1, 1), value=-100)  # [B, P + T]
        if self.switches.label_logits:
            hidden = self.model.model(inputs_embeds=embedded, attention_mask=mask, use_cache=False).last_hidden_state
            logits = self.model.get_output_embeddings()(hidden[targets >= 0])
        else:
            logits = self.model(inputs_embeds=embedded, attention_mask=mask, use_cache=False).logits
        logits = logits if logits.dtype == torch.float64 else logits.float()
        weights = (1.0 / torch.tensor(labels, dtype=logits.dtype, device=device))[owners]  # [B]
        if self.switches.label_logits:
            spread = weights[:, None].expand_as(targets)[targets >= 0]
            loss = (F.cross_entropy(logits, targets[targets >= 0], reduction="none") * spread).sum()
        else:
            losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=-100)
            loss = (losses.view_as(targets).sum(1) * weights).sum()
        loss.backward()
