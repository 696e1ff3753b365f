"""Metrics of device settings: a schema of devices, a parser that reads replies against it, and what counts as right.

A data set that asks for them has `schema=`, a tuple of `Device`; `DEVICES` are those of EdgeWisePersona.
"""

from __future__ import annotations

import math

from harness import ConfigError, Metric, MetricBatch, hookimpl
from harness.statistics import f1, precision, recall

from .actions import KINDS, count_actions
from .home import DEVICES as DEVICES
from .schema import Device as Device, Parameter as Parameter
from .settings import parse

_WHAT = {
    "device": "devices named",
    "parameter": "device parameters that are set, whatever to",
    "numeric": "numeric settings, the number exactly right",
    "categorical": "settings by word or yes/no, exactly right",
}
_COUNTS = {kind: (f"{kind}_tp", f"{kind}_fp", f"{kind}_fn") for kind in KINDS}


@hookimpl
def metrics() -> list[Metric]:
    exact = "all device settings exactly as in the reference, of references that make any"
    return [
        Metric("settings_exact", exact, _settings_exact, needs=("schema",)),
        *(
            Metric(
                f"{kind}_{figure.__name__}",
                f"{figure.__name__} of {_WHAT[kind]}; counts pooled",
                _actions,
                needs=("schema",),
                columns=_COUNTS[kind],
                figure=figure,
                group="actions",
            )
            for kind in KINDS
            for figure in (precision, recall, f1)
        ),
    ]


def _settings_exact(batch: MetricBatch) -> dict[str, list[float]]:
    schema, values = _schema(batch), []
    for reply, reference in batch.pairs():
        # Which replies count must not depend on the method: those whose reference makes a setting.
        wanted, got = (dict(parse(text, schema).values) for text in (reference, reply))
        values.append(float(got == wanted) if wanted else math.nan)
    return {"settings_exact": values}


def _actions(batch: MetricBatch) -> dict[str, list[float]]:
    schema = _schema(batch)
    columns: dict[str, list[float]] = {column: [] for kind in KINDS for column in _COUNTS[kind]}
    for reply, reference in batch.pairs():
        for kind, counts in count_actions(reply, reference, schema).items():
            for column, count in zip(_COUNTS[kind], counts, strict=True):
                columns[column].append(float(count))
    return columns


def _schema(batch: MetricBatch) -> tuple[Device, ...]:
    schema = batch.dataset.schema
    if not isinstance(schema, tuple) or not all(isinstance(device, Device) for device in schema):
        raise ConfigError(f"metrics of device settings need a tuple of Device as schema; {batch.dataset.name} has none")
    return schema
