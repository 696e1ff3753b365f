"""YAML text -> plain values that still know their line and their spelling.

The rules are YAML 1.2's (3e-4 is a number, 1..5, 1:30, on and no are text), which PyYAML's own are not.
Duplicate keys, tags and aliases are refused. What the values mean is decided in `harness.contract.options` and
`harness.config.run_config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from harness.contract import MOST_NESTED, Plain, is_text
from harness.errors import ConfigError

_TAGS = {"tag:yaml.org,2002:" + kind for kind in ("str", "seq", "map")}


@dataclass(frozen=True, slots=True)
class Document:
    """`values`: nested dicts and lists with leaves `Plain` or (quoted) str; `lines`: dotted key -> line.

    An item of a list has its place as key: `methods.0.label`.
    """

    name: str
    values: dict[str, Any]
    lines: Mapping[str, int]

    def where(self, key: str) -> str:
        return f"{self.name}:{self.lines[key]}" if key in self.lines else self.name

    def part(self, key: str, values: dict[str, Any]) -> Document:
        """`values`, the mapping that stands under a dotted key, as a document that still knows its lines."""
        start = key + "."
        lines = {name.removeprefix(start): line for name, line in self.lines.items() if name.startswith(start)}
        return Document(self.name, values, lines)


class _Loader(yaml.BaseLoader):
    """BaseLoader leaves scalars as text; aliases are refused: a small file must not unfold to a huge one.

    So are more levels than anybody writes: everything that reads a document goes down level by level.
    """

    _level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not used here", problem_mark=mark)
        if self._level > MOST_NESTED:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {MOST_NESTED} levels", problem_mark=mark)
        self._level += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._level -= 1


def parse(text: str, name: str) -> Document:
    """Parse one mapping. Raises ConfigError with `name` and every line at fault."""
    root = _compose(text, name)
    lines: dict[str, int] = {}
    faults: list[str] = []
    values = {} if root is None else _value(root, "", lines, faults, name)
    if not isinstance(values, dict):
        faults.append(f"{name}: must be a mapping of keys to values (key: value), not a {type(values).__name__}")
    if faults:
        raise ConfigError("\n".join(faults))
    return Document(name, values, lines)


def parse_value(text: str, name: str) -> Any:
    """Value of `--set key=value`: a list or mapping in brackets as YAML, anything else as `Plain` text."""
    if not is_text(text):
        raise ConfigError(f"{name}: holds bytes that are no UTF-8 text")
    if not text.lstrip().startswith(("[", "{")):
        return Plain(text)
    faults: list[str] = []
    value = _value(_compose(text, name), "", {}, faults, name)
    if faults:
        raise ConfigError("\n".join(faults))
    return value


def _compose(text: str, name: str) -> Any:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{name}{line}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: {error}") from error


def _value(node: yaml.Node, path: str, lines: dict[str, int], faults: list[str], name: str) -> Any:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode) and not is_text(node.value):
        faults.append(f"{name}:{line}: holds half of a surrogate pair, which is no character")
    if node.tag not in _TAGS:
        faults.append(f"{name}:{line}: tag {node.tag} is not used here; write the plain value")
    if isinstance(node, yaml.SequenceNode):
        items = []
        for place, item in enumerate(node.value):
            key = f"{path}.{place}" if path else str(place)
            lines[key] = item.start_mark.line + 1
            items.append(_value(item, key, lines, faults, name))
        return items
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style else Plain(node.value)
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key_line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            faults.append(f"{name}:{key_line}: a key must be plain text")
            continue
        key = path + "." + key_node.value if path else key_node.value
        if key_node.value in values:
            faults.append(f"{name}:{key_line}: '{key}' is given twice, first in line {lines[key]}; keep one")
            continue
        lines[key] = key_line
        values[key_node.value] = _value(value_node, key, lines, faults, name)
    return values
