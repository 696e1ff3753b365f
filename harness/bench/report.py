"""Figures as JSON and as markdown: what was measured, where, with what, and how much it varied. No measuring here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.errors import HarnessError
from harness.store import hardware, versions


def heading(command: str, settings: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Where, when and with what."""
    return {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
        "hardware": hardware(device),
        "settings": dict(settings),
    }


def heading_text(table: Mapping[str, Any]) -> str:
    """One paragraph of it."""
    hardware, versions, settings = table["hardware"], table["versions"], table["settings"]
    where = f"{hardware['processor']}, {hardware['cores']} cores"
    if hardware.get("memory_bytes"):
        where += f", {hardware['memory_bytes'] / 2**30:.0f} GiB"
    where += f", {hardware['accelerator']}" if hardware.get("accelerator") else ""
    libraries = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "transformers", "peft"))
    chosen = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items() if name != "repeats")
    repeats = settings["repeats"]
    how = "One repeat." if repeats == 1 else f"Medians of {repeats} repeats, all ways in turn, [least, largest]."
    return f"`{table['command']}`, {table['date']}: {where}; {libraries}. {chosen}. {how}"


def train_text(table: Mapping[str, Any]) -> str:
    """The tables of `bench train` in markdown."""
    parts = [heading_text(table)]
    if table["ways"]:
        parts.append(_markdown([_way_line(row) for row in table["ways"]]))
        scaled = [row for row in table["ways"] if row["measured_on"] < row["personas"]]
        notes = ["Seconds run from loading the model to saved adapters; imports are not counted."]
        if scaled:
            some = ", ".join(f"`{row['way']}` on {row['measured_on']}" for row in scaled)
            notes.append(f"Measured on some of the personas and scaled by dialogues: {some}.")
        count = table["ways"][0]["loss_of_personas"]
        notes.append(f"Validation losses (nats a token): mean of the same {count} personas for all ways.")
        notes += [_equal_line(row) for row in table["equality"]]
        if table["settings"]["dtype"] == "float64":
            notes.append("In float64 the model's norms are computed in float64, too, which transformers does not do.")
        parts.append(" ".join(notes))
    ours = next((row for row in table["ways"] if row["way"] == "bank"), None)
    if table.get("memory") and ours:
        peak = ours["device_peak_bytes"] or ours["peak_bytes"] - ours["before_bytes"]
        parts.append(
            f"Memory of `bank`: estimated {table['memory']['total'] / 1e9:.2f} GB, measured {peak / 1e9:.2f} GB "
            "(on a CPU: what the process grew by, files being read included)."
        )
    if table["sizes"]:
        parts.append("Numbers of adapters:\n\n" + _markdown([_size_line(row) for row in table["sizes"]]))
    if table["ladder"]:
        people = table["ladder"][0]["personas"]
        parts.append(
            f"The ladder: techniques switched on alone, then one after the other ({people} personas, "
            "a separate loop):\n\n" + _markdown([_rung_line(row) for row in table["ladder"]])
        )
    return "\n\n".join(parts) + "\n"


def generate_text(table: Mapping[str, Any]) -> str:
    """The table of `bench generate` in markdown."""
    lines = []
    for row in table["ways"]:
        equal, slower = row["equal_to_one_by_one"], row["times_slower_than_bank"]
        lines.append({
            "adapters": row["adapters"],
            "way": f"`{row['way']}`",
            "replies/s": _spread(row["replies_per_second"], 1),
            f"seconds for {row['replies']:,} replies": _spread(row["seconds"], 1),
            "times slower than `bank`": _spread(slower, 2) if slower else "",
            "target": f">= {row['asked']:g}" if row["asked"] else "",
            "new tokens/s": _spread(row["new_tokens_per_second"], 0),
            "setup, s": f"{row['setup_seconds']:.1f}",
            "peak memory": _gigabytes(row),
            "equal to `batch_1`": f"{equal['equal']:,} of {equal['of']:,}" if equal else "",
        })  # fmt: skip
    scaled = [row for row in table["ways"] if row["measured_on"] < row["replies"]]
    some = ", ".join(f"`{row['way']}` ({row['adapters']}) on {row['measured_on']}" for row in scaled)
    notes = ["Seconds are of decoding; loading model and adapters is `setup`."]
    notes += [f"Measured on some of the replies, evenly spread, and scaled by their number: {some}."] if some else []
    return "\n\n".join([heading_text(table), _markdown(lines), " ".join(notes)]) + "\n"


def scale_text(table: Mapping[str, Any]) -> str:
    """The tables of `bench scale` in markdown, and its targets."""
    parts = [heading_text(table)]
    if table["stores"]:
        parts.append(_markdown([_store_line(row) for row in table["stores"]]))
        parts.append(
            "Bytes are those of one person: an adapter, and the sums of one run. `open` is the median time to read one "
            "adapter from the disk; `write` and `read` are the times for one run's sums. `list` and `compare` are "
            "whole commands: wall-clock seconds (in brackets: processor seconds) and peak memory."
        )
    if table["fits"]:
        parts.append("Fits:\n\n" + _markdown([_fit_line(row) for row in table["fits"]]))
    if table["fit_slope"] is not None:
        parts.append(f"Time grows with the number of people to the power of {table['fit_slope']:.2f} (1: linear).")
    if table["targets"]:
        wrong = [f"{one['what']} of {one['people']:,} people" for one in table["targets"] if not one["met"]]
        parts.append(f"Targets missed: {'; '.join(wrong)}." if wrong else "All targets are met.")
    return "\n\n".join(parts) + "\n"


