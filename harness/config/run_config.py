"""Shipped defaults, a YAML file, flags and --set -> one frozen `RunConfig`; all faults reported at once.

    later beats earlier: configs/default.yaml < the environment < --config FILE < flags < --set key=value

Option dataclasses come from the plugins' cards through `options_of`, so that this module knows no plugin.
The runner decides what the values mean. No torch here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import to_jsonable_python

from harness.config.yaml_file import Document, parse, parse_value
from harness.contract import (
    SCORER,
    Plain,
    Protocol,
    calling,
    fill,
    option_types,
    read_file,
    read_value,
    resolve,
    user_path,
)
from harness.errors import ConfigError, HarnessError, did_you_mean
from harness.text import shell_word

ENVIRONMENT = {"isolate": "HARNESS_ISOLATE", "threads": "HARNESS_THREADS"}  # where neither file nor flag says them
TARGETS = ("method", "benchmark", "protocol")  # of an option; any other is the name of a method that is required
OptionsOf = Callable[[str, str], type]  # ("method" or "benchmark", name) -> its options dataclass


def _known_scorer(scorer: str) -> str:
    path = user_path(scorer)
    if scorer != SCORER and not path.is_dir():
        near = [str(file.parent) for file in path.parent.glob("*/model.safetensors")]
        raise ValueError(f"is neither a folder nor the name of the scorer; {did_you_mean(scorer, [SCORER, *near])}")
    return scorer


def _pairs(words: tuple[str, ...]) -> tuple[str, ...]:
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier() or not value:
            raise ValueError(f"'{word}' is not NAME=VALUE, e.g. partition=gpu")
    return words


@dataclass(frozen=True, slots=True)
class Recipe:
    """The method of one run, and all that belongs to it alone; the rest of a RunConfig is shared by all that are
    compared.

    options  an instance of the dataclass on the method's card; None: its defaults
    others   method -> options of methods that this one stands on; one that is not named has its defaults
    control  None, or a control in place of the method itself
    tuning   how the options were found, for the record: a tuned run is one of its own; None: not by `harness tune`
    """

    method: str
    options: Any = None
    others: Mapping[str, Any] = field(default_factory=dict)
    control: Literal["global", "swapped"] | None = None
    tuning: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that a run is asked to do. Each field but the last five is a flag (`--runs-dir`) and a YAML
    key.

    baseline   method that the verdict compares with
    personas   size of the world; "all": everybody; None: the benchmark's own default
    persona    only these are fitted and scored, in the full world (empty: all)
    cluster    only this cluster is fitted and scored, in the full world
    backbone   an embedded model, a name of the catalogue, a folder, a GGUF file or a Hub id
    attn_implementation, load_in, chat_template   how the backbone is loaded, see `harness.model.load_backbone`
    threads    CPU threads of torch: part of the result's last bits, therefore part of the configuration
    shard_people  so many adapters, or people who are answered, are computed together: part of the last bits of a
               larger world
    executor   where shards are fitted and answered: in this process, on a Ray cluster, as jobs of Slurm
    address    of a running Ray cluster; None: one is started on this machine
    slurm      NAME=VALUE for sbatch: partition=gpu, time=120 (minutes), ...; cluster=local runs the jobs here
    isolate    each method in a process of its own, which knows no reference
    texts      whether the run keeps the texts of prompts and references beside the replies
    control    a control in place of the method itself: one shared adapter, or each persona gets another's
    margin     of equivalence in the deciding metric's unit (points for pt), stated before the scores are seen
    scorer     sentence encoder of the similarity metric: its name, or a local folder that holds it
    method_options, benchmark_options   instances of the dataclasses on the plugins' cards
    required_options   method -> the same of methods that this one stands on, or is compared with, where any is given
    protocol   fields of the benchmark's protocol to be changed; the same for all methods, and part of the
               hash
    """

    method: str
    benchmark: str
    baseline: str | None = None
    backbone: str = "tiny"
    personas: Annotated[int, Field(ge=1)] | Literal["all"] | None = None
    persona: tuple[str, ...] = ()
    cluster: Annotated[int, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    runs_dir: Path = Path("runs")
    engine: Literal["auto", "transformers", "llama_cpu"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] = 2
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"] = "auto"
    load_in: Literal["4bit", "8bit"] | None = None
    chat_template: Path | None = None
    shard_people: Annotated[int, Field(ge=1)] = 256
    executor: Literal["local", "ray", "slurm"] = "local"
    address: str | None = None
    slurm: Annotated[tuple[str, ...], AfterValidator(_pairs)] = ()
    isolate: bool = False
    texts: bool = True
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "cpu"
    control: Literal["global", "swapped"] | None = None
    margin: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    scorer: Annotated[str, AfterValidator(_known_scorer)] = SCORER
    method_options: Any = None
    benchmark_options: Any = None
    required_options: Mapping[str, Any] = field(default_factory=dict)
    tuning: Mapping[str, Any] | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """The run's own method."""
        return Recipe(self.method, self.method_options, self.required_options, self.control, self.tuning)

    def plain(self, method: str) -> Recipe:
        """A method as others stand on it or are compared with it: its defaults, but for what is given of it."""
        return Recipe(method, self.required_options.get(method), self.required_options)

    @property
    def slurm_parameters(self) -> dict[str, str]:
        """Name -> value."""
        return {name: value for name, _, value in (word.partition("=") for word in self.slurm)}

    @property
    def compared(self) -> tuple[Recipe, ...]:
        """The run's own method, and the baseline where that is another run."""
        other = self.baseline and (self.baseline != self.method or self.control)
        return (self.recipe, self.plain(self.baseline)) if self.baseline and other else (self.recipe,)

    def as_dict(self) -> dict[str, Any]:
        """For `run.json`: only JSON types."""
        return {item.name: to_jsonable_python(getattr(self, item.name)) for item in dataclasses.fields(self)}


_COMPUTED = ("method_options", "benchmark_options", "required_options", "tuning", "protocol")
_TYPES = {
    name: hint for name, hint in typing.get_type_hints(RunConfig, include_extras=True).items() if name not in _COMPUTED
}


_ALSO = {("tune", "sweep")}  # with --trials a sweep can be tuned
SETTINGS = tuple(_TYPES)  # the keys of a file; options of plugins stand under "set"


@dataclass(frozen=True, slots=True)
class _Given:
    """One value as it was given: `where` names file and line, or the flag; `layer` grows with precedence."""

    value: Any
    where: str
    layer: int


def shipped(name: str, command: str = "") -> Document:
    """A file of configs/ as installed, by its stem: "default", or what a command makes. Raises ConfigError.

    command   the one that asks, see `read_document`
    """
    folder = files("harness.configs")
    known = sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))
    if name in known:
        return parse(folder.joinpath(name + ".yaml").read_text("utf-8"), f"configs/{name}.yaml")
    if command:
        known = [one for one in known if _command_for(shipped(one)) == command]
    what = f"ready-made file of harness {command}" if command else "shipped file"
    raise ConfigError(f"{_given(command)}{name}: no such file, and no {what}; {did_you_mean(name, known)}")


