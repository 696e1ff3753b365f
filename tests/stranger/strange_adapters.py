"""A kind of adapter from another distribution: IA3 (Liu et al. 2022). The bank is `strange_bank`, which needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness import AdapterKind, hookimpl


@dataclass(frozen=True)
class Scaling:
    """targets  names of linear layers whose outputs are scaled: key and value projections, as in the paper"""

    targets: tuple[str, ...] = ("k_proj", "v_proj")


def create(backbone: Any, spec: Scaling, count: int, seeds: Any) -> Any:
    from strange_bank import ScalingBank  # here, so that listing methods does not wait for torch

    return ScalingBank.fresh(backbone, spec, count)


@hookimpl
def adapters() -> list[AdapterKind]:
    return [AdapterKind("ia3", "outputs of linear layers times a trained vector", Scaling, create)]
