"""A small formal language with known probabilities, so that the truth about a generator can be computed.

Every sentence is drawn by a probabilistic finite automaton whose states carry what the rest of the sentence must agree
with. It has what makes natural text hard in small: Zipf-like word frequencies (the r-th word of a class has weight
proportional to 1/r), number agreement between a subject and a verb that a prepositional phrase or a relative clause
keeps apart, selectional preferences (one drinks milk and opens doors), and a pronoun in a second clause that agrees
with the subject of the first.

In: a seed. Out: sentences (lists of words), and the exact log-probability of any list of words.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


END = "<end>"

# Nouns by class, most frequent first. The gender decides the pronoun that may refer back to a singular noun.
NOUNS = {
    "person": ["man/m", "woman/f", "child/c", "king/m"],
    "animal": ["dog/n", "cat/n", "bird/n"],
    "food": ["apple/n", "cake/n"],
    "thing": ["book/n", "door/n", "stone/n"],
}
PLURALS = {"man": "men", "woman": "women", "child": "children"}
PRONOUNS = {"m": ["he"], "f": ["she"], "c": ["he", "she"], "n": ["it"]}
ADJECTIVES = {
    "person": ["old", "young", "kind"],
    "animal": ["small", "young", "wild"],
    "food": ["sweet", "fresh"],
    "thing": ["old", "heavy", "small"],
}
# Verb, classes of its subject, classes of its object ("" for none): most frequent first.
VERBS = [
    ("see", "person animal", "person animal thing food"),
    ("eat", "person animal", "food"),
    ("sleep", "person animal", ""),
    ("fall", "food thing", ""),
    ("open", "person", "thing:door thing:book"),
    ("chase", "animal", "animal person"),
    ("sing", "person", ""),
    ("break", "thing", "thing food"),
    ("smell", "food", ""),
]
DETERMINERS = {"singular": ["a", "this"], "plural": ["some", "these"]}
SHARE_OF_THE = 0.4
SHARE_SINGULAR = 0.6
SHARE_ADJECTIVE = 0.2
AFTER_SUBJECT = {"verb": 0.7, "preposition": 0.15, "relative": 0.15}
PREPOSITIONS = ["near", "behind"]
ADVERBS = {"": ["quietly", "often"], "object": ["again", "often"]}
SHARE_ADVERB = 0.2
CONJUNCTIONS = ["and", "but"]
SHARE_SECOND_CLAUSE = 0.25
SUBJECT_CLASSES = ["person", "animal", "thing", "food"]


def zipf(words: list[str]) -> list[tuple[str, float]]:
    """Pair every word with its probability under Zipf's law, p(rank r) proportional to 1 / r."""
    total = sum(1 / rank for rank in range(1, len(words) + 1))
    return [(word, 1 / (rank * total)) for rank, word in enumerate(words, 1)]


@dataclass(frozen=True)
class State:
    """What the automaton remembers between two words.

    Args:
        expects: What comes next.
        role: Which noun phrase is being built: `subject`, `attractor` (in a prepositional phrase), `inner` (the object
            within a relative clause) or `object`.
        allowed: Classes (or `class:noun`) open to the noun being built; empty outside noun phrases.
        number: `singular`, `plural` or "" while the noun being built may still be either.
        subject: Class of the main subject.
        subject_number: Its number.
        gender: Its gender, which the pronoun of a second clause repeats.
        second: Whether this is the second clause, which ends the sentence.
    """

    expects: str
    role: str = "subject"
    allowed: tuple[str, ...] = ()
    number: str = ""
    subject: str = ""
    subject_number: str = ""
    gender: str = ""
    second: bool = False

    def but(self, **changes: Any) -> "State":
        """Return this state with some fields changed."""
        return replace(self, **changes)


START = State("determiner", allowed=tuple(SUBJECT_CLASSES))


def _nouns(allowed: tuple[str, ...]) -> list[tuple[str, str, str, float]]:
    """Return (class, noun, gender, probability) for every noun that `allowed` lets in."""
    rows = []
    for choice, weight in zipf(list(allowed)):
        kind, _, only = choice.partition(":")
        entries = [entry for entry in NOUNS[kind] if only in ("", entry.split("/")[0])]
        for entry, p in zipf(entries):
            noun, gender = entry.split("/")
            rows.append((kind, noun, gender, weight * p))
    return rows


