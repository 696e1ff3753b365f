"""A GGUF file -> a folder in the Hub's format: weights in fp32 safetensors, tokenizer, chat template.

transformers reads the file with the package `gguf`; quantised weights are written as the numbers they stand for.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

MAGIC = b"GGUF"


def convert(path: Path, folder: Path) -> None:
    """Fill an empty folder. Raises HarnessError for a file that is no GGUF, or one that transformers cannot read."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise HarnessError(f"{path} is no GGUF file; it does not begin with the letters GGUF")
    try:
        import gguf  # noqa: F401  (transformers needs it, and names it only deep inside)
    except ImportError as fault:
        raise HarnessError("reading GGUF files needs the package gguf: pip install gguf") from fault
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
    try:
        # transformers shows a bar of its own here, which its switch for bars does not know.
        with without_progress_bars(), contextlib.redirect_stderr(io.StringIO()):
            tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **source)
            model: Any = AutoModelForCausalLM.from_pretrained(str(path.parent), dtype=torch.float32, **source)
    except Exception as fault:  # transformers, gguf and tokenizers raise a dozen unrelated types here
        words = " ".join(str(fault).split())[:300]
        raise HarnessError(f"{path} cannot be read as GGUF by transformers: {type(fault).__name__}: {words}") from fault
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.name_or_path = ""
    # transformers does not save a model that it read from quantised numbers: a fresh one takes these numbers over.
    with torch.device("meta"):
        fresh = type(model)(config)
    fresh.load_state_dict(model.state_dict(), assign=True)
    fresh.tie_weights()
    with without_progress_bars():
        fresh.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """Our own progress display owns the terminal while a model is read or written."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()