def _store_line(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "people": f"{row['people']:,}",
        "bytes, adapter": f"{row['adapter_bytes_a_person']:,.0f}",
        "bytes, sums": f"{row['result_bytes_a_person']:,.1f}",
        "open, ms": f"{1000 * row['open_seconds']:.1f} ({1000 * row['open_cpu_seconds']:.1f})",
        "write, s": f"{row['write_results_seconds']:.2f}",
        "read, s": f"{row['read_results_seconds']:.2f}",
        "`list runs`": _command_cell(row, "list"),
        f"`compare` of {row['methods']}": _command_cell(row, "compare"),
    }


def _command_cell(row: Mapping[str, Any], name: str) -> str:
    seconds, cpu = row[f"{name}_seconds"], row[f"{name}_cpu_seconds"]
    return f"{seconds:.1f} s ({cpu:.1f} s), {row[f'{name}_peak_bytes'] / 1e9:.2f} GB"


def _fit_line(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "people": f"{row['people']:,}",
        "seconds": f"{row['seconds']:.1f} ({row['cpu_seconds']:.1f})",
        "people/s": f"{row['people_per_second']:.1f}",
        "tokens/s": f"{row['tokens_per_second']:,.0f}",
        "peak memory": _gigabytes(row),
    }


def _way_line(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "way": f"`{row['way']}`",
        "seconds": _spread(row["seconds"], 1 if row["seconds"]["median"] >= 10 else 2),
        "times slower than": f"`{row['against']}`: {_spread(row['times_faster'], 2)}" if row["against"] else "",
        "target": f">= {row['asked']:g}" if row["asked"] else "",
        "steps": f"{row['steps']:,}",
        "epochs": f"{row['epochs']:.1f}",
        "real tokens/s": _spread(row["tokens_per_second"], 0),
        "padding": f"{row['padding']:.0%}",
        "peak memory": _gigabytes(row),
        "validation loss": f"{row['validation_loss']:.6f}",
    }


def _size_line(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "adapters": str(row["adapters"]),
        "`bank`, s": _spread(row["bank_seconds"], 2),
        "`plain_loop`, s": _spread(row["plain_loop_seconds"], 2),
        "times faster": _spread(row["times_faster"], 2),
        "target": f">= {row['asked']:.2f}" if row["asked"] else "",
        "padding": f"{row['padding']:.0%}",
        "peak memory of `bank`": f"{row['bank_peak_bytes'] / 1e9:.2f} GB",
    }


def _rung_line(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "techniques": row["techniques"].replace("+", " + "),
        "seconds": _spread(row["seconds"], 2),
        "times faster than none": _spread(row["times_faster"], 2) if row["times_faster"] else "",
        "steps": f"{row['steps']:,}",
        "padding": f"{row['padding']:.0%}",
        "peak memory": f"{row['peak_bytes'] / 1e9:.2f} GB",
        "validation loss": f"{row['validation_loss']:.6f}",
    }


def _equal_line(row: Mapping[str, Any]) -> str:
    ours, theirs = row["ways"]
    return (
        f"Adapters of `{ours}` and `{theirs}` differ by {row['largest_difference']:.1e} at most "
        f"(largest value {row['largest_value']:.1f})."
    )


def _gigabytes(row: Mapping[str, Any]) -> str:
    text = f"{row['peak_bytes'] / 1e9:.2f} GB"
    return text + (f" + {row['device_peak_bytes'] / 1e9:.2f} GB" if row.get("device_peak_bytes") else "")


def _spread(values: Mapping[str, float], digits: int) -> str:
    middle = f"{values['median']:,.{digits}f}"
    if values["min"] == values["max"]:
        return middle
    return f"{middle} [{values['min']:,.{digits}f}, {values['max']:,.{digits}f}]"


def _markdown(lines: Sequence[Mapping[str, str]]) -> str:
    keys = [key for key in lines[0] if any(line[key] for line in lines)]
    return tabulate(
        [[line[key] for key in keys] for line in lines], headers=keys, tablefmt="github", disable_numparse=True
    )


def replace_block(file: Path, name: str, text: str) -> None:
    """Put text between `<!-- begin: NAME -->` and `<!-- end: NAME -->` of a file; a new file gets the block alone.

    Raises HarnessError for a file without these marks, which may be somebody's own.
    """
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    block = f"{begin}\n{text.strip()}\n{end}"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block + "\n", encoding="utf-8")
        return
    old = file.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if len(pattern.findall(old)) != 1:
        raise HarnessError(f"--output {file}: write the lines '{begin}' and '{end}' once where the tables shall stand")
    file.write_text(pattern.sub(lambda _: block, old), encoding="utf-8")
