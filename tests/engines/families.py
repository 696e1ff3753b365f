"""Small random models of many families, and what plain transformers and PEFT say of them; docs/backbones.md's table.

python tests/engines/families.py writes the table anew. `test_families` holds every cell of it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor
from transformers import DynamicCache

from harness.adapters import Bank, create_bank
from harness.contract import GatedPrefix, LoRA, SoftPrompt
from harness.engines import engine_for
from harness.errors import HarnessError
from harness.model import Backbone
from harness.testkit import random_backbone, tiny_backbone

PAGE = Path(__file__).parent.parent.parent / "docs" / "backbones.md"
WINDOW = 12  # tokens, of layers with a sliding window: less than the longest prompt
_USUAL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
_NARROW = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": WINDOW}


@dataclass(frozen=True)
class Family:
    """A model type of transformers, as its small random model.

    sizes   fields of its configuration beside the usual ones; `plain`: these alone
    dtype   what it is checked in: some operations of mixtures of experts have no fp64
    narrow  whether its attention computes in fp32 in any model, so that equal sums differ in the eighth digit
    note    what the page says of it
    """

    name: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    plain: bool = False
    dtype: str = "float64"
    narrow: bool = False
    note: str = ""

    @property
    def tolerance(self) -> float:
        """How far summed losses may be from those of plain transformers, in nats."""
        return 1e-3 if self.dtype == "float32" else 1e-5 if self.narrow else 1e-9

    def backbone(self) -> Backbone:
        sizes = dict(self.sizes) if self.plain else {**_USUAL, **self.sizes}
        return random_backbone(tiny_backbone().tokenizer, architecture=self.name, dtype=self.dtype, **sizes)


FAMILIES = (
    Family("llama", note="Llama 2 and 3, SmolLM 1 and 2, TinyLlama, Yi"),
    Family("qwen2", note="Qwen 1.5, 2, 2.5"),
    Family("qwen3", {"head_dim": 8}, note="its switch `enable_thinking` is off"),
    Family("smollm3", {"bos_token_id": None, "no_rope_layers": [1, 0]}, note="its switch `enable_thinking` is off"),
    Family("mistral", {"sliding_window": WINDOW}, note="sliding window in every layer"),
    Family("mixtral", {"num_local_experts": 4}, dtype="float32", note="mixture of experts; fp64 has no such operation"),
    Family("gemma", {"head_dim": 8}, note="scaled embeddings"),
    Family("gemma2", _NARROW, narrow=True, note="every second layer with a sliding window; scaled embeddings"),
    Family("gemma3_text", _NARROW, note="sliding windows in most layers; scaled embeddings"),
    Family("phi"),
    Family("phi3", {"sliding_window": WINDOW}, note="Phi 3 and 4; one projection for queries, keys and values"),
    Family("gpt2", _GPT, plain=True, note="weights of layers are [in, out] (Conv1D)"),
    Family("gptj", {**_GPT, "rotary_dim": 4}, plain=True, narrow=True),
    Family("gpt_neox", note="Pythia"),
    Family("falcon"),
    Family(
        "bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, plain=True, narrow=True, note="no positions: ALiBi"
    ),
    Family("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    Family("olmo2"),
    Family("granite", note="scaled embeddings, attention and logits"),
    Family("starcoder2", {"sliding_window": WINDOW}),
    Family("stablelm"),
)
REFUSED = {
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
    "bert": _USUAL,
}
KINDS: dict[str, Any] = {
    "lora": LoRA(rank=2, alpha=4.0),
    "input": SoftPrompt(tokens=3),
    "kv": SoftPrompt(tokens=3, kind="kv"),
    "discrete": SoftPrompt(tokens=3, kind="discrete"),
    "gated": GatedPrefix(tokens=3),
}


def random_bank(backbone: Backbone, kind: str) -> Bank:
    """Two adapters with numbers of their own, far from their start."""
    generator = torch.Generator().manual_seed(1)
    bank = create_bank(backbone, KINDS[kind], ["a", "b"], 0)
    for tensor in bank.tensors.values():
        tensor += torch.empty_like(tensor).normal_(0, 0.3, generator=generator)
        tensor.copy_(tensor.float())  # numbers that fp32 holds, too: PEFT loads soft prompts in fp32
    return bank


def prompts() -> list[list[int]]:
    """Token ids, of unequal length, one longer than the windows."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(10, 200, (length,), generator=generator).tolist() for length in (5, 9, 23)]


def plain_logits(backbone: Backbone, ids: Sequence[int], bank: Bank | None, row: int) -> Tensor:
    """[T, V] by one call of the model without padding or cache: what its authors meant.

    Soft prompts are embeddings before the tokens, prefixes stand in a cache of transformers. LoRAs and gates are not
    known here (PEFT says what LoRAs do).
    """
    model, tokens = backbone.model, torch.tensor([list(ids)])
    with torch.no_grad():
        if bank is None:
            return model(input_ids=tokens, use_cache=False).logits[0]
        where = torch.tensor([row])
        if (prefix := bank.prefix(where)) is not None:
            inputs = torch.cat([prefix, model.get_input_embeddings()(tokens)], dim=1)
            return model(inputs_embeds=inputs, use_cache=False).logits[0, prefix.shape[1] :]
        cache = DynamicCache(config=model.config)
        for layer, (keys, values) in enumerate(bank.cache_prefix(where) or ()):
            cache.update(keys, values, layer)
        return model(input_ids=tokens, past_key_values=cache, use_cache=True).logits[0]


# ---- the page ----


def table() -> str:
    """A row a family: engine, default targets of a LoRA, and each kind of adapter."""
    rows = []
    for family in FAMILIES:
        backbone = family.backbone()
        row = {"model type": f"`{family.name}`", "engine on a CPU": f"`{engine_for(backbone)[0].name}`"}
        for kind, spec in KINDS.items():
            try:
                bank = create_bank(backbone, spec, ["a"], 0)
                row[kind] = ", ".join(f"`{name}`" for name in bank.targets) if kind == "lora" else "yes"  # pyright: ignore[reportAttributeAccessIssue]
            except HarnessError:
                row[kind] = "refused"
        rows.append({**row, "": family.note})
    return tabulate(rows, headers="keys", tablefmt="github")


def page_with(text: str) -> str:
    """The page with this table between its marks."""
    before, _, rest = PAGE.read_text("utf-8").partition("<!-- begin: families -->\n")
    return (
        f"{before}<!-- begin: families -->\n{text}\n<!-- end: families -->{rest.partition('<!-- end: families -->')[2]}"
    )


if __name__ == "__main__":
    sys.stdout.write(f"{PAGE}: written\n")
    PAGE.write_text(page_with(table()), "utf-8")
