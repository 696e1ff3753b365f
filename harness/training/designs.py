"""How adapters share parameters when they are trained jointly: a design maps its own parameters to all N adapters.

A design is a torch module whose call gives the values [N, K] of N adapters (layout: optimiser.Flat). The loop that
trains one is joint_loop. Legend: N adapters, C clusters, K numbers of one adapter, M adapted layers, r rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.adapters import Bank, key_seed
from harness.contract import Coefficients, FromVector, Levels, Subspace
from harness.errors import HarnessError
from harness.training.optimiser import Flat

DesignSpec = Levels | Coefficients | Subspace | FromVector
LARGEST_VARIANCE = 1e2
SMALLEST_VARIANCE = 1e-8


class Design(nn.Module):
    """Base: no prior, nothing personal to report."""

    def forward(self) -> Tensor:
        """Values [N, K] of all adapters."""
        raise NotImplementedError

    def penalty(self) -> Tensor:
        """Negative log prior (0-dim), up to a constant; in nats, to be set against the summed loss."""
        return torch.zeros(())

    def observe(self, nats_gradient: Tensor) -> None:
        """Take note of a step's gradient [N, K] of the summed loss in nats."""

    def end_epoch(self) -> None:
        """Revise what is estimated from the data."""

    def facts(self) -> dict[str, Any]:
        """What to put into the record: numbers a persona owns, numbers everybody shares, estimated variances."""
        raise NotImplementedError


class Prior(nn.Module):
    """Normal priors N(0, tau^2) on the rows of some parameters, tau^2 estimated by empirical Bayes.

    One variance for each (level, part of the adapter). EM with a Laplace posterior (MacKay 1992): after an epoch
    tau^2 = mean over numbers of theta^2 + 1 / (F + 1 / tau^2), where F, the information in the data, is the empirical
    Fisher information: squared gradients of the summed loss, added up over the epoch's steps.
    """

    def __init__(self, levels: dict[str, nn.Parameter], sizes: Sequence[int], start: Sequence[float]) -> None:
        super().__init__()
        self.names = list(levels)
        self.sizes = list(sizes)
        self._levels = levels  # a plain dict: the parameters belong to the design
        for name, values in levels.items():
            first = torch.tensor(list(start), dtype=torch.float64)
            self.register_buffer(f"variance_{name}", first)
            self.register_buffer(f"information_{name}", torch.zeros_like(values))

    def penalty(self) -> Tensor:
        total: Tensor | int = 0
        for name in self.names:
            variances = getattr(self, f"variance_{name}")
            for part, variance in zip(self._levels[name].split(self.sizes, dim=1), variances, strict=True):
                total = total + part.square().sum() / (2 * float(variance))
        assert isinstance(total, Tensor)
        return total

    def observe(self, name: str, gradient: Tensor) -> None:
        """Add a step's gradient of the summed loss for the rows of a level."""
        getattr(self, f"information_{name}").add_(gradient.detach().square())

    def end_epoch(self) -> None:
        for name in self.names:
            variances, information = getattr(self, f"variance_{name}"), getattr(self, f"information_{name}")
            values = self._levels[name].detach()
            parts = zip(values.split(self.sizes, 1), information.split(self.sizes, 1), strict=True)
            for i, (theta, seen) in enumerate(parts):
                touched = seen.sum(dim=1) > 0  # rows without data say nothing about the spread
                if bool(touched.any()):
                    left = 1.0 / (seen[touched].double() + 1.0 / variances[i])
                    found = (theta[touched].double().square() + left).mean()
                    variances[i] = found.clamp(SMALLEST_VARIANCE, LARGEST_VARIANCE)
            information.zero_()

    def facts(self) -> dict[str, list[float]]:
        return {f"variance_{name}": [float(v) for v in getattr(self, f"variance_{name}")] for name in self.names}


class TwoLevels(Design):
    """Base: a part for each cluster [C, W] and each adapter [N, W], both from 0, with or without priors on them."""

    def __init__(self, like: Tensor, count: int, cluster_of: Sequence[int], sizes: Sequence[int], shrink: bool) -> None:
        super().__init__()
        width = sum(sizes)
        self.cluster = nn.Parameter(like.new_zeros(max(cluster_of, default=0) + 1, width))
        self.persona = nn.Parameter(like.new_zeros(count, width))
        self.cluster_of = nn.Buffer(torch.tensor(list(cluster_of), device=like.device))
        # From weak to as strong as the data make it: a strong start would hold the levels where they began.
        levels = {"cluster": self.cluster, "persona": self.persona}
        self.prior = Prior(levels, sizes, [1.0] * len(sizes)) if shrink else None

    def personal_gradient(self, nats_gradient: Tensor) -> Tensor:
        """From the gradient [N, K] for the adapters' values to the one [N, W] for the personal parts."""
        raise NotImplementedError

    def penalty(self) -> Tensor:
        return self.prior.penalty() if self.prior is not None else super().penalty()

    def observe(self, nats_gradient: Tensor) -> None:
        if self.prior is not None:
            gradient = self.personal_gradient(nats_gradient)
            self.prior.observe("cluster", torch.zeros_like(self.cluster).index_add_(0, self.cluster_of, gradient))
            self.prior.observe("persona", gradient)

    def end_epoch(self) -> None:
        if self.prior is not None:
            self.prior.end_epoch()

    def facts(self) -> dict[str, Any]:
        return {
            "personal_numbers": self.persona.shape[1],
            "shared_numbers": sum(p.numel() for p in self.parameters()) - self.persona.numel(),
            **(self.prior.facts() if self.prior is not None else {}),
        }


