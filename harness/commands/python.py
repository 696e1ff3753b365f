"""The commands from Python: `harness.run`, `harness.compare`, `harness.load_run`, `harness.leaderboard`.

The commands of the terminal call these, so that both do the same. Arguments have the names and defaults of the flags;
what a flag takes as text may be given as a number, a list or a mapping.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.common import RUNS, check_runs_dir, options_of, progress, runs_in
from harness.commands.tracking import Logbook
from harness.config import RunConfig, flat, isolates, load_config, read_document
from harness.errors import HarnessError, StoreError

if TYPE_CHECKING:
    from harness.leaderboard import Leaderboard
    from harness.runs import StoredRun
    from harness.show import Comparison, Result, Run

Place = str | PathLike[str]
Plugin = Place | Sequence[Place] | None
_NO_SETTINGS = ("config", "set", "plugin", "log", "log_dir", "quiet")
NOT_ISOLATED = "methods run in this command's own process, where they can reach references (docs/security.md)"


def run(
    method: str | None = None,
    benchmark: str | None = None,
    *,
    backbone: Place | None = None,
    baseline: str | None = None,
    personas: int | str | None = None,
    persona: str | Sequence[str] | None = None,
    cluster: int | None = None,
    control: str | None = None,
    seed: int | None = None,
    threads: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
    attn_implementation: str | None = None,
    load_in: str | None = None,
    chat_template: Place | None = None,
    engine: str | None = None,
    scorer: Place | None = None,
    config: Place | None = None,
    shard_people: int | None = None,
    executor: str | None = None,
    address: str | None = None,
    slurm: str | Mapping[str, Any] | None = None,
    isolate: bool | None = None,
    texts: bool | None = None,
    margin: float | None = None,
    set: Mapping[str, Any] | Sequence[str] = (),
    plugin: Plugin = None,
    runs_dir: Place | None = None,
    log: str | Sequence[str] | None = None,
    log_dir: Place | None = None,
    quiet: bool = False,
) -> Result:
    """Fit, predict, score, test against the baseline, store the run: `harness run`.

    set      options by name, {"train": {"epochs": 2}}; those of a method below in a mapping under its name; or the
             texts of --set
    plugin   a loose file, or several
    log      experiment trackers that the runs are sent to once they are stored
    What is stored already is not made again. Raises HarnessError where the command would say one line.
    """
    flags = {name: value for name, value in locals().items() if name not in _NO_SETTINGS}
    files = _files(plugin)
    book = Logbook.of([log] if isinstance(log, str) else log, None if log_dir is None else Path(log_dir))
    settings = settings_of(flags, config, _texts(set), files)
    from harness.runner import execute
    from harness.show import Result

    shown_in = told(quiet, settings.isolate)
    result = Result(execute(settings, files, shown_in))
    book.send(result.outcome.compared, result.run.path.parent, shown_in)
    return result


def compare(
    *names: str,
    baseline: str | None = None,
    metric: str | None = None,
    estimand: str = "micro",
    margin: float | None = None,
    clusters: bool = False,
    runs_dir: Place = RUNS,
) -> Comparison:
    """Compare stored methods with a stored baseline, jointly: `harness compare`.

    names   methods, or ids of runs (their beginnings; several with commas); without `baseline` the first is it
    Raises HarnessError for names that are not stored, and for runs that were not asked and scored alike.
    """
    from harness.compare import joint
    from harness.show import Comparison

    base, *others = [name for name in (baseline, *names) if name is not None] or [""]
    runs = runs_in(Path(runs_dir), (base, *others) if others else ())
    if not base:
        raise HarnessError("nothing to compare: name a baseline and stored methods, as `harness list runs` has them")
    if estimand not in ("micro", "macro"):
        raise HarnessError(f"estimand is micro or macro, not {estimand!r}")
    found = joint(runs, base, others, metric=metric, estimand=estimand, margin_pts=margin, by_cluster=clusters)
    return Comparison(found)


def load_run(run: str, runs_dir: Place = RUNS) -> Run:
    """A stored run by its id or the beginning of it: what `harness show` reads. Raises StoreError if there is none."""
    from harness.runs import find_run
    from harness.show import Run

    check_runs_dir(Path(runs_dir))
    return Run(find_run(Path(runs_dir), run))


def leaderboard(runs_dir: Place | None = None, records: Place = "leaderboard/records") -> Leaderboard:
    """The leaderboard of stored runs and published records: what `harness leaderboard` writes to files.

    runs_dir   only these runs
    records    folder of the published ones
    Raises StoreError where there is nothing to rank.
    """
    import harness.leaderboard as room

    return room.Leaderboard(room.board_of(runs_to_rank(None if runs_dir is None else Path(runs_dir), Path(records))))


# ---- for the commands of the terminal ----


def runs_to_rank(runs_dir: Path | None, records: Path) -> list[StoredRun]:
    """Those of a folder, or of the default folder and the published records. Raises StoreError if there are none."""
    from harness.leaderboard import read_runs

    runs = read_runs(runs_dir, records, RUNS)
    if not runs:
        where = f"{runs_dir} has no runs" if runs_dir else f"neither {RUNS} nor {records} has any runs"
        raise StoreError(f"nothing to rank: {where}; make one with harness run")
    return runs


def settings_of(
    flags: Mapping[str, Any], config: Place | None, sets: Sequence[str], files: list[Path], only_cost: bool = False
) -> RunConfig:
    """The whole configuration of a run. With `only_cost` no method gets a process of its own."""
    document = None if config is None else read_document(str(config))
    separate = not only_cost and isolates(flags.get("isolate"), document)
    return load_config(options_of=options_of(files, separate), file=document, flags=_plain(flags), sets=sets)


def told(quiet: bool, isolated: bool) -> Any:
    """Where progress is said; and first that methods are not isolated, where they are not."""
    shown_in = progress(quiet)
    if not isolated and isolates(None):  # who sets the variable for all commands knows
        shown_in.note(NOT_ISOLATED)
    return shown_in


def _plain(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags as the terminal gives them: lists with commas, folders as text."""
    found: dict[str, Any] = {}
    for name, value in flags.items():
        if isinstance(value, Mapping):
            value = [f"{key}={item}" for key, item in value.items()]
        if isinstance(value, PathLike):
            value = str(value)
        found[name] = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
    return found


def _texts(options: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """The texts of --set."""
    if isinstance(options, str):
        return [options]
    if not isinstance(options, Mapping):
        return list(options)
    return [f"{name}={_text(value)}" for name, value in flat(options)]


def _text(value: Any) -> str:
    """A value as --set takes it: text as it is, the rest as YAML. Raises HarnessError for what has no such form."""
    if isinstance(value, str | PathLike):
        return str(value)  # --set knows no quotes: they would be part of the text
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError as error:
        raise HarnessError(f"set: {value!r} is no number, text, list or mapping") from error


def _files(plugin: Plugin) -> list[Path]:
    one = isinstance(plugin, str | PathLike)
    return [Path(file) for file in ([plugin] if one else plugin or [])]
