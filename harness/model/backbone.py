"""Load, freeze and fingerprint a causal language model with its tokenizer.

Embedded models, local folders and Hub ids take the same path through transformers. Nothing about prompts,
training or decoding lives here.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from harness.errors import HarnessError, did_you_mean

EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
GENERIC_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")
HUB_TIMEOUT_SECONDS = 10.0
# Where the files lie and which library wrote them says nothing about what the model computes.
CONFIG_KEYS_WITHOUT_MEANING = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen causal LM: eval mode, no parameter takes a gradient.

    name         what the user asked for: an embedded name, a folder or a Hub id
    model        transformers causal LM
    tokenizer    its tokenizer
    fingerprint  sha256 (hex) over weights, config and tokenizer; equal fingerprints compute the same
    engine       what is to run it: "auto", or the name of one of harness.engines
    memo         the engines of this backbone by name, with its weights as they lay them out, or why there is none
    """

    name: str
    model: Any
    tokenizer: Any
    fingerprint: str
    engine: str = "auto"
    memo: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def hidden(self) -> int:
        """D, the width of the input embeddings."""
        return self.model.get_input_embeddings().weight.shape[1]

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype


def embedded_names() -> list[str]:
    """Names of the models that ship with the package."""
    if not EMBEDDED_FOLDER.is_dir():
        return []
    return sorted(path.name for path in EMBEDDED_FOLDER.iterdir() if (path / "config.json").is_file())


def load_backbone(name: str, *, device: str = "cpu", dtype: str = "float32", engine: str = "auto") -> Backbone:
    """Load a causal LM by embedded name, local folder or Hub id, in this order.

    name               e.g. "Qwen/Qwen2.5-0.5B-Instruct"; an embedded name wins over a folder of that name
                       ("./x" means the folder)
    device, dtype      "cpu", "cuda", ...; one of DTYPES. Weights stored in another dtype are converted.
    engine             "auto", "transformers" or "llama_cpu"; which of them serves is decided in `harness.engines`
    Raises HarnessError for an unknown name, missing or damaged files, pickle-only weights, weights that do
    not cover the model, and a device that is not there. Pickle files are never opened.
    """
    if dtype not in DTYPES:
        raise HarnessError(f"backbone dtype {dtype!r} is not supported; {did_you_mean(dtype, DTYPES)}")
    target = _device(device)
    source, local_only = _locate(name)
    model, tokenizer = _read(name, source, local_only, DTYPES[dtype])
    return freeze(name, model.to(target), tokenizer, engine)


def freeze(name: str, model: Any, tokenizer: Any, engine: str = "auto") -> Backbone:
    """Put a model into eval mode, switch off its gradients and take its fingerprint."""
    model.eval()
    model.requires_grad_(False)
    if model.get_input_embeddings().weight.dtype == torch.float64:
        exact_norms(model)
    return Backbone(name, model, tokenizer, fingerprint(model, tokenizer), engine)


def exact_norms(model: Any) -> None:
    """Let RMS norms compute in fp64: transformers' own round to fp32 inside, and fp64 is asked for to see 1e-12."""
    for module in model.modules():
        epsilon = getattr(module, "variance_epsilon", None)
        if type(module).__name__.endswith("RMSNorm") and epsilon is not None:
            module.forward = functools.partial(torch.nn.functional.rms_norm, eps=epsilon, **_norm_of(module))


def _norm_of(module: Any) -> dict[str, Any]:
    return {"normalized_shape": module.weight.shape, "weight": module.weight}


