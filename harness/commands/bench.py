"""`harness bench`: speed beside other ways, and error rates of the statistics. The measuring is in those rooms."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from harness import show
from harness.commands.common import (
    Json,
    Plugins,
    Quiet,
    Sets,
    app,
    example,
    options_of,
    print_json,
    progress,
    resumes,
    shown,
)
from harness.config import RunConfig, device_of, load_config
from harness.errors import HarnessError, did_you_mean
from harness.text import shell_word, without_places

bench_app = typer.Typer(
    no_args_is_help=True,
    help="Measure the harness itself: its statistics, and its speed compared with other ways.",
    rich_markup_mode=None,
)
app.add_typer(bench_app, name="bench")

PEOPLE, FITTED = "1000,10000,100000,1000000", "256,1024,4096"
SUBSET = "study_loop=10,trainer=10"
SIZES = "1,8,32,100,200"
REPLIES = 5_900
REPLY_SUBSET = "batch_1=200,peft_one_by_one=200,batch_8=1000,peft_mixed=1000"
QUICK = {"personas": 4, "dialogues": 8, "repeats": 1, "epochs": 1, "sizes": "1", "subset": "study_loop=2,trainer=2"}

Shape = Annotated[str, typer.Option(help="tiny, or smollm2-135m, qwen2.5-0.5b with random weights.")]
Config = Annotated[str, typer.Option(help="What is measured: a YAML file, or the name of a ready-made run.")]
Personas = Annotated[str | None, typer.Option(help="Number of personas, or `all`. [default: the config's]")]
Repeats = Annotated[int, typer.Option(min=1, help="Repeats of each way, in turn.")]
Threads = Annotated[int | None, typer.Option(help=f"CPU threads.{shown('threads')}")]
Dtype = Annotated[
    str | None,
    typer.Option(help=f"float32, bfloat16, float64; bfloat16 by itself for a --shape on CUDA.{shown('dtype')}"),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda; auto takes cuda where there is one. [default: auto]")]
Output = Annotated[Path | None, typer.Option(help="Markdown file: the block between its marks, or a new file.")]
Keep = Annotated[Path | None, typer.Option(help="Work in this folder and go on there after an interruption.")]
QuickFlag = Annotated[bool, typer.Option("--quick", help="A small version, to see that it runs.")]


def _ways(names: str | None) -> list[str]:
    """The ways that are asked for, all of them if none is. Raises HarnessError for an unknown one."""
    from harness.bench import ways

    chosen = _names(names) if names else list(ways.WAYS)
    for way in chosen:
        ways.find(way)
    return chosen


def _facts(job: Any, settings: RunConfig, shape: str, repeats: int) -> dict[str, Any]:
    """What the heading of a table of training says."""
    return {
        "personas": len(job.keys), "dialogues": sum(map(len, job.train.values())), "epochs": job.options.epochs,
        "batch": job.options.batch_size, "virtual_tokens": job.spec.tokens, "shape": shape, "threads": settings.threads,
        "dtype": settings.dtype, "device": settings.device, "repeats": repeats,
    }  # fmt: skip


def _check_shape(shape: str, layers: int | None) -> None:
    from harness.model import catalogue

    shapes = ["tiny", *(known.name for known in catalogue().values() if known.shape)]
    if shape not in shapes:
        raise HarnessError(f"--shape {shape}: {did_you_mean(shape, shapes)}")
    if layers is not None and shape == "tiny":
        raise HarnessError("--layers is for a --shape of the catalogue; the embedded backbone has the layers it has")


@bench_app.command("train")
@example("bench-train")
@resumes("--keep")
def bench_train_command(
    config: Config = "bench",
    personas: Personas = None,
    ways: Annotated[str | None, typer.Option(help="Comma-separated. [default: all]")] = None,
    repeats: Repeats = 3,
    subset: Annotated[str, typer.Option(help="way=N: it is measured on N personas and scaled.")] = SUBSET,
    sizes: Annotated[str, typer.Option(help="Numbers of adapters for bank and plain_loop; '' for none.")] = SIZES,
    ladder: Annotated[bool, typer.Option(help="Switch each technique on alone.")] = True,
    shape: Shape = "tiny",
    layers: Annotated[int | None, typer.Option(help="Fewer layers than the shape has, to try it.")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Profile the bank in place of printing tables.")] = False,
    threads: Threads = None,
    dtype: Dtype = None,
    device: Device = None,
    sets: Sets = None,
    plugin: Plugins = None,
    output: Output = None,
    keep: Keep = None,
    quick: QuickFlag = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train soft prompts in the harness and in other ways, side by side on this machine."""
    from harness.bench import measure, prepare, profiling, report, rungs, training

    _check_shape(shape, layers)
    chosen = _ways(ways)
    dialogues, more = None, list[str]()
    limits, numbers = _subset(QUICK["subset"] if quick and subset == SUBSET else subset), _numbers(sizes)
    if quick:
        personas, dialogues = personas or str(QUICK["personas"]), QUICK["dialogues"]
        repeats = QUICK["repeats"] if repeats == 3 else repeats
        numbers = _numbers(QUICK["sizes"]) if sizes == SIZES else numbers
        more = [f"epochs={QUICK['epochs']}"]
    settings = _settings(config, personas, threads, dtype, device, [*more, *(sets or [])], plugin, shape)
    shown_in = _progress(quiet, keep, quick)
    identity = ["train", settings.as_dict(), shape, layers, dialogues, limits]
    with measure.workplace(keep, identity) as folder:
        subject = prepare.subject_of(settings, plugin or [])
        estimate = None
        if shape != "tiny":  # printed before anything large is made
            estimate = _estimate(shape, layers, settings, subject)
            shown_in.note(estimate.text())
        job = prepare.make_job(settings, subject, folder, shown_in, shape, layers, dialogues)
        if profile:
            found = profiling.profile_training(job, shown_in)
            print_json(found) if as_json else typer.echo(profiling.text(found))
            return
        steps = rungs() if ladder else []
        few = 2 if quick else training.LADDER_PERSONAS
        plan = training.Measurements(chosen, limits, numbers, steps, few, asked=training.asked_of(shape))
        measured = measure.measure(folder, training.cases(job, plan), repeats, settings.threads, shown_in)
    table = {
        **report.heading(_command(), _facts(job, settings, shape, repeats), settings.device),
        **training.tables(job, plan, measured),
    }
    if estimate is not None:
        table["memory"] = {**vars(estimate), "total": estimate.total}
    name = "bench train" if shape == "tiny" else f"bench train {shape}"
    _give(table, report.train_text(table), name, output, as_json)


