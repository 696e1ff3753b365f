"""Load, check, freeze and fingerprint a causal language model with its tokenizer.

Where its files come from is `harness.model.sources`; all take the same path through transformers. Nothing about
prompts, training or decoding lives here.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from harness.errors import HarnessError, did_you_mean
from harness.model.gguf import without_progress_bars
from harness.model.sources import EMBEDDED_FOLDER, RANDOM, Note, catalogue, embedded_names, first_line, locate
from harness.model.templates import control_texts, set_template, template_text, turn_end

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
GENERIC_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")
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
    attention    the implementation of attention that was asked for; "auto": none
    below, folder  where a LoRA is merged into the model: the backbone below it, and where it is stored
    memo         the engines of this backbone by name, with its weights as they lay them out, or why there is none
    """

    name: str
    model: Any
    tokenizer: Any
    fingerprint: str
    engine: str = "auto"
    attention: str = "auto"
    below: Backbone | None = field(default=None, repr=False)
    folder: Path | None = field(default=None, repr=False)
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


def load_backbone(
    name: str,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    engine: str = "auto",
    attention: str = "auto",
    load_in: str | None = None,
    chat_template: Path | None = None,
    note: Note = lambda line: None,
) -> Backbone:
    """Load a causal LM by embedded name, name of the catalogue, local folder, GGUF file or Hub id, in this order.

    name               e.g. "smollm2-135m" or "Qwen/Qwen2.5-0.5B-Instruct"; a short name wins over a folder of that name
                       ("./x" means the folder). "random:NAME": the shape of a catalogue entry with random weights
    device, dtype      "cpu", "cuda", ...; one of DTYPES. Weights stored in another dtype are converted.
    engine             "auto", "transformers" or "llama_cpu"; which of them serves is decided in `harness.engines`
    attention          transformers' name of an implementation of attention; "auto": transformers chooses
    load_in            "4bit" or "8bit": linear layers are quantised by bitsandbytes while they are loaded, on CUDA
    chat_template      file with a Jinja template in place of the tokenizer's own
    note               takes a line where something is fetched, or stands in for something that is missing
    Raises HarnessError for an unknown name, missing or damaged files, pickle-only weights, weights that do not cover
    the model or are no numbers, a model that is not causal or carries a state, a tokenizer that is larger than the
    vocabulary, and a device that is not there. Pickle files are never opened.
    """
    if dtype not in DTYPES:
        raise HarnessError(f"backbone dtype {dtype!r} is not supported; {did_you_mean(dtype, DTYPES)}")
    target = _device(device)
    if name.startswith(RANDOM):
        model, tokenizer = random_model(name.removeprefix(RANDOM), DTYPES[dtype])
        note(f"{name}: random weights and the embedded model's tokenizer (more tokens a text); scores mean nothing")
    else:
        source, local_only = locate(name, note)
        more = {} if attention == "auto" else {"attn_implementation": attention}
        more |= _placed(load_in, target, DTYPES[dtype])
        model, tokenizer = _read(name, source, local_only, DTYPES[dtype], more)
    if load_in is None:
        model = model.to(target)
    set_template(tokenizer, chat_template, note)
    _check(name, model, tokenizer)
    return freeze(name, model, tokenizer, engine, attention)


def random_config(name: str, layers: int | None = None) -> Any:
    """transformers' configuration of a catalogue entry's shape; the embedded tokenizer's tokens end texts.

    layers   fewer than the shape has
    """
    from transformers import AutoConfig

    shapes = {known.name: known.shape for known in catalogue().values() if known.shape}
    if name not in shapes:
        raise HarnessError(f"'{RANDOM}{name}': the catalogue has no shape of that name; {did_you_mean(name, shapes)}")
    shape = dict(shapes[name])
    if layers is not None:
        if not 1 <= layers <= shape["num_hidden_layers"]:
            raise HarnessError(f"the layers of {name} must lie in 1..{shape['num_hidden_layers']}, not {layers}")
        shape["num_hidden_layers"] = layers
    return AutoConfig.for_model(shape.pop("model_type"), **shape, pad_token_id=0, eos_token_id=1, bos_token_id=None)