def fingerprint(model: Any, tokenizer: Any) -> str:
    """sha256 (hex) over config, tokenizer and, by name, (name, dtype, shape, bytes) of every weight."""
    digest = hashlib.sha256()
    config = {key: value for key, value in model.config.to_dict().items() if key not in CONFIG_KEYS_WITHOUT_MEANING}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    digest.update(_tokenizer_text(tokenizer).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


def _device(device: str) -> torch.device:
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as fault:
        raise HarnessError(
            f"device {device!r} cannot be used on this machine ({_first_line(fault)}); --device cpu always works"
        ) from fault
    return target


def _locate(name: str) -> tuple[str, bool]:
    """(what transformers loads, whether it may ask the network)."""
    embedded = embedded_names()
    if name in embedded:
        return str(EMBEDDED_FOLDER / name), True
    if not name.strip():
        raise HarnessError(f"no backbone is named; {did_you_mean(name, embedded)}")
    path = Path(name).expanduser()
    if path.is_dir():
        _check_folder(path)
        return str(path), True
    if path.is_file():
        raise HarnessError(f"backbone {name!r} is a file; give the folder that holds config.json and the weights")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise HarnessError(f"backbone folder {name!r} does not exist; {did_you_mean(name, embedded)}")
    cached = _in_hub_cache(name)
    if not cached and (reason := _hub_fault(name)):
        raise HarnessError(
            f"backbone {name!r} is not an embedded model, is no folder here and is not reachable on the Hub "
            f"({reason}); {did_you_mean(name, embedded)}"
        )
    return name, cached


def _check_folder(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise HarnessError(f"backbone folder {path} has no config.json; it must be in the format of the Hub")
    if any(path.glob("*.safetensors")):
        return
    if any(path.glob("*.bin")) or any(path.glob("*.pt")) or any(path.glob("*.pth")):
        raise HarnessError(
            f"backbone folder {path} has its weights in pickle format only, which can run code and is never "
            "opened; convert them with model.save_pretrained(folder, safe_serialization=True)"
        )
    raise HarnessError(f"backbone folder {path} has no model.safetensors; it must be in the format of the Hub")


def _in_hub_cache(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError as fault:
        raise HarnessError(
            f"backbone {name!r} is neither a folder nor a possible Hub id; {did_you_mean(name, embedded_names())}"
        ) from fault


def _hub_fault(name: str) -> str:
    """Why the Hub cannot serve this id, or "". One request: loading would retry a typo for a minute."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,  # of the HTTP library that the Hub's client uses; a lost connection is one
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        HfApi(endpoint=constants.ENDPOINT).model_info(name, timeout=HUB_TIMEOUT_SECONDS)
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE is set"
    except GatedRepoError:
        return ""  # it exists: loading reports what the user's token lacks
    except RepositoryNotFoundError:
        return "no such model, or a private one"
    except HfHubHTTPError as fault:
        return f"the Hub answers {fault.response.status_code}"
    except (HTTPError, OSError) as fault:
        return f"no connection: {_first_line(fault)}"
    return ""


def _read(name: str, source: str, local_only: bool, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    common: dict[str, Any] = {"local_files_only": local_only, "trust_remote_code": False}
    try:
        with _without_progress_bars():
            tokenizer = _read_tokenizer(source, common)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, use_safetensors=True, output_loading_info=True, **common
            )
    except Exception as fault:  # transformers, safetensors and tokenizers raise a dozen unrelated types here
        raise HarnessError(f"backbone {name!r} cannot be loaded from {source}: {_explain(fault)}") from fault
    model, info = loaded
    # transformers fills gaps with random numbers and a warning; such a result would be worthless.
    if info.get("missing_keys"):
        missing = ", ".join(sorted(info["missing_keys"])[:5])
        raise HarnessError(
            f"backbone {name!r}: the weight files in {source} lack {len(info['missing_keys'])} tensors "
            f"of the model ({missing}); they belong to another config.json or are incomplete"
        )
    return model, tokenizer


def _read_tokenizer(source: str, common: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    declared = get_tokenizer_config(source, local_files_only=common["local_files_only"])
    if declared.get("tokenizer_class") in GENERIC_TOKENIZERS and "auto_map" not in declared:
        # AutoTokenizer would take the class that belongs to the model type and rebuild normaliser and
        # pre-tokeniser its way, silently; the generic class follows tokenizer.json to the letter.
        return PreTrainedTokenizerFast.from_pretrained(source, **common)
    return AutoTokenizer.from_pretrained(source, **common)


def _explain(fault: Exception) -> str:
    text = str(fault)
    if "trust_remote_code" in text:
        return "it brings Python code of its own, which is never run; take a model that transformers knows"
    if "safetensors" in text and "bin" in text:
        return "it has no safetensors weights; pickle weights can run code and are never opened"
    return f"{type(fault).__name__}: {_first_line(fault)}"


def _first_line(fault: BaseException) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0][:300]


def _tokenizer_text(tokenizer: Any) -> str:
    """Everything of a tokenizer that decides on token ids, as text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    core = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    special = json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    return "\n".join((core, special, json.dumps(tokenizer.chat_template)))


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Our own progress display owns the terminal while a model loads."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()
