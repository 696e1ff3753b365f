"""Predictors that need no language model, for every benchmark of real people: what a method should beat.

`Dataset.yardsticks` is one of the functions at the end of this file, (data set, sentence embeddings) -> yardsticks:
`rating_yardsticks` for numbers, `choice_yardsticks` for a closed set of words, `text_yardsticks` for free text,
`worded_choice_yardsticks` for texts that begin with a choice. "Train" is the train split alone, as for methods.
Legend: U people, I items, C classes, r rank.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness import Dataset, Yardstick
from harness.contract import TextEmbedder
from harness.model import split_examples

EVERYBODY, OWN, CONSENSUS = "everybody's constant", "the person's base rate", "the item's consensus"
OFFSET, FACTORS = "consensus and person", "matrix factorisation"
KNOWN = "all answers of others to all items, and the person's train answers"
TYPICAL, NEAREST = "the person's typical reply", "the nearest earlier reply"
FOLDS = 10  # of people, whose test answers are hidden from the factorisation together
RANKS, RIDGES = (0, 1, 2, 4), (2.0, 8.0)
SWEEPS = 12  # alternations of the factorisation
Labels = Mapping[str, str]  # prompt id -> label


@dataclass(frozen=True, slots=True)
class _Said:
    """One answer. label: the choice in it; asked: the last thing that the user said."""

    prompt: str
    person: str
    item: str
    split: str
    label: str
    asked: str
    reply: str


class _World:
    """All answers of a data set, and the figures that the yardsticks share."""

    def __init__(self, dataset: Dataset, label: Callable[[str], str] = str.strip) -> None:
        items = {dialogue.id: dialogue.item for dialogue in dataset.dialogues}
        self.said = [
            _Said(
                e.prompt.id, e.prompt.persona, items[e.prompt.id.rpartition("#")[0]], split, label(e.reference),
                e.prompt.messages[-1].text, e.reference,
            )
            for split in ("train", "validation", "test")
            for e in split_examples(dataset, split)
        ]  # fmt: skip
        self.train = [one for one in self.said if one.split == "train"]
        self.test = [one for one in self.said if one.split == "test"]
        self.labels = list(dataset.protocol.choices) or sorted({one.label for one in self.said if one.label})
        self.of_person: dict[str, list[_Said]] = defaultdict(list)
        for one in self.train:
            self.of_person[one.person].append(one)
        self.on_item: dict[str, list[_Said]] = defaultdict(list)
        for one in self.said:
            if one.item:
                self.on_item[one.item].append(one)

    def others(self, one: _Said) -> list[_Said]:
        """What other people answered to the same item, in whichever split."""
        return [other for other in self.on_item.get(one.item, ()) if other.person != one.person]

    @property
    def shared(self) -> int:
        """How many test answers are on items that somebody else answered, too."""
        return sum(bool(self.others(one)) for one in self.test)

    def each(self, label: Callable[[_Said], str]) -> Labels:
        """Prompt id -> label, of all test answers."""
        return {one.prompt: label(one) for one in self.test}

    def coverage(self) -> str:
        known = "all" if self.shared == len(self.test) else f"{self.shared} of"
        return f"others answered the items of {known} {len(self.test)} test answers"


# ---- the decisions: labels by prompt id ----


def _ratings(world: _World) -> list[tuple[str, str, Labels]]:
    """(name, knows, labels): of numbers, medians, and sums rounded to the nearest choice."""
    values = np.array([float(label) for label in world.labels])
    every = _median(one.label for one in world.train)
    own = {person: _median(one.label for one in said) for person, said in world.of_person.items()}

    def nearest(value: float) -> str:
        return world.labels[int(np.abs(values - value).argmin())]

    offset = _offsets(world)
    middle = float(np.mean([float(one.label) for one in world.train]))

    def with_offset(one: _Said) -> str:
        others = [float(o.label) for o in world.others(one)]
        return nearest((float(np.mean(others)) if others else middle) + offset.get(one.person, 0.0))

    factors = _factorised(world, np.array([[float(one.label)] for one in world.said]))
    return [
        (EVERYBODY, "the median of all train answers", world.each(lambda one: every)),
        (OWN, "the median of the person's train answers", world.each(lambda one: own.get(one.person, every))),
        (
            CONSENSUS,
            f"the median of what all others answered to the item; {world.coverage()}",
            world.each(lambda one: _median(o.label for o in world.others(one)) or every),
        ),
        (OFFSET, "their mean, and how far the person lies from others, shrunken", world.each(with_offset)),
        (FACTORS, KNOWN, world.each(lambda one: nearest(factors[one.prompt][0]))),
    ]


def _choices(world: _World) -> list[tuple[str, str, Labels]]:
    """The same of words: the most frequent, and products of frequencies."""
    order = {label: place for place, label in enumerate(world.labels)}
    counted = Counter(one.label for one in world.train if one.label in order)
    total = sum(counted.values()) or 1
    prior = np.array([(counted[label] + 1) / (total + len(order)) for label in world.labels])

    def shares(said: Iterable[_Said]) -> NDArray[np.float64]:
        """[C] frequencies, with everybody's as two answers beside."""
        found = Counter(one.label for one in said if one.label in order)
        counts = np.array([found[label] for label in world.labels], dtype=float)
        return (counts + 2 * prior) / (counts.sum() + 2)

    def most_frequent(said: Iterable[_Said]) -> str:
        """Of equals the one that everybody gives more often."""
        found = Counter(one.label for one in said if one.label in order)
        return max(world.labels, key=lambda label: (found[label], counted[label], -order[label]))

    every = most_frequent(world.train)
    own = {person: shares(said) for person, said in world.of_person.items()}
    there = {one.prompt: shares(world.others(one)) for one in world.test}

    def both(one: _Said) -> str:
        return world.labels[int((there[one.prompt] * own.get(one.person, prior) / prior).argmax())]

    factors = _factorised(world, np.array([[float(o.label == label) for label in world.labels] for o in world.said]))
    return [
        (EVERYBODY, "the most frequent choice of all train answers", world.each(lambda one: every)),
        (
            OWN,
            "the person's most frequent choice in its train answers",
            world.each(lambda one: most_frequent(world.of_person.get(one.person, world.train))),
        ),
        (
            CONSENSUS,
            f"the most frequent choice of all others for the item; {world.coverage()}",
            world.each(lambda one: most_frequent(world.others(one))),
        ),
        (OFFSET, "its frequencies times the person's own, against everybody's", world.each(both)),
        (FACTORS, KNOWN, world.each(lambda one: world.labels[int(factors[one.prompt].argmax())])),
    ]


