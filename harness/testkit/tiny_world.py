"""For the tests of plugin authors: a world of a few people and a small random backbone, both made in milliseconds.

Nothing here is a benchmark: the figures mean nothing, only whether they stay or change. What a plugin must keep is
checked on them by `harness.testkit.conformance`.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from harness.contract import SPLITS, Dataset, Dialogue, Message, Persona, Prompt, Protocol, Split

DIALOGUES: dict[Split, int] = {"train": 3, "validation": 2, "test": 1}  # per persona
TURNS = 2  # replies in a dialogue
_WORDS = (
    *("stove", "oven", "fan", "tea", "jazz", "news", "sofa", "door"),
    *("red", "blue", "warm", "cool", "loud", "soft", "five", "nine"),
)
_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

_LLAMA_SIZES = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 128, "tie_word_embeddings": False,
}  # fmt: skip
_SIZES: dict[str, dict[str, Any]] = {"gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128}}


def tiny_dataset(clusters: int = 2, per_cluster: int = 2) -> Dataset:
    """People in clusters, each with a description and dialogues of two turns in every split; always the same.

    The last reply of a test dialogue is a word that nobody could guess and that stands nowhere else.
    """
    personas = tuple(
        Persona(f"person_{c}{i}", _phrase(f"about {c} {i}", 4), c) for c in range(clusters) for i in range(per_cluster)
    )
    dialogues = tuple(d for p in personas for split in SPLITS for d in _dialogues(p.id, split, DIALOGUES[split], ""))
    protocol = Protocol(system="Answer.", max_new_tokens=6, max_prompt_tokens=400)
    return Dataset("people made for tests", personas, dialogues, protocol, ("exact_match",))


def reworded(
    dataset: Dataset, personas: Collection[str], splits: Sequence[Split] = ("train", "validation"), salt: str = "other"
) -> Dataset:
    """The same people, but these have said other things in these splits, in one dialogue less.

    Their descriptions change with their train dialogues.
    """
    kept = [d for d in dataset.dialogues if not (d.persona in personas and d.split in splits)]
    new = [d for p in personas for split in splits for d in _dialogues(p, split, DIALOGUES[split] - 1, salt)]
    order = {p.id: i for i, p in enumerate(dataset.personas)}
    people = [
        replace(p, description=_phrase(f"{salt} {p.id}", 5)) if p.id in personas and "train" in splits else p
        for p in dataset.personas
    ]
    # Stable: the data set keeps its order of persons, whoever has changed.
    dialogues = sorted([*kept, *new], key=lambda d: (order[d.persona], SPLITS.index(d.split), d.id))
    return replace(dataset, personas=tuple(people), dialogues=tuple(dialogues))


def with_other_references(dataset: Dataset) -> Dataset:
    """The same prompts with other last replies to be predicted: nothing that a method may see is different."""

    def changed(dialogue: Dialogue) -> Dialogue:
        if dialogue.split != "test":
            return dialogue
        return replace(
            dialogue, messages=(*dialogue.messages[:-1], Message("assistant", _secret(dialogue.id, "other")))
        )

    return replace(dataset, dialogues=tuple(map(changed, dataset.dialogues)))


def newcomer_prompts(dataset: Dataset, persona: str = "newcomer") -> list[Prompt]:
    """Prompts of somebody who is not among the data set's people, and of whom nothing else is known."""
    from harness.model import split_examples

    stranger = replace(
        dataset,
        personas=(Persona(persona),),
        dialogues=tuple(_dialogues(persona, "test", DIALOGUES["test"], "")),
    )
    return [example.prompt for example in split_examples(stranger, "test")]


def tiny_backbone(dtype: str = "float64", seed: int = 0) -> Any:
    """A fresh, random Qwen2 of one layer with a byte-level tokenizer: any text, one token a byte.

    Double precision by default, so that what does not depend on each other agrees to the last digits.
    Returns a `harness.model.backbone.Backbone`.
    """
    return random_backbone(_tokenizer(), dtype=dtype, seed=seed, num_hidden_layers=1, max_position_embeddings=1024)


def random_backbone(
    tokenizer: Any,
    *,
    architecture: str = "qwen2",
    dtype: str = "float64",
    seed: int = 0,
    spread: float = 0.3,
    **sizes: Any,
) -> Any:
    """A fresh, random model of a few thousand weights; the same for the same arguments.

    tokenizer     has len(), pad_token_id and eos_token_id; the model's vocabulary is as large
    architecture  a model type of transformers: "qwen2", "llama", "gpt2", ...
    spread        standard deviation of the weights; wider than usual, since a random model with small weights is
                  nearly linear and says one thing to everybody
    sizes         fields of the model's configuration that differ from the small ones here
    Returns a `harness.model.Backbone`.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from harness.model import DTYPES, freeze

    ends = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = AutoConfig.for_model(architecture, **{**ends, **_SIZES.get(architecture, _LLAMA_SIZES), **sizes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0.0, spread)
    return freeze("random", model.to(DTYPES[dtype]), tokenizer)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    controls = ["<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    core.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    core.add_special_tokens(controls)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|pad|>", eos_token="<|end|>", additional_special_tokens=controls[2:],
        chat_template=_TEMPLATE,
    )  # fmt: skip


def _dialogues(persona: str, split: Split, count: int, salt: str) -> list[Dialogue]:
    made = []
    for number in range(count):
        name = f"{persona}/{split}/{number}"
        messages: list[Message] = []
        for turn in range(TURNS):
            messages.append(Message("user", _phrase(f"{salt} asks {name} {turn}", 3)))
            messages.append(Message("assistant", _phrase(f"{salt} says {persona} {number} {turn}", 2)))
        if split == "test":
            messages[-1] = Message("assistant", _secret(name, salt))
        context = (("hour", str(random.Random(name).randrange(24))),)
        made.append(Dialogue(name, persona, split, tuple(messages), context))
    return made


def _phrase(seed: str, words: int) -> str:
    return " ".join(random.Random(seed).choices(_WORDS, k=words))


def _secret(dialogue: str, salt: str) -> str:
    return f"{random.Random(f'{salt} secret {dialogue}').getrandbits(64):016x}"
