"""What a backbone can do before anything is fitted: follow stated settings, and read them off a profile.

    python tests/scripts/abilities.py NAME_OR_FOLDER

Measured on simulated personas that no recipe has seen (world seed 424242), with the whole profile in the system
message and true history. The figures go into the model card.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

from harness.benchmarks.devices.settings import parse
from harness.benchmarks.smarthome import Options, load, make
from harness.engines import engine_for
from harness.model.backbone import load_backbone
from harness.model.prompts import encode_prompt, end_of_turn_id, split_examples

UNSEEN = Options(personas=40, world_seed=424242, describe="facts", profile=True, dialogues=(0, 0, 5), own=1.0)


def measure(name: str) -> dict[str, float | int]:
    """Share of replies whose parsed settings are exactly right, by where the settings stand."""
    backbone = load_backbone(name)
    dataset = load(UNSEEN)
    _, made = make(UNSEEN)
    kinds = {
        f"{persona}/{number:02d}#{depth}": turn.kind
        for persona, owned in made.items()
        for number, conversation in enumerate(owned)
        for depth, turn in enumerate(conversation.turns)
    }
    asked = split_examples(replace(dataset), "test")
    ids = [encode_prompt(backbone.tokenizer, e.prompt.messages, dataset.protocol.max_prompt_tokens)[0] for e in asked]
    tokens = engine_for(backbone)[0].replies(
        None, [-1] * len(ids), ids, max_new_tokens=64, stop_id=end_of_turn_id(backbone.tokenizer)
    )
    right: dict[str, list[bool]] = {}
    for example, reply in zip(asked, tokens, strict=True):
        text = backbone.tokenizer.decode(reply, skip_special_tokens=True)
        same = parse(text, dataset.schema).values == parse(example.reference, dataset.schema).values
        right.setdefault(kinds[example.prompt.id], []).append(bool(same))
    return {
        "stated": round(sum(right["explicit"]) / len(right["explicit"]), 4),
        "stated_replies": len(right["explicit"]),
        "profile": round(sum(right["usual"]) / len(right["usual"]), 4),
        "profile_replies": len(right["usual"]),
        "partly_stated": round(sum(right["partial"]) / len(right["partial"]), 4),
        "partly_stated_replies": len(right["partial"]),
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1]), indent=2))