def random_model(name: str, dtype: torch.dtype, layers: int | None = None) -> tuple[Any, Any]:
    """(model, tokenizer): a shape of the catalogue with seeded weights as transformers starts them.

    The tokenizer is that of the embedded model: the shape's own is not at hand.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = random_config(name, layers)
    tokenizer = AutoTokenizer.from_pretrained(str(EMBEDDED_FOLDER / embedded_names()[0]), local_files_only=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model, tokenizer


def _placed(load_in: str | None, target: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of from_pretrained that put weights on an accelerator at once, or quantise them."""
    placed: dict[str, Any] = {"device_map": {"": str(target)}} if target.type == "cuda" or load_in else {}
    if load_in is None:
        return placed
    if importlib.util.find_spec("bitsandbytes") is None:
        raise HarnessError(f"--load-in {load_in} needs the package bitsandbytes: pip install bitsandbytes")
    if target.type != "cuda":
        raise HarnessError(f"--load-in {load_in} needs a CUDA device; on {target} bitsandbytes computes other numbers")
    from transformers import BitsAndBytesConfig

    if load_in == "8bit":
        return {**placed, "quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {**placed, "quantization_config": four}


def _check(name: str, model: Any, tokenizer: Any) -> None:
    """Raises HarnessError for a model that would give wrong results in silence."""
    kind = type(model).__name__
    if getattr(model, "_is_stateful", False):
        raise HarnessError(
            f"backbone {name!r} ({kind}) carries a state from token to token, which padding would change in silence; "
            "choose a model whose every layer is attention"
        )
    for weight, tensor in model.named_parameters():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise HarnessError(f"backbone {name!r}: the weight {weight} holds NaN or infinity; take other files")
    rows = model.get_input_embeddings().weight.shape[0]
    if _has_tokens_beyond(tokenizer, rows):
        raise HarnessError(
            f"backbone {name!r}: its tokenizer has {len(tokenizer)} tokens and the model only {rows}; "
            "the two do not belong together"
        )
    # 8-bit layers round by the batch, so a later token does change an earlier logit a little.
    if not getattr(model, "is_quantized", False) and not _is_causal(model):
        raise HarnessError(
            f"backbone {name!r} ({kind}) lets later tokens change earlier predictions; "
            "only causal language models can be used here"
        )


def _has_tokens_beyond(tokenizer: Any, rows: int) -> bool:
    """Whether text can become ids that a model with so many input embeddings does not have.

    Control tokens that no template writes do no harm; readers of GGUF add some.
    """
    beyond = {text for text, token in tokenizer.get_vocab().items() if token >= rows}
    if not beyond:
        return False
    template = template_text(tokenizer)
    control = {text for text in control_texts(tokenizer) if text not in template}
    return bool(beyond - control) or turn_end(tokenizer, template)[0] >= rows


def _is_causal(model: Any) -> bool:
    """Whether the first logits of two random texts stay, but for rounding, when tokens follow."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.get_input_embeddings().weight.shape[0], (2, 8), generator=generator)
    ids = ids.to(model.get_input_embeddings().weight.device)
    model.eval()
    with torch.no_grad():
        short, long = (model(input_ids=part, use_cache=False).logits[:, :5].float() for part in (ids[:, :5], ids))
    tolerance = 0.05 if model.dtype in (torch.bfloat16, torch.float16) else 1e-3
    return bool((short - long).abs().max() <= tolerance * short.std())


def freeze(name: str, model: Any, tokenizer: Any, engine: str = "auto", attention: str = "auto") -> Backbone:
    """Put a model into eval mode, switch off its gradients and take its fingerprint."""
    model.eval()
    model.requires_grad_(False)
    if model.get_input_embeddings().weight.dtype == torch.float64:
        exact_norms(model)
    return Backbone(name, model, tokenizer, fingerprint(model, tokenizer), engine, attention)


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
            f"device {device!r} cannot be used on this machine ({first_line(fault)}); --device cpu always works"
        ) from fault
    return target


def _read(name: str, source: str, local_only: bool, dtype: torch.dtype, more: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    common: dict[str, Any] = {"local_files_only": local_only, "trust_remote_code": False}
    try:
        with without_progress_bars():
            tokenizer = _read_tokenizer(source, common)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, use_safetensors=True, output_loading_info=True, **common, **more
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
    return f"{type(fault).__name__}: {first_line(fault)}"


def _tokenizer_text(tokenizer: Any) -> str:
    """Everything of a tokenizer that decides on token ids, as text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    core = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    special = json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    return "\n".join((core, special, json.dumps(tokenizer.chat_template)))
