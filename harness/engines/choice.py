"""Which engine serves a backbone with its adapters: the one that is asked for, or the fastest that can."""

from __future__ import annotations

from collections.abc import Iterable

from harness.adapters import Bank
from harness.engines.engine import Engine
from harness.engines.fitted import Adapters
from harness.engines.llama_cpu.decoder import UnsupportedError
from harness.engines.llama_cpu.engine import LlamaCpuEngine
from harness.engines.llama_cpu.scripted import slowed
from harness.engines.products import prefers_onednn
from harness.engines.transformers_engine import TransformersEngine
from harness.errors import HarnessError
from harness.model import Backbone


def engine_for(backbone: Backbone, bank: Bank | None = None, *, dropout: bool = False) -> tuple[Engine, str]:
    """The engine that runs this backbone with this kind of adapters, and why nothing faster does ("": nothing is).

    dropout  whether the adapters are trained with dropout
    Raises HarnessError where the configuration asks for `llama_cpu` and it cannot serve them.
    """
    memo = backbone.memo
    if "transformers" not in memo:
        memo["transformers"] = TransformersEngine(backbone)
    if backbone.engine == "transformers":
        return memo["transformers"], "it was asked for"
    if "llama_cpu" not in memo:
        try:
            memo["llama_cpu"] = LlamaCpuEngine(backbone)
        except UnsupportedError as fault:
            memo["llama_cpu"] = str(fault)
    fast: LlamaCpuEngine | str = memo["llama_cpu"]
    why = fast if isinstance(fast, str) else fast.cannot_serve(bank, dropout)
    if isinstance(fast, LlamaCpuEngine) and not why:
        return fast, slowed()
    if backbone.engine == "llama_cpu":
        raise HarnessError(f"engine llama_cpu cannot be used: {why}; take engine auto or transformers")
    return memo["transformers"], f"llama_cpu cannot be used: {why}"


def engines_used(adapters: Iterable[Adapters]) -> dict[str, str]:
    """For a record: which engines serve these adapters, why nothing faster does, and what multiplies matrices."""
    found = [engine_for(own.backbone, own.bank) for own in adapters]
    names = list(dict.fromkeys(engine.name for engine, _ in found))
    why = list(dict.fromkeys(reason for _, reason in found if reason))
    products = "oneDNN" if prefers_onednn() else "MKL"
    return {"engine": ", ".join(names), "products": products, **({"why_engine": "; ".join(why)} if why else {})}
