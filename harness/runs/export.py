"""A run's adapters as folders that others load: PEFT's format on the named base, or a model with what is below merged.

What such a folder's README says is `export_readme`; scores for others are `score_export`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.adapters import merged, write_peft
from harness.errors import HarnessError, StoreError, did_you_mean
from harness.model import RANDOM, Backbone, template_text, without_progress_bars
from harness.runs.export_readme import MODEL, PERSONAS, TEMPLATE, AdapterReadme, base_named
from harness.runs.loading import ADAPTERS, Stack, check_adapters, load_for_export, settings_of
from harness.runs.serving import read_served
from harness.runs.stored import StoredRun
from harness.store import dump_json, new_folder

BELOW = "below"
Form = Literal["peft", "merged"]


@dataclass(frozen=True)
class AdapterExport:
    """What was written.

    adapters  folders in PEFT's format, or the one model that an adapter is merged into
    below     how many adapters these stand on
    """

    output: Path
    adapters: int
    personas: int
    below: int


def export_adapters(
    run: StoredRun,
    personas: Sequence[str],
    output: Path,
    form: Form,
    note: Callable[[str], None],
    backbone: str | None = None,
) -> AdapterExport:
    """Write the adapters that reply to these personas (none named: to all) into a new folder, with a README.

    form      "peft": adapters on the named base, and those that are merged into it first; "merged": a model with these
              merged, and with the persona's own adapter where that is a LoRA
    note      takes a line for the user
    backbone  where the run's backbone lies now, as `load_backbone` takes it; None: as the run was told
    Raises HarnessError for a persona that none of the run's own adapters serves, an adapter that PEFT does not have, a
    run without adapters or with another backbone, nothing to merge, and an output that is not empty.
    """
    _check(run, output)
    served = chosen(run, personas)
    keys = sorted(set(served.values()))
    check_adapters(run, keys)
    base = _loaded(run, backbone, note)
    stack = Stack.of(run.path / ADAPTERS, base, keys)
    _check_form(run, stack, form, keys)
    try:
        with new_folder(output) as part:
            places = _write_merged(stack, part) if form == "merged" else _write_peft(run, stack, part)
            by_key = dict(zip(keys, (place.relative_to(part).as_posix() for place in places), strict=True))
            dump_json({persona: by_key[key] for persona, key in served.items()}, part / PERSONAS)
            readme = AdapterReadme(
                run.record, stack.top, form, len(stack.loras), next(iter(served)), stack.merges, _peft_kind(places[0])
            )
            (part / "README.md").write_text(readme.text(), encoding="utf-8", newline="\n")
    except OSError as error:
        raise StoreError(f"cannot write {output}: {error.strerror or error}") from error
    return AdapterExport(output, len(keys), len(served), len(stack.loras))


def chosen(run: StoredRun, personas: Sequence[str]) -> dict[str, str]:
    """Persona -> key of the adapter that serves it. Raises HarnessError for one that has no adapter of this run."""
    served = read_served(run.path)
    check_personas(run, personas, {*served, *run.record.sums.personas})
    for persona in personas:
        if persona not in served:
            raise HarnessError(
                f"'{persona}' is served by a base of '{run.record.method}', not by an adapter of {run.id}; "
                "export a run of the base method"
            )
    found = {persona: served[persona] for persona in personas} or served
    if not found:
        raise HarnessError(f"no persona is served by an adapter of {run.id}; export a run of its base method")
    return found


def _check(run: StoredRun, output: Path) -> None:
    if not run.complete:
        raise HarnessError(f"{run.id} is {run.head.status} and has nothing to export; run it again")
    if run.record.imported:
        raise HarnessError(f"{run.id} was imported: there are scores, and no adapters")
    if not (run.path / ADAPTERS).is_dir():
        raise HarnessError(f"{run.id} has no adapters: '{run.record.method}' trains none of its own")
    if fault := run.damage(adapters=False):
        raise StoreError(f"{fault}; {run.mend}")
    check_free(output)


def check_personas(run: StoredRun, personas: Iterable[str], known: Collection[str]) -> None:
    """Raises HarnessError for the first one that the run does not know."""
    for persona in personas:
        if persona not in known:
            raise HarnessError(f"{run.id} has no persona '{persona}'; {did_you_mean(persona, known)}")


def check_free(output: Path) -> None:
    """Raises HarnessError for a folder that holds something."""
    if output.exists() and any(output.iterdir() if output.is_dir() else [output]):
        raise HarnessError(f"{output} is not empty; choose a new folder")


def _loaded(run: StoredRun, backbone: str | None, note: Callable[[str], None]) -> Backbone:
    name = backbone or str(settings_of(run)["backbone"])
    if name.startswith(RANDOM):
        raise HarnessError(f"{run.id} has the backbone {name}: random weights, which cannot be exported")
    return load_for_export(run, backbone, note)


def _check_form(run: StoredRun, stack: Stack, form: Form, keys: Sequence[str]) -> None:
    if form == "peft":
        return
    if run.record.config.model_dump().get("load_in"):
        raise HarnessError(f"the backbone of {run.id} is quantised and is not written with changes; use --to peft")
    if stack.merges and len(keys) > 1:
        raise HarnessError(
            f"merged means a whole model for each of {len(keys)} LoRAs; choose one with --persona, or use --to peft"
        )
    if not stack.merges and not stack.loras:
        raise HarnessError(f"the adapters of {run.id} have no base adapter: there is nothing to merge; use --to peft")


def _write_peft(run: StoredRun, stack: Stack, part: Path) -> list[Path]:
    base = base_named(run.record).shown
    for number, (_, lora) in enumerate(stack.loras, 1):
        (place,) = write_peft(lora, part / BELOW, base)
        place.rename(part / BELOW / str(number))
        # No model has this name: who takes the adapter for one of the bare base gets an error in place of nonsense.
        base += f" + {BELOW}/{number} (see README.md)"
    (part / TEMPLATE).write_text(template_text(stack.top.tokenizer), encoding="utf-8", newline="\n")
    return _checked(write_peft(stack.bank, part / ADAPTERS, base))


def _write_merged(stack: Stack, part: Path) -> list[Path]:
    """The model, and the run's own adapters beside it where they cannot be merged."""
    whole = merged(stack.top, stack.bank, 0) if stack.merges else stack.top
    with without_progress_bars():
        whole.model.save_pretrained(part / MODEL)
    whole.tokenizer.save_pretrained(part / MODEL)
    return [part / MODEL] if stack.merges else _checked(write_peft(stack.bank, part / ADAPTERS, MODEL))


def _peft_kind(place: Path) -> str:
    """PEFT's name of the kind of adapter in a folder; empty for a model."""
    config = place / "adapter_config.json"
    return str(json.loads(config.read_text(encoding="utf-8"))["peft_type"]) if config.is_file() else ""


def _checked(places: list[Path]) -> list[Path]:
    from peft import PeftType

    kind = _peft_kind(places[0])
    if kind not in PeftType.__members__:
        raise HarnessError(f"PEFT has no adapters of the kind {kind.lower()}; only the harness applies them")
    return places
