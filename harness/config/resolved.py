"""A checked configuration -> YAML that gives the same configuration again. Reading is `run_config`."""

from __future__ import annotations

import yaml

from harness.config.run_config import SETTINGS, RunConfig
from harness.contract import option_values, plain


def device_of(name: str) -> str:
    """The device that a setting means: "auto" is the GPU where there is one."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def config_yaml(config: RunConfig) -> str:
    """Every setting and every option with its value, as a file for --config; options are dotted and have a target."""
    values = config.as_dict()
    targets = {"method": config.method_options, "benchmark": config.benchmark_options, **config.required_options}
    options = {
        f"{target}.{name}": value
        for target, given in targets.items()
        if given is not None
        for name, value in option_values(given).items()
        if (target, name) != ("benchmark", "personas")  # the run's own setting
    }
    options |= {f"protocol.{name}": value for name, value in plain(config.protocol).items()}
    chosen = {name: values[name] for name in SETTINGS}
    if config.persona or config.cluster is not None:  # they pick from the full world, which nobody has asked for
        chosen["personas"] = None
    return yaml.safe_dump({**chosen, "set": options}, sort_keys=False, allow_unicode=True)