def _median(labels: Iterable[str]) -> str:
    """The lower median of numbers, as it was written; empty without any."""
    ordered = sorted(labels, key=float)
    return ordered[(len(ordered) - 1) // 2] if ordered else ""


def _offsets(world: _World) -> dict[str, float]:
    """How far a person's train answers lie above what others answered to the same items, on average, shrunken by
    empirical Bayes: n / (n + noise / spread), with both variances from the data (Morris 1983)."""
    differences: dict[str, list[float]] = {}
    for one in world.train:
        if others := world.others(one):
            gap = float(one.label) - float(np.mean([float(o.label) for o in others]))
            differences.setdefault(one.person, []).append(gap)
    found = {person: np.array(gaps) for person, gaps in differences.items()}
    many = [gaps for gaps in found.values() if len(gaps) > 1]
    if len(many) < 2:
        return {person: float(gaps.mean()) for person, gaps in found.items()}
    noise = float(np.mean([gaps.var(ddof=1) for gaps in many]))
    means = np.array([gaps.mean() for gaps in many])
    spread = float(means.var(ddof=1) - noise * np.mean([1 / len(gaps) for gaps in many]))
    if spread <= 0:
        return {}
    return {p: float(gaps.mean()) * len(gaps) / (len(gaps) + noise / spread) for p, gaps in found.items()}


# ---- matrix factorisation ----


def _factorised(world: _World, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Prompt id -> prediction [C] of a test answer, from all answers' values [n, C] but the person's own in the test.

    mean + a_u + b_i + p_u q_i for each class by ridge regression in turn (Koren et al. 2009). The people are cut in
    folds: the test answers of a fold are hidden while it is predicted. Rank and ridge are chosen on validation answers.
    """
    people = {name: place for place, name in enumerate(dict.fromkeys(one.person for one in world.said))}
    items = {name: place for place, name in enumerate(dict.fromkeys(one.item or one.prompt for one in world.said))}
    u = np.array([people[one.person] for one in world.said])
    i = np.array([items[one.item or one.prompt] for one in world.said])
    split = np.array([one.split for one in world.said])
    sizes = len(people), len(items)

    def loss(rank: int, ridge: float) -> float:
        found = _fit(u, i, values, split == "train", sizes, rank, ridge)
        return float(np.square(found - values)[split == "validation"].mean())

    candidates = [(rank, ridge) for rank in RANKS for ridge in RIDGES]
    best = candidates[0]
    if (split == "validation").any():
        best = min(candidates, key=lambda candidate: loss(*candidate))
    found = np.zeros_like(values)
    for fold in range(min(FOLDS, len(people))):
        hidden = (u % FOLDS == fold) & (split == "test")
        if hidden.any():
            found[hidden] = _fit(u, i, values, ~hidden, sizes, *best)[hidden]
    return {one.prompt: found[place] for place, one in enumerate(world.said) if one.split == "test"}


def _fit(
    u: NDArray[np.int64],
    i: NDArray[np.int64],
    values: NDArray[np.float64],
    known: NDArray[np.bool_],
    sizes: tuple[int, int],
    rank: int,
    ridge: float,
) -> NDArray[np.float64]:
    """Predictions [n, C] of all answers from those that are known. A bias is a factor whose other side is 1."""
    middle = values[known].mean(axis=0)
    found = np.empty_like(values)
    for c in range(values.shape[1]):
        rest = values[known, c] - middle[c]
        generator = np.random.default_rng(0)
        q = np.column_stack([np.ones(sizes[1]), np.zeros(sizes[1]), 0.1 * generator.standard_normal((sizes[1], rank))])
        p = np.zeros((sizes[0], 2 + rank))
        p[:, 1] = 1.0
        for _ in range(SWEEPS):
            # Column 0 is the person's bias (times 1 of the item), column 1 the item's (times 1 of the person).
            p = _solve(u[known], q[i[known]], rest, p, ridge, fixed=1)
            q = _solve(i[known], p[u[known]], rest, q, ridge, fixed=0)
        found[:, c] = middle[c] + (p[u] * q[i]).sum(axis=1)
    return found


def _solve(
    rows: NDArray[np.int64],
    factors: NDArray[np.float64],
    rest: NDArray[np.float64],
    old: NDArray[np.float64],
    ridge: float,
    fixed: int,
) -> NDArray[np.float64]:
    """Ridge regression of each row's answers on the other side's factors [n, k]; column `fixed` of the result is 1."""
    free = [column for column in range(factors.shape[1]) if column != fixed]
    x, y = factors[:, free], rest - factors[:, fixed]
    count, width = len(old), len(free)
    gram = np.zeros((count, width, width))
    right = np.zeros((count, width))
    np.add.at(gram, rows, x[:, :, None] * x[:, None, :])
    np.add.at(right, rows, x * y[:, None])
    new = np.ones_like(old)
    new[:, free] = np.linalg.solve(gram + ridge * np.eye(width), right[..., None])[..., 0]
    return new


# ---- wording ----


class _Words:
    """The most typical of some texts, and the nearest earlier question."""

    def __init__(self, world: _World, embed: TextEmbedder | None) -> None:
        self.world, self.embed = world, embed
        if embed is not None:  # in large batches; below from memory
            embed.embed([*(one.reply for one in world.train), *(one.asked for one in [*world.train, *world.test])])

    def typical(self, said: Sequence[_Said]) -> str:
        """The medoid of replies: the highest mean cosine to the others; without embeddings the most frequent text."""
        texts = [one.reply for one in said]
        if self.embed is None or len(texts) < 3:
            return Counter(texts).most_common(1)[0][0] if texts else ""
        vectors = self.embed.embed(texts)
        return texts[int((vectors @ vectors.mean(axis=0)).argmax())]

    def nearest(self) -> dict[str, str]:
        """Prompt id -> the person's train reply to the most similar question; everybody's typical one without any."""
        embed, world = self.embed, self.world
        asked = {p: embed.embed([one.asked for one in said]) for p, said in world.of_person.items()} if embed else {}

        def reply(one: _Said) -> str:
            own = world.of_person.get(one.person)
            if not own:
                return self.typical(world.train)
            if embed is None:
                return own[-1].reply
            return own[int((asked[one.person] @ embed.embed([one.asked])[0]).argmax())].reply

        return dict(world.each(reply))


# ---- what a data set names ----


def rating_yardsticks(dataset: Dataset, embed: TextEmbedder | None) -> list[Yardstick]:
    """For replies that are numbers of a closed set; the median decides, as for methods."""
    return [_yardstick(*found) for found in _ratings(_World(dataset))]


def choice_yardsticks(dataset: Dataset, embed: TextEmbedder | None) -> list[Yardstick]:
    """For replies that are one of a closed set of words."""
    return [_yardstick(*found) for found in _choices(_World(dataset))]


def text_yardsticks(dataset: Dataset, embed: TextEmbedder | None) -> list[Yardstick]:
    """For free text."""
    world = _World(dataset)
    return _texts(world, _Words(world, embed))


def _texts(world: _World, words: _Words) -> list[Yardstick]:
    every = words.typical(world.train)
    own = {person: words.typical(said) for person, said in world.of_person.items()}
    typical = world.each(lambda one: own.get(one.person, every))
    return [
        Yardstick(EVERYBODY, "the most typical of all train replies", world.each(lambda one: every)),
        Yardstick(TYPICAL, "the most typical of the person's train replies", typical, base_rate=True),
        Yardstick(NEAREST, "the person's train reply to the most similar question", words.nearest()),
    ]


def worded_choice_yardsticks(
    choice_of: Callable[[str], str], dataset: Dataset, embed: TextEmbedder | None
) -> list[Yardstick]:
    """For texts that begin with a choice: choices as of words, each worded as the person typically words it.

    choice_of   reply -> its choice; empty where there is none
    """
    world = _World(dataset, choice_of)
    words = _Words(world, embed)
    by_choice: dict[tuple[str | None, str], list[_Said]] = defaultdict(list)
    for one in world.train:
        by_choice[one.person, one.label].append(one)
        by_choice[None, one.label].append(one)
    typical = {key: words.typical(said) for key, said in by_choice.items()}
    plain = {EVERYBODY, CONSENSUS}  # these know nothing of the person, the wording included

    def worded(name: str, labels: Labels) -> dict[str, str]:
        return {
            one.prompt: (None if name in plain else typical.get((one.person, labels[one.prompt])))
            or typical.get((None, labels[one.prompt]), labels[one.prompt])
            for one in world.test
        }

    found = [
        _yardstick(name, f"{knows}; in typical words", worded(name, labels)) for name, knows, labels in _choices(world)
    ]
    return [*found, *_texts(world, words)[1:]]


def _yardstick(name: str, knows: str, replies: Labels) -> Yardstick:
    oracle = name in (CONSENSUS, OFFSET, FACTORS)
    return Yardstick(name, knows, replies, oracle=oracle, base_rate=name == OWN)
