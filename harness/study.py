"""What a method may use, and nothing else: the frozen backbone, train and validation dialogues, two services.

`Study.fit_adapters` trains all adapters of a grouping together and caches them by content; `Study.generate` decodes
in batches with one adapter per row. Test dialogues never come here: prompts arrive without references.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from harness import likelihood
from harness.adapters import AdapterSpec, Bank, LoRABank, create_bank, load_bank, save_bank
from harness.backbone import Backbone, merged
from harness.errors import HarnessError, did_you_mean
from harness.generation import generate
from harness.progress import Progress
from harness.prompts import (
    Encoded,
    dialogue_messages,
    encode_dialogue,
    encode_prompt,
    encode_reply,
    end_of_turn_id,
)
from harness.records import Dialogue, Message, Persona, Prompt, Protocol, Split
from harness.sources import FIT_SOURCES, source_hash
from harness.store import Store, canonical_hash, dump_json, read_json
from harness.training import TrainOptions, fit_bank

Grouping = Mapping[str, str]  # persona id -> key of the adapter that serves it
Control = Literal["global", "swapped"]


def _as_asked(prompt: Prompt) -> tuple[Message, ...]:
    return prompt.messages


@dataclass(frozen=True)
class Fitted:
    """Adapters with what they stand on, and which persona is served by which.

    backbone     frozen model below the adapters (what they stand on is merged into it)
    bank         the adapters; None: the bare backbone replies
    grouping     persona id -> key in the bank; a persona that is not in it gets `otherwise`
    otherwise    key for everybody else; None: the backbone without an adapter
    report       what fitting cost and how each adapter fared, as stored in the record
    folder       where the adapters lie in PEFT format
    messages     prompt -> the messages the model sees; replace it to add text (shown in the method's row)
    adds_text    whether `messages` was replaced
    """

    backbone: Backbone
    bank: Bank | None = None
    grouping: Grouping = field(default_factory=dict)
    otherwise: str | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    messages: Callable[[Prompt], tuple[Message, ...]] = _as_asked

    @property
    def adds_text(self) -> bool:
        return self.messages is not _as_asked

    def row(self, persona: str) -> int:
        """Row of the bank that serves a persona; -1: no adapter."""
        key = self.grouping.get(persona, self.otherwise)
        return -1 if self.bank is None or key is None else self.bank.row(key)

    def base(self) -> Backbone:
        """This as a frozen backbone to stand on: a single LoRA is merged into the weights.

        Raises HarnessError if there are several adapters, or one that cannot be merged.
        """
        if self.bank is None:
            return self.backbone
        if not isinstance(self.bank, LoRABank) or len(self.bank) != 1:
            raise HarnessError(
                f"only one LoRA shared by everybody can be stood on, not {len(self.bank)} x {self.bank.spec}; "
                "name a method with a single LoRA in `requires`"
            )
        return self._merged

    @functools.cached_property
    def _merged(self) -> Backbone:
        """The backbone with the single LoRA folded in, made once: both fits and replies stand on it."""
        assert self.bank is not None
        return merged(self.backbone, self.bank, 0)


class Study:
    """One method's view of a run. Made by the runner; see the module's docstring.

    personas   those that this method is fitted for
    options    an instance of the card's options dataclass
    seed       of the run
    backbone   frozen; its weights are checked after `fit`
    protocol   how prompts are built and replies decoded
    validation_read   whether the method asked for validation dialogues itself, which its card has to declare
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        personas: Sequence[Persona],
        dialogues: Sequence[Dialogue],
        protocol: Protocol,
        options: Any,
        seed: int,
        required: Mapping[str, Fitted],
        store: Store,
        progress: Progress,
        control: Control | None = None,
    ) -> None:
        if leaked := [d.id for d in dialogues if d.split == "test"]:
            raise ValueError(f"test dialogues must not reach a study, got {leaked[:3]}")
        self.backbone = backbone
        self.personas = tuple(personas)
        self.protocol = protocol
        self.options = options
        self.seed = seed
        self.progress = progress
        self._dialogues = tuple(dialogues)
        self._required = dict(required)
        self._store = store
        self._control: Control | None = control
        self.validation_read = False

    def dialogues(self, persona: str, split: Split) -> list[Dialogue]:
        """A persona's train or validation dialogues, in order. Raises HarnessError for "test".

        A method that reads validation dialogues says on its card what for (`MethodCard.validation`).
        """
        if split == "test":
            raise HarnessError("test dialogues are not available to a method; use 'train' or 'validation'")
        self.validation_read |= split == "validation"
        return [d for d in self._dialogues if d.persona == persona and d.split == split]

    def by_persona(self) -> Grouping:
        """One adapter per persona."""
        return {p.id: p.id for p in self.personas}

    def by_cluster(self) -> Grouping:
        """One adapter per cluster of the benchmark. Raises HarnessError if a persona has none."""
        without = [p.id for p in self.personas if p.cluster is None]
        if without:
            raise HarnessError(f"{len(without)} personas have no cluster, e.g. '{without[0]}'; use by_persona")
        return {p.id: f"cluster_{p.cluster}" for p in self.personas}

    def for_all(self) -> Grouping:
        """One adapter for everybody."""
        return {p.id: "all" for p in self.personas}

    def fitted(self, method: str) -> Fitted:
        """What a required method has fitted. Raises HarnessError if the card does not require it."""
        try:
            return self._required[method]
        except KeyError:
            raise HarnessError(
                f"'{method}' is not among the methods that this one requires; add it to `requires` on the card "
                f"({did_you_mean(method, self._required)})"
            ) from None

    def bare(self, base: Fitted | None = None) -> Fitted:
        """A Fitted without adapters of its own: the backbone, or what `base` stands for."""
        return Fitted(self._base(base))

    def fit_adapters(self, spec: AdapterSpec, grouping: Grouping, base: Fitted | None, train: TrainOptions) -> Fitted:
        """Fit one adapter per key of a grouping, all together, each as if it were alone.

        spec      LoRA or SoftPrompt
        grouping  persona id -> adapter key; an adapter learns from the train dialogues of its personas, and its
                  best epoch is chosen on their validation dialogues
        base      fitted method to stand on; None: the backbone itself
        train     see TrainOptions

        The result is cached by everything that determines it, and an interrupted fit goes on where it stopped.
        Personas without train dialogues are left to the base. A control of the run changes what is fitted or who is
        served (`global`: one adapter on everybody's data in as many steps; `swapped`: another persona's adapter).
        Raises HarnessError if no persona of the grouping has train dialogues.
        """
        backbone = self._base(base)
        if self._control == "global":
            factor = len(set(grouping.values()))
            grouping = dict.fromkeys(grouping, "all")
            train = replace(train, batch_size=train.batch_size * factor)
        keys = sorted(set(grouping.values()))
        data = {split: self._encoded(backbone, grouping, split) for split in ("train", "validation")}
        if not any(data["train"].values()):
            raise HarnessError("no persona has train dialogues; nothing can be fitted (check the splits of the data)")
        identity = {
            "backbone": backbone.fingerprint,
            "spec": [type(spec).__name__, dataclasses.asdict(spec)],
            "train": dataclasses.asdict(train),
            "seed": self.seed,
            "keys": keys,
            "data": canonical_hash(
                {s: {k: [[e.ids, e.labels] for e in v] for k, v in d.items()} for s, d in data.items()}
            ),
            "numerics": numerics(backbone),
            "code": source_hash(FIT_SOURCES),
        }
        key = canonical_hash(identity)

        def fit(folder: Path) -> None:
            bank = create_bank(backbone, spec, keys, self.seed)
            partial = self._store.partial(key)
            partial.mkdir(parents=True, exist_ok=True)
            with self.progress.task(f"fit {len(keys)} x {type(spec).__name__}", 0, "dialogues") as advance:
                report = fit_bank(
                    backbone, bank, data["train"], data["validation"], train, self.seed,
                    progress=advance.to, checkpoint=partial / "state",
                )  # fmt: skip
            save_bank(bank, folder / "adapters", backbone.name)
            dump_json({**report.as_dict(), "identity": identity}, folder / "report.json")

        folder = self._store.cached("adapters", key, fit)
        shutil.rmtree(self._store.partial(key), ignore_errors=True)
        report = read_json(folder / "report.json")
        bank = load_bank(folder / "adapters", backbone)
        without = {k for k, state in report["adapters"].items() if state["status"] == "no data"}
        served = {p: k for p, k in grouping.items() if k not in without}
        if self._control == "swapped":
            served = _swapped(served, self.seed)
        otherwise = "all" if set(keys) == {"all"} and self._control is None else None
        return Fitted(backbone, bank, served, otherwise, report, folder / "adapters")

    def generate(self, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
        """Replies to prompts by the protocol: greedy text, or the decision over the closed set of choices."""
        if self.protocol.choices:
            chosen = likelihood.decide(
                choice_log_probs(self.protocol, fitted, prompts, self.progress),
                self.protocol.choices,
                self.protocol.decision,
            )
            return [self.protocol.choices[i] for i in chosen]
        backbone, bank, rows = serving(fitted, prompts)
        tokenizer = backbone.tokenizer
        ids = [encode_prompt(tokenizer, fitted.messages(p), self.protocol.max_prompt_tokens)[0] for p in prompts]
        with self.progress.task("reply", len(prompts), "replies") as advance:
            tokens = generate(
                backbone, bank, rows, ids,
                max_new_tokens=self.protocol.max_new_tokens, stop_id=end_of_turn_id(tokenizer), progress=advance.to,
            )  # fmt: skip
        return [tokenizer.decode(reply, skip_special_tokens=True) for reply in tokens]

    def _base(self, base: Fitted | None) -> Backbone:
        return self.backbone if base is None else base.base()

    def _encoded(self, backbone: Backbone, grouping: Grouping, split: Split) -> dict[str, list[Encoded]]:
        people = {p.id: p for p in self.personas}
        made: dict[str, list[Encoded]] = {key: [] for key in sorted(set(grouping.values()))}
        for dialogue in self._dialogues:
            if dialogue.split == split and dialogue.persona in grouping:
                messages = dialogue_messages(self.protocol, people[dialogue.persona], dialogue)
                encoded = encode_dialogue(backbone.tokenizer, messages, self.protocol.max_prompt_tokens)
                if len(encoded):
                    made[grouping[dialogue.persona]].append(encoded)
        return made


def serving(fitted: Fitted, prompts: Sequence[Prompt]) -> tuple[Backbone, Bank | None, list[int]]:
    """Backbone, bank and bank row per prompt; a single LoRA that serves everybody is merged, which is faster."""
    rows = [fitted.row(p.persona) for p in prompts]
    if isinstance(fitted.bank, LoRABank) and len(fitted.bank) == 1 and all(row == 0 for row in rows):
        return fitted.base(), None, [-1] * len(prompts)
    return fitted.backbone, fitted.bank, rows


def choice_log_probs(protocol: Protocol, fitted: Fitted, prompts: Sequence[Prompt], progress: Progress) -> Any:
    """Log probabilities [n, C] of the protocol's choices after each prompt, normalised over the choices."""
    backbone, bank, rows = serving(fitted, prompts)
    ids = [encode_prompt(backbone.tokenizer, fitted.messages(p), protocol.max_prompt_tokens)[0] for p in prompts]
    choices = [encode_reply(backbone.tokenizer, choice) for choice in protocol.choices]
    with progress.task("weigh choices", len(prompts), "replies") as advance:
        return likelihood.choice_log_probs(backbone, bank, rows, ids, choices, progress=advance.to)


def reply_nll(
    protocol: Protocol,
    fitted: Fitted,
    prompts: Sequence[Prompt],
    references: Sequence[str],
    progress: Progress,
) -> tuple[list[tuple[float, int]], int]:
    """(summed nats, tokens) of each reference after its prompt, and how many prompts lost old turns to fit."""
    backbone, bank, rows = serving(fitted, prompts)
    encoded = [encode_prompt(backbone.tokenizer, fitted.messages(p), protocol.max_prompt_tokens) for p in prompts]
    replies = [encode_reply(backbone.tokenizer, text) for text in references]
    with progress.task("likelihood", len(prompts), "replies") as advance:
        ids = [ids for ids, _ in encoded]
        nats = likelihood.reply_nll(backbone, bank, rows, ids, replies, progress=advance.to)
    return nats, sum(cut for _, cut in encoded)


def numerics(backbone: Backbone) -> dict[str, str]:
    """What decides on the last bits besides the inputs: dtype, device kind, threads, library versions."""
    import torch
    import transformers

    return {
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "device": backbone.device.type,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _swapped(grouping: Grouping, seed: int) -> dict[str, str]:
    """Every persona gets the adapter of another: one cycle through the keys in seeded order."""
    keys = sorted(set(grouping.values()))
    if len(keys) < 2:
        raise HarnessError("the control 'swapped' needs at least two adapters; this method has one for everybody")
    random.Random(seed).shuffle(keys)
    following = dict(zip(keys, keys[1:] + keys[:1], strict=True))
    return {persona: following[key] for persona, key in grouping.items()}