def _command_for(document: Document) -> str:
    """The command that a file is for by its keys; empty where they do not say."""
    keys = document.values.keys()
    if keys & {"trials", "parts"}:
        return "tune"
    return "sweep" if keys & {"methods", "phases"} else "run" if "method" in keys else ""


def _given(command: str) -> str:
    """What stands before a file's name in a message: `harness run` takes it as an option."""
    return "--config " if command == "run" else ""


@functools.cache
def default_values() -> Mapping[str, Any]:
    """The shipped defaults (configs/default.yaml) by name, for help texts."""
    return {name: value for name, value in resolve(_default().values).items() if name != "examples"}


@functools.cache
def _default() -> Document:
    return shipped("default")


def _defaults() -> list[Document]:
    """What holds where nothing is given: what is shipped, and what the environment says."""
    own = ((variable, name, os.environ.get(variable)) for name, variable in ENVIRONMENT.items())
    return [shipped("default"), *(Document(variable, {name: Plain(text)}, {}) for variable, name, text in own if text)]


def isolates(flag: bool | None, document: Document | None = None) -> bool:
    """What `isolate` will be with that flag and file: whose process reads a method's options depends on it."""
    if flag is not None:
        return flag
    for layer in [*([document] if document else []), *reversed(_defaults())]:
        if "isolate" in layer.values:
            with contextlib.suppress(ValueError):  # a fault is told when all is read
                return bool(read_value(layer.values["isolate"], bool))
    return True


def help_examples() -> dict[str, str]:
    """Command -> an example line for its --help, from configs/default.yaml."""
    return {name: str(line) for name, line in _default().values.get("examples", {}).items()}