def _narrowed(allowed: tuple[str, ...], kinds: set[str]) -> tuple[str, ...]:
    return tuple(choice for choice in allowed if choice.partition(":")[0] in kinds)


def _verb_steps(state: State, doer: str, number: str) -> Iterator[tuple[str, float, State]]:
    verbs = [verb for verb in VERBS if doer in verb[1].split()]
    inner = state.expects == "inner verb"
    for (verb, _, objects), (_, p) in zip(verbs, zipf([verb[0] for verb in verbs]), strict=True):
        form = verb if number == "plural" else verb + "s"
        if objects:
            role = "inner" if inner else "object"
            yield form, p, state.but(expects="determiner", role=role, allowed=tuple(objects.split()), number="")
        elif inner:
            yield form, p, state.but(expects="verb", allowed=(), number="")
        else:
            yield form, p, state.but(expects="adverb", role="", allowed=(), number="")


def _after_noun(state: State, kind: str, gender: str, number: str) -> State:
    if state.role == "subject":
        return State("after subject", "", (), "", kind, number, gender if number == "singular" else "", False)
    if state.role == "object":
        return state.but(expects="adverb", role="object", allowed=(), number="")
    return state.but(expects="verb", role="", allowed=(), number="")


def steps(state: State) -> Iterator[tuple[str, float, State | None]]:
    """Yield every (word, probability, next state) open to `state`; the next state of `END` is `None`."""
    if state.expects == "determiner":
        for kind_of_number, share in (("singular", SHARE_SINGULAR), ("plural", 1 - SHARE_SINGULAR)):
            for word, p in zipf(DETERMINERS[kind_of_number]):
                yield (
                    word,
                    (1 - SHARE_OF_THE) * share * p,
                    state.but(expects="noun or adjective", number=kind_of_number),
                )
        yield "the", SHARE_OF_THE, state.but(expects="noun or adjective", number="")
    elif state.expects in ("noun", "noun or adjective"):
        share = SHARE_ADJECTIVE if state.expects == "noun or adjective" else 0.0
        if share:
            mass: dict[str, dict[str, float]] = {}
            for kind, _, _, p in _nouns(state.allowed):
                for word, q in zipf(ADJECTIVES[kind]):
                    mass.setdefault(word, {}).setdefault(kind, 0.0)
                    mass[word][kind] += p * q
            for word, kinds in mass.items():
                # An adjective narrows the classes to those it can describe; how often is decided by all of them.
                allowed = _narrowed(state.allowed, {kind for kind in ADJECTIVES if word in ADJECTIVES[kind]})
                yield word, share * sum(kinds.values()), state.but(expects="noun", allowed=allowed)
        numbers = (
            [(state.number, 1.0)] if state.number else [("singular", SHARE_SINGULAR), ("plural", 1 - SHARE_SINGULAR)]
        )
        for kind, noun, gender, p in _nouns(state.allowed):
            for number, q in numbers:
                form = noun if number == "singular" else PLURALS.get(noun, noun + "s")
                yield form, (1 - share) * p * q, _after_noun(state, kind, gender, number)
    elif state.expects == "after subject":
        for word, p in zipf(PREPOSITIONS):
            allowed = ("person", "animal", "thing")
            following = state.but(expects="determiner", role="attractor", allowed=allowed)
            yield word, AFTER_SUBJECT["preposition"] * p, following
        yield "that", AFTER_SUBJECT["relative"], state.but(expects="inner verb")
        for word, p, following in _verb_steps(state, state.subject, state.subject_number):
            yield word, AFTER_SUBJECT["verb"] * p, following
    elif state.expects in ("verb", "inner verb"):
        yield from _verb_steps(state, state.subject, state.subject_number)
    elif state.expects == "adverb":
        for word, p in zipf(ADVERBS[state.role]):
            yield word, SHARE_ADVERB * p, state.but(expects="end", role="")
        for word, p, after_end in steps(state.but(expects="end", role="")):
            yield word, (1 - SHARE_ADVERB) * p, after_end
    elif state.expects == "end":
        share = 0.0 if state.second else SHARE_SECOND_CLAUSE
        for word, p in zipf(CONJUNCTIONS):
            if share:
                yield word, share * p, state.but(expects="pronoun", second=True)
        yield END, 1 - share, None
    elif state.expects == "pronoun":
        for word in ["they"] if state.subject_number == "plural" else PRONOUNS[state.gender]:
            share = 1.0 if state.subject_number == "plural" else 1 / len(PRONOUNS[state.gender])
            yield word, share, state.but(expects="verb", gender="")