class LevelsDesign(TwoLevels):
    """mu [K] + c [C, K] + delta [N, K]; c and delta start at 0, so that all adapters start as the bank's first."""

    def __init__(self, start: Tensor, flat: Flat, cluster_of: Sequence[int], shrink: bool) -> None:
        super().__init__(start, len(start), cluster_of, flat.sizes, shrink)
        self.mu = nn.Parameter(start[:1].clone())

    def forward(self) -> Tensor:
        return self.mu + self.cluster[self.cluster_of] + self.persona

    def personal_gradient(self, nats_gradient: Tensor) -> Tensor:
        return nats_gradient


class CoefficientsDesign(TwoLevels):
    """Shared LoRA factors A, B; adapter u uses B diag(s_u), s_u = 1 + c[cluster] + d[u], a vector [r] for each layer.

    B starts at 0, so that every adapter starts as the backbone. Personal scalings as in VeRA (Kopiczko et al. 2024),
    with trained factors.
    """

    def __init__(self, bank: Bank, flat: Flat, cluster_of: Sequence[int], shrink: bool) -> None:
        if not all(name.endswith((".lora_A", ".lora_B")) for name in flat.names):
            raise HarnessError(f"shared coefficients need a LoRA, not {bank.spec}")
        first = [bank.tensors[name][:1].detach().clone() for name in flat.names]
        rank = int(first[0].shape[1])  # lora_A [1, r, in] sorts before lora_B [1, out, r]
        layers = sum(name.endswith(".lora_B") for name in flat.names)
        super().__init__(first[0], len(bank), cluster_of, [layers * rank], shrink)
        self.rank, self.flat_names, self.sizes = rank, flat.names, flat.sizes
        self.factors = nn.ParameterList([nn.Parameter(part) for part in first])

    def forward(self) -> Tensor:
        scalings = 1.0 + self.cluster[self.cluster_of] + self.persona  # [N, M r]
        count = scalings.shape[0]
        pieces, layer = [], 0
        for name, factor in zip(self.flat_names, self.factors, strict=True):
            if name.endswith(".lora_B"):
                own = scalings[:, None, layer * self.rank : (layer + 1) * self.rank]
                pieces.append((factor * own).reshape(count, -1))
                layer += 1
            else:
                pieces.append(factor.expand(count, *factor.shape[1:]).reshape(count, -1))
        return torch.cat(pieces, dim=1)

    def personal_gradient(self, nats_gradient: Tensor) -> Tensor:
        # d B_u / d s_u = B: the gradient of a scaling is the sum over out of (gradient of B_u) * B.
        parts = zip(self.flat_names, self.factors, nats_gradient.split(self.sizes, dim=1), strict=True)
        found = [
            (part.view(-1, *factor.shape[1:]) * factor.detach()).sum(dim=1)
            for name, factor, part in parts
            if name.endswith(".lora_B")
        ]
        return torch.cat(found, dim=1)


class SubspaceDesign(Design):
    """theta_0 [K] + c [N, r] W [r, K]; c starts at 0, so that all adapters start as the bank's first."""

    def __init__(self, start: Tensor, rank: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(key_seed(seed, "subspace"))
        width = start.shape[1]
        axes = torch.randn(rank, width, generator=generator, dtype=start.dtype) / width**0.5
        self.theta = nn.Parameter(start[:1].clone())
        self.coordinates = nn.Parameter(start.new_zeros(len(start), rank))
        self.axes = nn.Parameter(axes.to(start.device))

    def forward(self) -> Tensor:
        return self.theta + self.coordinates @ self.axes

    def facts(self) -> dict[str, Any]:
        return {
            "personal_numbers": self.coordinates.shape[1],
            "shared_numbers": self.theta.numel() + self.axes.numel(),
        }


class FromVectorDesign(Design):
    """theta_u = theta_0 + W2 gelu(W1 e_u + b); W2 starts at 0, so that all adapters start as the bank's first."""

    def __init__(self, start: Tensor, vectors: Tensor, width: int, seed: int) -> None:
        super().__init__()
        known = vectors.to(start.device, start.dtype)
        self.vectors = nn.Buffer(known)
        generator = torch.Generator().manual_seed(key_seed(seed, "from vector"))
        first = torch.randn(width, known.shape[1], generator=generator, dtype=start.dtype) / known.shape[1] ** 0.5
        self.theta = nn.Parameter(start[:1].clone())
        self.w1 = nn.Parameter(first.to(start.device))
        self.b1 = nn.Parameter(start.new_zeros(width))
        self.w2 = nn.Parameter(start.new_zeros(start.shape[1], width))

    def forward(self) -> Tensor:
        hidden = nn.functional.gelu(self.vectors @ self.w1.T + self.b1)
        return self.theta + hidden @ self.w2.T

    def facts(self) -> dict[str, Any]:
        return {"personal_numbers": 0, "shared_numbers": sum(p.numel() for p in self.parameters())}


def create_design(
    spec: DesignSpec, bank: Bank, flat: Flat, cluster_of: Sequence[int], vectors: Tensor | None, seed: int
) -> Design:
    """The design of a specification for the adapters of a bank, whose first row says where all of them start.

    cluster_of  [N] index of each adapter's cluster, for Levels and Coefficients
    vectors     [N, E] what is known of each adapter's persona, for FromVector
    """
    start = flat.join(bank.tensors)
    match spec:
        case Levels():
            return LevelsDesign(start, flat, cluster_of, spec.shrink)
        case Coefficients():
            return CoefficientsDesign(bank, flat, cluster_of, spec.shrink)
        case Subspace():
            return SubspaceDesign(start, spec.rank, seed)
        case FromVector():
            if vectors is None:
                raise HarnessError("an adapter from a vector needs a vector for every persona; give `vectors`")
            return FromVectorDesign(start, vectors, spec.width, seed)