def load_config(
    *,
    options_of: OptionsOf,
    file: str | Path | Document | None = None,
    flags: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    required: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Put a configuration together and check all of it.

    options_of  gives the options dataclass of a method or benchmark; raises HarnessError for unknown names
    file        YAML file, the name of a ready-made run of configs/, or a document already read
    flags       field name -> value of the flags that were given; None values count as not given
    sets        the texts "key=value" of --set; "NAME.key=value" is an option of the method NAME
    required    method -> options that it has before all of these
    Raises ConfigError listing every fault, one a line.
    """
    faults: list[str] = []
    fields: dict[str, _Given] = {}
    options: list[tuple[str, _Given]] = []
    documents = _defaults()
    given = len(documents)
    if file is not None:  # one that cannot be read is the only fault: the others may follow from it
        documents.append(file if isinstance(file, Document) else read_document(file))
    for place, document in enumerate(documents):
        _read_document(document, int(place >= given), fields, options, faults)
    for name, value in (flags or {}).items():
        if value is not None:
            plain = Plain(value) if isinstance(value, str) else value
            fields[name] = _Given(plain, "--" + name.replace("_", "-"), 2)
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            faults.append(f"--set {text}: write --set key=value")
            continue
        try:
            options.append((key.strip(), _Given(parse_value(value, f"--set {key}"), f"--set {text}", 3)))
        except ConfigError as error:
            faults.append(str(error))
    values = _field_values(fields, faults)
    types = _option_types(values, options_of, fields, faults)
    options = [(_without_own_name(key, values), given) for key, given in options]
    unknown = _add_required_types(options, types, options_of)
    filled = _option_values(options, types, unknown, faults)
    required = required or {}
    for target in ("method", "benchmark"):
        if target in types:
            start = required.get(values["method"]) if target == "method" else None
            values[target + "_options"] = _instance(target, start or types[target](), filled[target], values, faults)
    others = {
        name: _instance(name, required.get(name) or types[name](), filled[name], values, faults)
        for name in types
        if name not in TARGETS
    }
    _instance("protocol", Protocol(), filled["protocol"], values, faults)
    if faults:
        raise ConfigError("\n".join(dict.fromkeys(faults)))
    return RunConfig(**values, required_options={**required, **others}, protocol=filled["protocol"])


def read_document(file: str | Path, command: str = "run") -> Document:
    """A YAML file by its path, or a shipped one by its name.

    command   the one that asks, run, sweep or tune: a file for another one is refused; empty: any file will do
    Raises ConfigError.
    """
    path, given = user_path(file), _given(command)
    if not path.exists() and isinstance(file, str) and Path(file).name == file and not path.suffix:
        document = shipped(file, command)
    else:
        try:
            text = read_file(path).decode()
        except OSError as error:
            near = [item.name for item in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
            raise ConfigError(f"{given}{file}: {error.strerror}; {did_you_mean(path.name, near)}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{given}{file}: not UTF-8 text ({error.reason} at byte {error.start})") from error
        document = parse(text, str(file))
    other = _command_for(document)
    if command and other not in ("", command) and (command, other) not in _ALSO:
        word = shell_word(file)
        wanted = f"harness {other} {_given(other)}{word}"
        raise ConfigError(f"{given}{file}: is a file for another command: {wanted}")
    return document


def _read_document(
    document: Document,
    layer: int,
    fields: dict[str, _Given],
    options: list[tuple[str, _Given]],
    faults: list[str],
) -> None:
    for key, value in document.values.items():
        where = document.where(key)
        if key in _TYPES:
            fields[key] = _Given(value, where, layer)
        elif key == "set" and isinstance(value, dict):
            for name, item in flat(value):
                options.append((name, _Given(item, document.where(f"set.{name}"), layer)))
        elif key == "set":
            faults.append(f"{where}: 'set' must be a mapping of option names to values")
        elif not (key == "examples" and layer == 0):
            hint = did_you_mean(key, [*_TYPES, "set"])
            faults.append(f"{where}: unknown key '{key}'; {hint} (options of plugins go under 'set:')")


def flat(values: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted name -> value of nested mappings, as options are written."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}{key}.")
        else:
            yield path + key, value


def _field_values(fields: dict[str, _Given], faults: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, given in fields.items():
        value = given.value
        try:
            values[name] = read_value(value, _TYPES[name])
        except ValueError as error:
            faults.append(f"{given.where}: {name} = {value}: {error}")
    for name in ("method", "benchmark"):
        if not fields.get(name) or not values.get(name, "missing"):
            faults.append(f"{name} is missing: give --{name} NAME (`harness list {name}s`)")
    _narrowing(fields, values, faults)
    return values


def _narrowing(fields: dict[str, _Given], values: dict[str, Any], faults: list[str]) -> None:
    """--persona and --cluster take the full world; only a --personas given beside them contradicts that."""
    only = [name for name in ("persona", "cluster") if values.get(name) not in (None, ())]
    if len(only) == 2:
        faults.append(f"{fields['cluster'].where}: give persona or cluster, not both")
    smaller = only and values.get("personas") not in (None, "all")
    if smaller and fields["personas"].layer >= fields[only[0]].layer:
        faults.append(
            f"{fields['personas'].where}: personas makes a smaller world, {only[0]} selects from the full one; "
            "give only one of the two"
        )
    if only:
        values["personas"] = "all"


def _option_types(
    values: Mapping[str, Any], options_of: OptionsOf, fields: Mapping[str, _Given], faults: list[str]
) -> dict[str, type]:
    types: dict[str, type] = {"protocol": Protocol}
    for target in ("method", "benchmark"):
        if values.get(target):
            try:
                types[target] = options_of(target, values[target])
            except HarnessError as error:
                if not any(fault.endswith(str(error)) for fault in faults):  # a loose file is asked for both
                    faults.append(f"{fields[target].where}: {error}")
    return types


def _without_own_name(key: str, values: Mapping[str, Any]) -> str:
    """An option of the run's own method may be written with its name, as if another stood on it."""
    name, dot, rest = key.partition(".")
    return f"method.{rest}" if dot and name == values.get("method") and name not in TARGETS else key


def _add_required_types(
    options: Sequence[tuple[str, _Given]], types: dict[str, type], options_of: OptionsOf
) -> dict[str, str]:
    """Enter the options dataclass of every method that a key begins with; first part of a key -> why it is none."""
    outer = {name.partition(".")[0] for kind in types.values() for name in option_types(kind)}
    unknown: dict[str, str] = {}
    for key, _ in options:
        name, dot, _ = key.partition(".")
        if dot and name not in {*TARGETS, *outer, *types}:
            try:
                types[name] = options_of("method", name)
            except HarnessError as error:
                unknown[name] = str(error)
    return unknown


def _option_values(
    options: Sequence[tuple[str, _Given]], types: Mapping[str, type], unknown: Mapping[str, str], faults: list[str]
) -> dict[str, dict[str, Any]]:
    """Target -> option name -> value. A later value of the same option replaces an earlier one.

    unknown   first part of a key -> why it names no method
    """
    known = {target: option_types(kind) for target, kind in types.items()}
    # The size of the world is the run's (--personas), also where a benchmark can make a smaller one.
    known.get("benchmark", {}).pop("personas", None)
    filled: dict[str, dict[str, Any]] = {target: {} for target in (*TARGETS, *types)}
    for key, given in options:
        found = _find(key, known)
        if len(found) == 1:
            ((target, name),) = found
            try:
                filled[target][name] = read_value(given.value, known[target][name])
            except ValueError as error:
                faults.append(f"{given.where}: {name} {error}")
        elif found:
            choice = " or ".join(f"{target}.{name}" for target, name in found)
            faults.append(f"{given.where}: '{key}' is ambiguous; write {choice}")
        elif key in _TYPES:
            flag = key.replace("_", "-")
            faults.append(f"{given.where}: '{key}' is a setting of the run: write --{flag}, or '{key}:' in the file")
        elif "method" in known and "benchmark" in known:  # else a key may belong to the one that did not load
            head, dot, rest = key.partition(".")
            own = {head: known[head]} if dot and head in known else {t: known[t] for t in TARGETS if t in known}
            names = [name.rsplit(".", 1)[-1] for target in own.values() for name in target]
            hint = unknown.get(head) or did_you_mean(rest if dot and head in known else key, names)
            faults.append(f"{given.where}: unknown option '{key}'; {hint}")
    return filled


def _find(key: str, known: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(target, option name) pairs that `key` can mean. A plugin's option hides the protocol's field."""
    target, _, rest = key.partition(".")
    if rest and (target in TARGETS or target in known):
        known, key = {target: known.get(target, {})}, rest
    else:
        known = {target: names for target, names in known.items() if target in TARGETS}
    plugins = [target for target in known if target != "protocol"]
    exact = [(target, key) for target in plugins if key in known[target]]
    inner = [(target, name) for target in plugins for name in known[target] if name.endswith("." + key)]
    protocol = [("protocol", key)] if key in known.get("protocol", {}) else []
    return exact or inner or protocol


def _instance(target: str, start: Any, filled: Mapping[str, Any], values: Mapping[str, Any], faults: list[str]) -> Any:
    """The options `start` of a target with the values that are given."""
    if target == "benchmark" and any(item.name == "personas" for item in dataclasses.fields(start)):
        size = values.get("personas")
        if size is not None:
            filled = {**filled, "personas": None if size == "all" else size}
    file = getattr(sys.modules.get(type(start).__module__), "__file__", None)
    try:
        with calling(f"options of {target}", "options", file, passing=(ValueError, TypeError)):
            return fill(start, filled)
    except (ValueError, TypeError, HarnessError) as error:
        whose = f"options of {target} '{values[target]}'" if target in values else f"options of method '{target}'"
        faults.append(f"{'protocol' if target == 'protocol' else whose}: {error}")
        return None
