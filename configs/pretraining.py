"""The seeded recipe of an embedded backbone: tokenizer, corpus stream, training, and the folder in the Hub's format.

The recipe is `backbone_tiny.yaml` or another such file; the corpus comes from any benchmark. No adapter is trained.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from harness.contract import Dataset, Message, read_file
from harness.errors import ConfigError, did_you_mean
from harness.model import Encoded, dialogue_messages, encode_dialogue, without_progress_bars

SPECIALS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SNAPSHOT_TOKENS = 2_000_000
OnProgress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Recipe:
    """A parsed recipe; `load` turns (benchmark name, options) into a Dataset."""

    name: str
    seed: int
    threads: int
    model: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    corpus: Mapping[str, Any]
    stages: Sequence[Mapping[str, Any]]


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; raises ConfigError naming the file and each key that is missing or unknown."""
    try:
        raw = yaml.safe_load(read_file(path).decode())
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"the recipe {path} is no YAML: {' '.join(str(error).split())}") from error
    known = set(Recipe.__dataclass_fields__)
    given = set(raw) if isinstance(raw, dict) else set()
    faults = [f"{path}: unknown key '{key}'; {did_you_mean(str(key), known)}" for key in sorted(given - known)]
    faults += [f"{path}: missing key '{key}'" for key in sorted(known - given)]
    if faults:
        raise ConfigError("\n".join(faults))
    return Recipe(**raw)


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE on the corpus plus all numbers 0-100, with the chat template. Any UTF-8 text survives it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(s, special=True, normalized=False) for s in SPECIALS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    numbers = [" ".join(f"x {n}" for n in range(101))] * 2000
    tokenizer.train_from_iterator([*texts, *numbers], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


def corpus(
    recipe: Recipe, stage: int, load: Callable[[str, Mapping[str, Any]], Dataset]
) -> Iterator[list[tuple[Message, ...]]]:
    """Endless stream of shuffled blocks of dialogues for one stage of the recipe, each block of new worlds."""
    given = recipe.stages[stage]
    generator = torch.Generator().manual_seed(recipe.seed + stage)
    seed = int(given["first_world_seed"])
    while True:
        block: list[tuple[Message, ...]] = []
        for part in given["parts"]:
            options = {**recipe.corpus["shared"], **part, "world_seed": seed}
            share = float(options.pop("share"))
            options["personas"] = max(1, round(share * int(options["personas"])))
            dataset = load(recipe.corpus["benchmark"], options)
            personas = {p.id: p for p in dataset.personas}
            block += [dialogue_messages(dataset.protocol, personas[d.persona], d) for d in dataset.dialogues]
            seed += 1
        yield [block[i] for i in torch.randperm(len(block), generator=generator).tolist()]


def _loss(model: Any, rows: Sequence[Encoded], pad: int, bf16: bool) -> tuple[torch.Tensor, int]:
    """Mean cross-entropy (nats) over the label tokens of right-padded rows [B, T], and their number.

    T and the number of label positions are rounded up: few shapes mean few compiled bf16 kernels.
    """
    longest = _round_up(max(len(r) for r in rows) - 1, 32) + 1
    ids = torch.tensor([list(r.ids) + [pad] * (longest - len(r)) for r in rows])
    labels = torch.tensor([list(r.labels) + [False] * (longest - len(r)) for r in rows])
    wanted = labels[:, 1:].flatten().nonzero().squeeze(1)
    filler = _round_up(len(wanted), 512) - len(wanted)
    places = F.pad(wanted, (0, filler))
    targets = F.pad(ids[:, 1:].flatten()[wanted], (0, filler), value=-100)
    causal = torch.full((longest - 1, longest - 1), -1e9).triu(1)[None, None]  # right padding needs no mask of its own
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        hidden = model.model(input_ids=ids[:, :-1], attention_mask={"full_attention": causal}, use_cache=False)[0]
        logits = model.lm_head(hidden.flatten(0, 1)[places])  # [labels, V]: the head on label positions only
    return F.cross_entropy(logits.float(), targets), len(wanted)


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def one_cycle(done: float, peak: float, warmup: float) -> float:
    """Learning rate at the share `done` of training: linear warm-up, then cosine to 1 % of the peak."""
    if done < warmup:
        return peak * done / warmup
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup))))


