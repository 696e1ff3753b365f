"""The ways to decode replies with one adapter per prompt that are measured, all greedy, all from loaded adapters.

Which replies, and what the figures mean, is in `serving`; the harness's own decoding is `harness.engines`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.adapters import load_bank
from harness.bench.job import Asked
from harness.engines import engine_for
from harness.errors import HarnessError, did_you_mean
from harness.model import DTYPES, load_backbone, set_repeatable

OnProgress = Callable[[int], None]
BATCHES = (1, 8, 64, 256)
MIXED_ROWS = 64
NO_LIMIT = 2**31


@dataclass
class Result:
    """What a way did.

    seconds        of decoding alone;  load_seconds: always 0 (nothing of the above is done once for all)
    setup_seconds  loading model and adapters, which is not in `seconds`
    replies        place of the prompt -> new tokens, without the one that ends a turn
    """

    seconds: float = 0.0
    load_seconds: float = 0.0
    setup_seconds: float = 0.0
    new_tokens: int = 0
    replies: dict[int, list[int]] = field(default_factory=dict)


def bank(asked: Asked, progress: OnProgress) -> Result:
    """The harness as it decodes in a run: one call, it cuts the batches."""
    return _bank(asked, progress, None)


def batched(asked: Asked, progress: OnProgress, rows: int) -> Result:
    """The model's own forward, called by the harness in batches of so many prompts of like length."""
    return _bank(asked, progress, rows)


def _bank(asked: Asked, progress: OnProgress, size: int | None) -> Result:
    set_repeatable()  # as in a run
    started = time.perf_counter()
    engine = "auto" if size is None else "transformers"
    backbone = load_backbone(str(asked.base), device=asked.device, dtype=asked.dtype, engine=engine)
    made = load_bank(asked.bank, backbone)
    row_of = {key: row for row, key in enumerate(made.keys)}
    result = Result(setup_seconds=time.perf_counter() - started)
    started = time.perf_counter()
    order = sorted(range(len(asked.prompts)), key=lambda i: -len(asked.prompts[i]))
    for part in _parts(order, size or len(order)):
        texts = [row_of[asked.rows[i]] for i in part], [asked.prompts[i] for i in part]
        ends: dict[str, Any] = {"max_new_tokens": asked.max_new_tokens, "stop_id": asked.stop_id}
        if size is not None:
            ends["batch_tokens"] = NO_LIMIT
        replies = engine_for(backbone, made)[0].replies(made, *texts, **ends)
        result.replies |= {asked.places[i]: reply for i, reply in zip(part, replies, strict=True)}
        progress(len(part))
    return _finished(result, started)


def _parts(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for at in range(0, len(order), size):
        yield order[at : at + size]


def _finished(result: Result, started: float) -> Result:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    result.seconds = time.perf_counter() - started
    result.new_tokens = sum(map(len, result.replies.values()))
    return result


# ---- PEFT and transformers' generate ----


def peft_one_by_one(asked: Asked, progress: OnProgress) -> Result:
    """All adapters in one PeftModel; for each prompt its adapter is set, and transformers' generate is called."""
    started = time.perf_counter()
    model = _peft_model(asked)
    result = Result(setup_seconds=time.perf_counter() - started)
    started = time.perf_counter()
    for place, key, prompt in zip(asked.places, asked.rows, asked.prompts, strict=True):
        model.set_adapter(_name(asked, key))
        ids = torch.tensor([prompt], device=asked.device)
        made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **_greedy(asked))
        result.replies[place] = _cut(made[0, len(prompt) :], asked.stop_id)
        progress(1)
    return _finished(result, started)


def peft_mixed(asked: Asked, progress: OnProgress) -> Result:
    """Batches with PEFT's `adapter_names`, which takes LoRAs only.

    Prompts are sorted by adapter, then length: every LoRA layer loops over the adapters of a batch, so few are best.
    """
    started = time.perf_counter()
    model = _peft_model(asked)
    result = Result(setup_seconds=time.perf_counter() - started)
    started = time.perf_counter()
    order = sorted(range(len(asked.prompts)), key=lambda i: (asked.rows[i], -len(asked.prompts[i])))
    for part in _parts(order, MIXED_ROWS):
        ids, mask = _left_padded([asked.prompts[i] for i in part], asked.device)
        names = [_name(asked, asked.rows[i]) for i in part]
        made = model.generate(input_ids=ids, attention_mask=mask, adapter_names=names, **_greedy(asked))
        for i, row in zip(part, made, strict=True):
            result.replies[asked.places[i]] = _cut(row[ids.shape[1] :], asked.stop_id)
        progress(len(part))
    return _finished(result, started)


def _peft_model(asked: Asked) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base: Any = AutoModelForCausalLM.from_pretrained(asked.base, dtype=DTYPES[asked.dtype])
    base = base.to(asked.device)
    keys = list(dict.fromkeys(asked.rows))
    model: Any = PeftModel.from_pretrained(base, str(_folder(asked, keys[0])), adapter_name=_name(asked, keys[0]))
    for key in keys[1:]:
        model.load_adapter(str(_folder(asked, key)), adapter_name=_name(asked, key))
    return model.eval()


def _folder(asked: Asked, key: str) -> Any:
    return asked.bank / asked.adapters[key]


def _name(asked: Asked, key: str) -> str:
    """PEFT's name of an adapter: module names may not hold dots, keys may."""
    return f"adapter_{asked.adapters[key].replace('.', '_')}"


def _greedy(asked: Asked) -> dict[str, Any]:
    return {
        "do_sample": False, "max_new_tokens": asked.max_new_tokens, "eos_token_id": asked.stop_id, "pad_token_id": 0,
    }  # fmt: skip


def _left_padded(prompts: Sequence[Sequence[int]], device: str) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, mask


def _cut(tokens: Tensor, stop_id: int) -> list[int]:
    """New tokens up to the one that ends the turn."""
    reply = tokens.tolist()
    return reply[: reply.index(stop_id)] if stop_id in reply else reply


WAYS: dict[str, Callable[[Asked, OnProgress], Result]] = {
    "bank": bank,
    **{f"batch_{rows}": functools.partial(batched, rows=rows) for rows in BATCHES},
    "peft_one_by_one": peft_one_by_one,
    "peft_mixed": peft_mixed,
}
NEEDS_PEFT = (peft_one_by_one, peft_mixed)


def find(way: str) -> Callable[[Asked, OnProgress], Result]:
    """A way by its name. Raises HarnessError for a typo."""
    if way not in WAYS:
        raise HarnessError(f"--ways: there is no way '{way}' to decode; {did_you_mean(way, WAYS)}")
    return WAYS[way]