class Language:
    """The language, compiled to tables.

    Attributes:
        words (`list[str]`): The vocabulary without the end of sentence, in a fixed order. The index of a word is its
            id; the end of sentence has the id `len(words)`.
        probs (`Tensor` of shape `(states, len(words) + 1)`, float64): Probability of each next word.
        following (`Tensor` of shape `(states, len(words) + 1)`, int64): The next state, -1 where there is none.
    """

    def __init__(self) -> None:
        index = {START: 0}
        rows: list[dict[str, tuple[float, int]]] = []
        agenda = [START]
        for state in agenda:  # grows while it is read: a breadth-first walk
            row: dict[str, tuple[float, int]] = {}
            for word, p, target in steps(state):
                if target is not None and target not in index:
                    index[target] = len(index)
                    agenda.append(target)
                number = -1 if target is None else index[target]
                if word in row and row[word][1] != number:
                    raise ValueError(
                        f"the word {word!r} leads from {state} to two states: the automaton must be deterministic"
                    )
                row[word] = (row.get(word, (0.0, 0))[0] + p, number)
            rows.append(row)
        self.words = sorted({word for row in rows for word in row} - {END})
        ids = {word: number for number, word in enumerate([*self.words, END])}
        self.probs = torch.zeros(len(rows), len(ids), dtype=torch.float64)
        self.following = torch.full((len(rows), len(ids)), -1)
        for place, row in enumerate(rows):
            for word, (p, following) in row.items():
                self.probs[place, ids[word]] = p
                self.following[place, ids[word]] = following

    @property
    def end(self) -> int:
        """Id of the end of sentence."""
        return len(self.words)

    def sample(self, count: int, seed: int) -> list[list[str]]:
        """Draw `count` sentences; the same seed draws the same sentences."""
        generator = torch.Generator().manual_seed(seed)
        state = torch.zeros(count, dtype=torch.int64)
        alive = torch.arange(count)
        sentences: list[list[str]] = [[] for _ in range(count)]
        while len(alive):
            drawn = torch.multinomial(self.probs[state], 1, generator=generator).squeeze(1)
            for row, word in zip(alive.tolist(), drawn.tolist(), strict=True):
                if word != self.end:
                    sentences[row].append(self.words[word])
            keep = drawn != self.end
            state, alive = self.following[state, drawn][keep], alive[keep]
        return sentences

    def logps(self, sentences: list[list[str]]) -> Tensor:
        """Compute the exact log-probability of each sentence with its end, in nats; `-inf` where it is ungrammatical.

        Args:
            sentences (`list[list[str]]`): Words without the end of sentence; words outside the vocabulary are allowed
                and have probability 0.

        Returns:
            `Tensor` of shape `(len(sentences),)`, float64.
        """
        ids = {word: number for number, word in enumerate(self.words)}
        logs = self.probs.log().tolist()
        following = self.following.tolist()
        result = []
        for sentence in sentences:
            state, total = 0, 0.0
            for word in [*(ids.get(word, -1) for word in sentence), self.end]:
                if word < 0 or logs[state][word] == float("-inf"):
                    total = float("-inf")
                    break
                total += logs[state][word]
                state = following[state][word]
            result.append(total)
        return torch.tensor(result, dtype=torch.float64)

    def entropy(self) -> float:
        """Compute the entropy of a sentence in nats: visits to each state times the entropy of its next word."""
        states = len(self.probs)
        jump = torch.zeros(states, states, dtype=torch.float64)
        rows, columns = (self.following >= 0).nonzero(as_tuple=True)
        jump.index_put_((rows, self.following[rows, columns]), self.probs[rows, columns], accumulate=True)
        start = torch.zeros(states, dtype=torch.float64)
        start[0] = 1
        visits = torch.linalg.solve(torch.eye(states, dtype=torch.float64) - jump.T, start)
        local = -torch.special.xlogy(self.probs, self.probs).sum(1)
        return float(visits @ local)
