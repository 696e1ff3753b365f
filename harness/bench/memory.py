"""Memory of a process as measured, and of a step as estimated before a model of some shape is made."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from harness.model import Encoded
from harness.store import peak_memory_bytes
from harness.training import Estimate, Load, estimate_step


def resident_bytes() -> int:
    """Resident size of this process now."""
    return psutil.Process().memory_info().rss


def peak_bytes() -> int:
    """Largest resident size of this process so far.

    From Linux's VmHWM where there is one, which `reset_peak` can reset and psutil does not give: the maximum of
    getrusage also knows what the parent process used.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return peak_memory_bytes()


def start() -> int:
    """Forget the device's peak so far; the process's resident bytes now."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    return resident_bytes()


def peaks() -> dict[str, int]:
    """Peak of the process and, where there is one, of the device."""
    import torch

    device = {"device_peak_bytes": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {}
    return {"peak_bytes": peak_bytes(), **device}


def reset_peak() -> bool:
    """Let the peak start again at the present size; whether the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return True
    return False


def of_subject(
    config: Any, prompt_tokens: int, options: Any, data: Sequence[Sequence[Encoded]], dtype: str, device: str
) -> Estimate:
    """The estimate for a bank of soft prompts on a model with this configuration, as the harness would train it.

    options   TrainOptions;  data: each adapter's train dialogues, of which the longest are taken to come together
    """
    import torch

    from harness.model import DTYPES

    engine = "llama_cpu" if device == "cpu" and dtype in ("float32", "float64") else "transformers"
    load = Load.of_step(
        [[(prompt_tokens + len(row), sum(row.labels)) for row in rows] for rows in data],
        options.batch_size,
        options.microbatch_tokens,
        torch.get_num_threads() if engine == "llama_cpu" else 1,
        vocabulary=config.vocab_size,
        numbers=prompt_tokens * config.hidden_size,
        device_type=device.split(":")[0],
        engine=engine,
    )
    return estimate_step(config, load, DTYPES[dtype].itemsize)