def _write(model: Any, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Model and tokenizer as a folder in the Hub's format."""
    output.mkdir(parents=True, exist_ok=True)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    with without_progress_bars():
        model.save_pretrained(output)
        tokenizer.save_pretrained(output)


def pretrain(
    recipe: Recipe, load: Callable[[str, Mapping[str, Any]], Dataset], output: Path, progress: OnProgress
) -> dict[str, Any]:
    """Run all stages of the recipe and write the folder; returns what it cost.

    load      (benchmark name, its options) -> Dataset
    progress  called with (tokens done, tokens to do, a note)
    """
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    started = time.perf_counter()
    sample = next(corpus(recipe, 0, load))
    tokenizer = train_tokenizer([m.text for d in sample for m in d], int(recipe.tokenizer["vocabulary"]))
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        tie_word_embeddings=True,
        eos_token_id=SPECIALS.index("<|end|>"),  # the trainer numbers special tokens first, in this order
        pad_token_id=SPECIALS.index("<|pad|>"),
        **recipe.model,
    )
    model: Any = Qwen2ForCausalLM(config)
    model.set_attn_implementation("eager")  # with heads of 32 the fused kernel's backward is slow on a CPU
    return run_stages(recipe, range(len(recipe.stages)), model, tokenizer, load, output, progress, started)


def run_stages(
    recipe: Recipe,
    stages: Iterable[int],
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    load: Callable[[str, Mapping[str, Any]], Dataset],
    output: Path,
    progress: OnProgress,
    started: float,
) -> dict[str, Any]:
    """Train stage after stage, each with a fresh optimiser and one-cycle schedule, and write the folder."""
    model.train()
    total = sum(int(recipe.stages[stage]["tokens"]) for stage in stages)
    costs: list[dict[str, Any]] = []
    for stage in stages:
        before = sum(cost["tokens"] for cost in costs)
        blocks = corpus(recipe, stage, load)

        def tell(done: int, note: str, before: int = before) -> None:
            progress(min(before + done, total), total, note)

        costs.append(_train(model, tokenizer, recipe, stage, blocks, output, tell))
    _write(model, tokenizer, output)
    cost = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "stages": costs,
        "seconds": round(time.perf_counter() - started, 1),
        "threads": recipe.threads,
        "weights_sha256": hashlib.sha256((output / "model.safetensors").read_bytes()).hexdigest(),
    }
    (output / "training.json").write_text(json.dumps(cost, indent=2) + "\n", encoding="utf-8")
    return cost


def _train(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    stage: int,
    blocks: Iterator[list[tuple[Message, ...]]],
    output: Path,
    tell: Callable[[int, str], None],
) -> dict[str, Any]:
    settings = recipe.stages[stage]
    pad = tokenizer.pad_token_id
    assert isinstance(pad, int)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=float(settings["weight_decay"])
    )
    total, batch = int(settings["tokens"]), int(settings["batch"])
    stop = int(settings.get("stop_after", total))  # the schedule may be left before its end
    tokens = steps = label_tokens = 0
    recent: list[float] = []
    while tokens < stop:
        encoded = [encode_dialogue(tokenizer, messages) for messages in next(blocks)]
        chunk = batch * 8  # rows of like length share a batch: sorted within a chunk, chunks stay shuffled
        order = [
            i
            for at in range(0, len(encoded), chunk)
            for i in sorted(range(at, min(at + chunk, len(encoded))), key=lambda i: len(encoded[i]))
        ]
        batches = [order[at : at + batch] for at in range(0, len(order), batch)]
        mixed = torch.randperm(len(batches), generator=torch.Generator().manual_seed(recipe.seed + steps)).tolist()
        for b in mixed:
            rows = [encoded[i] for i in batches[b]]
            for group in optimiser.param_groups:
                group["lr"] = one_cycle(tokens / total, float(settings["learning_rate"]), float(settings["warmup"]))
            loss, labels = _loss(model, rows, pad, bool(settings.get("bf16")))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), float(settings["clip"]))
            optimiser.step()
            seen = sum(len(r) for r in rows)
            tokens += seen
            label_tokens += labels
            steps += 1
            recent = [*recent[-49:], loss.item()]
            tell(tokens, f"stage {stage + 1}, loss {sum(recent) / len(recent):.3f}")
            if tokens // SNAPSHOT_TOKENS > (tokens - seen) // SNAPSHOT_TOKENS:
                _write(model, tokenizer, output / "snapshot")  # to look at while the rest trains
            if tokens >= stop:
                break
    mean = sum(recent) / len(recent)
    return {"tokens": tokens, "label_tokens": label_tokens, "steps": steps, "final_loss_nats": round(mean, 4)}