@bench_app.command("generate")
@example("bench-generate")
@resumes("--keep")
def bench_generate_command(
    config: Config = "bench",
    personas: Personas = None,
    ways: Annotated[str | None, typer.Option(help="Comma-separated. [default: all]")] = None,
    kinds: Annotated[str, typer.Option(help="Adapters to serve: prompt, lora.")] = "prompt,lora",
    replies: Annotated[int, typer.Option(min=1, help="Replies, evenly spread over the test dialogues.")] = REPLIES,
    repeats: Repeats = 3,
    subset: Annotated[str, typer.Option(help="way=N: it is measured on N replies and scaled.")] = REPLY_SUBSET,
    shape: Shape = "tiny",
    threads: Threads = None,
    dtype: Dtype = None,
    device: Device = None,
    sets: Sets = None,
    plugin: Plugins = None,
    output: Output = None,
    keep: Keep = None,
    quick: QuickFlag = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Decode replies with one adapter per prompt in the harness and in other ways, side by side on this machine."""
    from harness.bench import decoding, measure, prepare, report, serving

    _check_shape(shape, None)
    chosen, served = _names(ways) if ways else list(decoding.WAYS), _names(kinds)
    for way in chosen:
        decoding.find(way)
    if wrong := [kind for kind in served if kind not in serving.KINDS]:
        raise HarnessError(f"--kinds {wrong[0]}: {did_you_mean(wrong[0], serving.KINDS)}")
    dialogues = None
    if quick:
        personas, dialogues = personas or str(QUICK["personas"]), QUICK["dialogues"]
        repeats, replies = (1 if repeats == 3 else repeats), min(replies, 40)
    limits = _subset("batch_1=10,peft_one_by_one=10" if quick and subset == REPLY_SUBSET else subset)
    settings = _settings(config, personas, threads, dtype, device, sets or [], plugin, shape)
    shown_in = _progress(quiet, keep, quick)
    identity = ["generate", settings.as_dict(), shape, dialogues, replies, limits]
    with measure.workplace(keep, identity) as folder:
        subject = prepare.subject_of(settings, plugin or [])
        job = prepare.make_job(settings, subject, folder, shown_in, shape, dialogues=dialogues)
        asked = {kind: serving.make_asked(job, subject, kind, replies, shown_in) for kind in served}
        planned = serving.cases(asked, chosen, limits)
        measured = measure.measure(folder, planned, repeats, settings.threads, shown_in, "replies")
    facts = {
        "personas": len(job.keys), "virtual_tokens": job.spec.tokens, "shape": shape, "threads": settings.threads,
        "dtype": settings.dtype, "device": settings.device, "repeats": repeats,
    }  # fmt: skip
    table = {**report.heading(_command(), facts, settings.device), **serving.tables(measured, shape)}
    _give(table, report.generate_text(table), "bench generate", output, as_json)


@bench_app.command("run")
@example("bench-run")
def bench_run_command(
    config: Config = "bench",
    personas: Personas = None,
    threads: Threads = None,
    dtype: Dtype = None,
    device: Device = None,
    sets: Sets = None,
    plugin: Plugins = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a whole run in an empty store and report the shares of time of forward, backward and decoding."""
    from dataclasses import replace

    from harness.bench import profiling, report

    with tempfile.TemporaryDirectory() as scratch:
        settings = _settings(config, personas, threads, dtype, device, sets or [], plugin, "tiny")
        settings = replace(settings, runs_dir=Path(scratch))
        found = profiling.profile_run(settings, plugin or [], progress(quiet))
    facts = {
        "personas": found["personas"], "replies": found["replies"], "threads": settings.threads,
        "dtype": settings.dtype, "device": settings.device, "repeats": 1,
    }  # fmt: skip
    table = {**report.heading(_command(), facts, settings.device), **found}
    _give(table, f"{report.heading_text(table)}\n\n{profiling.text(found)}\n", "bench run", output, as_json)


@bench_app.command("statistics")
@example("bench-statistics")
def bench_statistics_command(
    experiments: Annotated[int, typer.Option(min=100, help="Simulated experiments of each kind.")] = 2_000,
    flips: Annotated[int, typer.Option(min=199, help="Sign flips of each test.")] = 9_999,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table as it stands in docs/statistics.md.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check the statistics by simulation: error rates and coverage against their targets, a minute or two.

    Exit code 2: a target is missed.
    """
    from harness.statistics import run_calibration

    with progress(quiet).task("simulate experiments", total=1, unit="tests") as advance:
        rows = run_calibration(experiments, advance.to, flips=flips)
    if as_json:
        print_json(rows)
    else:
        typer.echo(show.table(rows, "github" if markdown else "simple"))
    if missed := [row["what"] for row in rows if not row["ok"]]:
        typer.echo(f"missed: {'; '.join(missed)}", err=True)
        raise typer.Exit(2)


@bench_app.command("scale")
@example("bench-scale")
def bench_scale_command(
    people: Annotated[str, typer.Option(help="Sizes of made-up stores; '' for none.")] = PEOPLE,
    fit: Annotated[str, typer.Option("--fit", help="Sizes of banks that are trained; '' for none.")] = FITTED,
    config: Config = "bench",
    threads: Threads = None,
    sets: Sets = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make stores of very many people from random numbers, and measure what they cost: bytes, opening one adapter,
    listing, comparing; then how fast people are fitted. The stores are removed. A million people take minutes, 6 GB of
    disk and as much memory.

    Exit code 2: a target is missed.
    """
    from harness.bench import prepare, report, scale
    from harness.model import load_backbone

    sizes, fitted = _numbers(people, "--people", PEOPLE), _numbers(fit, "--fit", FITTED)
    settings = _settings(config, None, threads, None, "cpu", sets or [], None, "tiny")
    asked = scale.Scale(sizes, fitted, settings.threads)
    backbone = load_backbone(settings.backbone)
    found = scale.measure_scale(asked, backbone, lambda: prepare.subject_of(settings, []), progress(quiet))
    facts = {
        "methods": scale.METHODS, "virtual_tokens": scale.TOKENS, "width": backbone.hidden, "flips": 9_999,
        "dialogues_a_person_fitted": scale.FIT_DIALOGUES, "epochs": scale.FIT_EPOCHS, "threads": settings.threads,
        "repeats": 1,
    }  # fmt: skip
    table = {**report.heading(_command(), facts, "cpu"), **found}
    _give(table, report.scale_text(table), "bench scale", output, as_json)
    if wrong := scale.missed(table):
        typer.echo(f"missed: {'; '.join(wrong)}", err=True)
        raise typer.Exit(2)


def _settings(
    config: str, personas: str | None, threads: int | None, dtype: str | None, device: str | None,
    sets: list[str], plugin: list[Path] | None, shape: str,
) -> RunConfig:  # fmt: skip
    chosen = device_of(device or "auto")
    if dtype is None and shape != "tiny" and chosen.startswith("cuda"):
        dtype = "bfloat16"
    flags = {"personas": personas, "threads": threads, "dtype": dtype, "device": chosen}
    return load_config(options_of=options_of(plugin or []), file=config, flags=flags, sets=sets)


def _estimate(shape: str, layers: int | None, settings: RunConfig, subject: Any) -> Any:
    import torch

    from harness.bench import memory, prepare
    from harness.model import load_backbone, random_config

    torch.set_num_threads(settings.threads)
    data = prepare.encoded(subject.dataset, load_backbone(settings.backbone).tokenizer, "train")
    config, rows = random_config(shape, layers), [own for own in data.values() if own]
    return memory.of_subject(config, subject.prompt.tokens, subject.options, rows, settings.dtype, settings.device)


def _give(table: Mapping[str, Any], text: str, name: str, output: Path | None, as_json: bool) -> None:
    from harness.bench import report

    if output is not None:
        report.replace_block(output, name, text)
    print_json(table) if as_json else typer.echo(text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _progress(quiet: bool, keep: Path | None, quick: bool) -> Any:
    show = progress(quiet)
    if keep is None and not quick:
        show.note("this takes long; with --keep FOLDER the same command goes on after an interruption")
    return show


def _numbers(text: str, flag: str = "--sizes", like: str = SIZES) -> list[int]:
    wrong = [name for name in _names(text) if not name.isdigit() or int(name) < 1]
    if wrong:
        raise HarnessError(f"{flag} {wrong[0]}: write numbers of adapters, such as {like}")
    return [int(name) for name in _names(text)]


def _subset(text: str) -> dict[str, int]:
    found = {}
    for item in _names(text):
        way, equals, count = item.partition("=")
        if not equals or not count.strip().isdigit() or int(count) < 1:
            raise HarnessError(f"--subset {item}: write way=N, such as {SUBSET}")
        found[way.strip()] = int(count)
    return found


def _command() -> str:
    """The command as it was given, without its path."""
    return as_given(sys.argv[1:]) if Path(sys.argv[0]).name == "harness" else "harness bench"


def as_given(arguments: Sequence[str]) -> str:
    """The command to repeat a measurement: without where it wrote and what it showed, which may be nobody else's."""
    kept, rest = [], iter(arguments)
    for argument in rest:
        if argument in ("--keep", "--output"):
            next(rest, None)
        elif not argument.startswith(("--keep=", "--output=")) and argument not in ("--json", "-q", "--quiet"):
            kept.append(argument)
    return " ".join(["harness", *map(shell_word, without_places(kept))])
