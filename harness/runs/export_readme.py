"""The README of exported adapters: whose they are, and code that loads them and asks for a reply."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PureWindowsPath

from harness.model import Backbone, catalogue, embedded_names, end_of_turn_id
from harness.runs.record import RunRecord
from harness.text import as_lines, code, one_line

MODEL, PERSONAS, TEMPLATE = "model", "personas.json", "chat_template.jinja"  # of an exported folder
_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")  # AutoTokenizer may take another class in their place
_VIRTUAL = ("PROMPT_TUNING", "PREFIX_TUNING")
_VLLM = """\
vLLM serves no soft prompts or prefixes ([issue 13981](https://github.com/vllm-project/vllm/issues/13981)); it does
serve LoRAs. This export does not turn a soft prompt into a LoRA. To serve with vLLM, run a method that fits LoRAs and
export that run."""
_CONTEXT = """\
The prompts of the run held the system text above and, where a dialogue has a context, a line `Context: ...` below it;
where personas are described to the model, their description too."""
_PADDING = """\
Ask for one reply at a time: with left padding PEFT's prompt tuning gives other results than without."""
_ADDS_TEXT = """\
The method also adds text to the prompts of a persona. That text is not in this folder: without it the replies differ
from those that were scored."""
_CHOICES = """\
In the run the reply was the most likely of these choices, not free text: {}."""


def python_block(lines: Sequence[str]) -> str:
    """Lines of Python as a block of markdown; none begins with a backtick, so nothing in them ends it."""
    return f"```python\n{as_lines(lines)}\n```"


def literal(text: str) -> str:
    """A text as Python writes it, in double quotes."""
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True)
class Base:
    """The bare backbone, for people and for code.

    shown  its name as PEFT's files have it;  lines: of Python, which set BASE
    """

    shown: str
    lines: tuple[str, ...]


def base_named(record: RunRecord) -> Base:
    """What the backbone of a run is called where there is no harness, or how it is made."""
    name = record.config.backbone
    known = catalogue().get(name)
    if name in embedded_names():
        lines = ("from harness.model import EMBEDDED_FOLDER  # this backbone ships with the harness", "")
        return Base(name, (*lines, f"BASE = EMBEDDED_FOLDER / {literal(name)}"))
    if (known and known.package) or name.lower().endswith(".gguf"):
        folder = PureWindowsPath(name).stem if name.lower().endswith(".gguf") else name
        made = f"BASE = {literal(folder)}  # harness backbone get {one_line(name)} --output {one_line(folder)}"
        return Base(folder, ("", made))
    hub = known.hub if known else name
    return Base(hub, ("", f"BASE = {literal(hub)}  # Hub id, or a folder of yours"))


@dataclass(frozen=True)
class AdapterReadme:
    """How an exported folder is used.

    top      the backbone that the adapters stand on
    form     "peft" or "merged"
    below    adapters that are merged into the base first
    persona  of the example;  kind: PEFT's name of the adapters' kind, empty for a model that they are merged into
    """

    record: RunRecord
    top: Backbone
    form: str
    below: int
    persona: str
    merges: bool
    kind: str

    def text(self) -> str:
        """README.md."""
        parts = [f"# {one_line(self.record.method)} on {one_line(self.record.config.backbone)}", self._what()]
        parts += ["## Use", python_block(self._code()), *self._remarks()]
        return "\n\n".join(parts) + "\n"

    def _what(self) -> str:
        record = self.record
        made = (
            f"Exported by `harness export` from the run `{record.id}` (benchmark {code(record.benchmark.name)}, seed "
        )
        lines = [f"{made}{record.seed})."]
        if self.form == "merged" and self.merges:
            lines.append(f"`{MODEL}/` is the backbone with the persona's LoRA and its base merged into it.")
        elif self.form == "merged":
            lines.append(
                f"`{MODEL}/` is the backbone with the base of the personas' adapters merged into it; "
                f"`adapters/` holds the personas' adapters on that model ({self.kind})."
            )
        else:
            lines.append(f"`adapters/` holds a folder in PEFT's format for each adapter ({self.kind}).")
        if self.form == "peft" and self.below:
            lines.append(
                "They need the base model with the adapters in `below/` merged into it. On the bare base model they "
                "load without an error, but the replies are nonsense."
            )
        return " ".join([*lines, f"`{PERSONAS}` says which folder serves which persona."])

    def _code(self) -> list[str]:
        generic = type(self.top.tokenizer).__name__ in _GENERIC
        tokenizer = "PreTrainedTokenizerFast" if generic else "AutoTokenizer"
        dtype = str(self.top.dtype).removeprefix("torch.")
        own = self.form == "merged"
        uses_peft = not (own and self.merges)
        base = ("", f"BASE = HERE / {literal(MODEL)}") if own else base_named(self.record).lines
        lines = ["import json", "from pathlib import Path", ""]
        lines += ["from peft import PeftModel"] if uses_peft else []
        lines += [f"from transformers import AutoModelForCausalLM, {tokenizer}"]
        lines += [line for line in base[:-1] if line]
        lines += ["", 'HERE = Path(".")  # the folder of this file', base[-1], f"PERSONA = {literal(self.persona)}", ""]
        lines += [f"tokenizer = {tokenizer}.from_pretrained(BASE)"]
        lines += [] if own else [f'tokenizer.chat_template = (HERE / "{TEMPLATE}").read_text(encoding="utf-8")']
        lines += [f'model = AutoModelForCausalLM.from_pretrained(BASE, dtype="{dtype}")']
        if not own:
            merging = 'model = PeftModel.from_pretrained(model, HERE / "below" / "{}").merge_and_unload()'
            lines += [merging.format(number) for number in range(1, self.below + 1)]
        if uses_peft:
            lines += [f'folder = json.loads((HERE / "{PERSONAS}").read_text(encoding="utf-8"))[PERSONA]']
            lines += ["model = PeftModel.from_pretrained(model, HERE / folder)"]
        return [*lines, "model.eval()", "", *self._reply()]

    def _reply(self) -> list[str]:
        system = str(self.record.protocol.get("system") or "")
        thinking = ", enable_thinking=False" if "enable_thinking" in str(self.top.tokenizer.chat_template) else ""
        tokens = int(self.record.protocol.get("max_new_tokens") or 64)
        end = end_of_turn_id(self.top.tokenizer)
        lines = ["messages = ["]
        lines += [f'    {{"role": "system", "content": {literal(system)}}},'] if system else []
        return [
            *lines,
            '    {"role": "user", "content": "Good evening."},',
            "]",
            'asked = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}',
            f"prompt = tokenizer.apply_chat_template(messages, **asked{thinking})",
            f"tokens = model.generate(**prompt, max_new_tokens={tokens}, do_sample=False, eos_token_id={end})",
            'reply = tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)',
            "print(reply)",
        ]

    def _remarks(self) -> list[str]:
        remarks = [_CONTEXT]
        if self.kind in _VIRTUAL:
            remarks += [_PADDING, _VLLM]
        if self.record.adds_text:
            remarks.append(_ADDS_TEXT)
        if choices := self.record.protocol.get("choices"):
            remarks.append(_CHOICES.format(", ".join(code(str(choice)) for choice in choices)))
        if (control := self.record.config.control) is not None:
            remarks.append(f"The run is a control ({code(control)}): its adapters are not meant to be used.")
        return ["## Mind", *remarks]
