"""The persona's most similar train turns in the prompt of the unified model, found by BM25 or by embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from harness import Message, MethodCard, Prompt, hookimpl
from harness.model import with_system_text

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    """What is looked up, and before which model.

    k       train turns (what the user said, what the assistant replied) that are shown
    search  "bm25" (Robertson and Zaragoza 2009, by the bm25s library) or "embeddings" (cosine, all-MiniLM-L6-v2)
    on      the fitted method that gets the longer prompt, e.g. "persona_prefix"
    """

    k: Annotated[int, Field(ge=1)] = 2
    search: Literal["bm25", "embeddings"] = "bm25"
    on: str = "unified"


@hookimpl
def card() -> MethodCard:
    return MethodCard("similar train turns in the prompt", Options, requires=("{on}",), shares="persona")


@hookimpl
def fit(study: Study) -> Fitted:
    turns = {p.id: _turns(study, p.id) for p in study.personas}
    scorers: dict[str, Callable[[str], np.ndarray]] = {}

    def with_turns(prompt: Prompt) -> tuple[Message, ...]:
        if not (known := turns.get(prompt.persona)):
            return prompt.messages
        if prompt.persona not in scorers:
            scorers[prompt.persona] = _scorer(study, study.options.search, [said for said, _ in known])
        places = np.argsort(-scorers[prompt.persona](prompt.messages[-1].text), kind="stable")[: study.options.k]
        lines = [f"earlier: {known[i][0]} -> {known[i][1]}" for i in places]
        return with_system_text(prompt.messages, "\n".join(lines))

    return study.fitted(study.options.on).with_messages(with_turns)


def _turns(study: Study, persona: str) -> list[tuple[str, str]]:
    """(what the user said, what the assistant replied) of a persona's train dialogues."""
    pairs = [pair for d in study.dialogues(persona, "train") for pair in pairwise(d.messages)]
    return [(said.text, reply.text) for said, reply in pairs if (said.role, reply.role) == ("user", "assistant")]


def _scorer(study: Study, search: str, texts: list[str]) -> Callable[[str], np.ndarray]:
    """question -> how similar each text is to it."""
    if search == "embeddings":
        vectors = study.embed(texts)
        return lambda question: vectors @ study.embed([question])[0]
    import bm25s  # here, so that listing methods does not wait for it

    said = bm25s.tokenize(texts, stopwords=[], show_progress=False)
    if not any(said.ids):  # pyright: ignore[reportAttributeAccessIssue]
        return lambda question: np.zeros(len(texts))  # words have two letters or more: "?" and "5" have none
    index = bm25s.BM25()
    index.index(said, show_progress=False)

    def bm25(question: str) -> np.ndarray:
        words = bm25s.tokenize([question], stopwords=[], return_ids=False, show_progress=False)
        asked = [str(word) for word in words[0]]  # pyright: ignore[reportIndexIssue]
        return index.get_scores(asked) if asked else np.zeros(len(texts))

    return bm25
