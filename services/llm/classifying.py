"""What a request is about, when it does not say: rules first, then a small trained classifier.

The classifier is multinomial naive Bayes with add-one smoothing over words and pairs of words
(Manning, Raghavan and Schütze, "Introduction to Information Retrieval", 13.2). It is trained when
the module starts, from the examples beside it, in milliseconds: nothing trained is kept in a file.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from importlib.resources import files
from itertools import pairwise

from services.llm.domain.generation import Classifier, Prompt, Role

CHAT = "chat"
_READ = 2_000
_WORD = re.compile(r"\w+", re.UNICODE)
# Below this lead over the second no class is better than the general one.
_SURE = 0.6
_CODE = re.compile(
    r"```|#include\b|\b(def \w+\(|class \w+[:({]|function \w*\(|public static|const \w+ =|"
    r"SELECT .+ FROM \w|import \w+( as \w+)?$)"
    r"|Traceback \(most recent call last\)|\w+\.(py|js|ts|go|rs|java|cpp|sql)\b"
)
_SUMMARISE = re.compile(
    r"^\W*(please\s+|can you\s+|could you\s+)?(summari[sz]e|tl;?dr|recap|condense|"
    r"give me (a|the) (short |brief )?summary)\b",
    re.IGNORECASE,
)
_TRANSLATE_OR_EXTRACT = re.compile(
    r"^\W*(please\s+)?(extract|parse|list all|pull out|find all)\b", re.IGNORECASE
)


class TaskClassifier:
    """Finds the class of a request."""

    def __init__(self, examples: Iterable[tuple[str, str]] | None = None) -> None:
        """Train.

        Args:
            examples: Classes and texts; left out, the packaged ones.
        """
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        documents: Counter[str] = Counter()
        for name, text in packaged() if examples is None else examples:
            counts[name].update(_features(text))
            documents[name] += 1
        vocabulary = {each for found in counts.values() for each in found}
        self._size = len(vocabulary)
        self._vocabulary = vocabulary
        self._counts = counts
        self._totals = {name: sum(found.values()) for name, found in counts.items()}
        everything = sum(documents.values())
        self._priors = {name: math.log(count / everything) for name, count in documents.items()}

    def classify(self, prompt: Prompt) -> tuple[str, Classifier]:
        """The class of a request, and who found it."""
        text = next((each.text for each in reversed(prompt.messages) if each.role is Role.USER), "")
        text = text[:_READ]
        by_rule = _by_rule(prompt, text)
        if by_rule:
            return by_rule, Classifier.RULES
        return self.guess(text), Classifier.TRAINED

    def guess(self, text: str) -> str:
        """The likeliest class of a text; `chat` where none is much likelier than the others."""
        known = [each for each in _features(text) if each in self._vocabulary]
        scores = {
            name: prior
            + sum(
                math.log((self._counts[name][each] + 1) / (self._totals[name] + self._size))
                for each in known
            )
            for name, prior in self._priors.items()
        }
        best = max(scores, key=lambda name: scores[name], default=CHAT)
        if not known:
            return CHAT
        share = 1 / sum(math.exp(score - scores[best]) for score in scores.values())
        return best if share >= _SURE else CHAT


def packaged() -> Iterator[tuple[str, str]]:
    """The examples beside this file: on each line a class, a tab, and a text."""
    lines = files("services.llm").joinpath("examples.tsv").read_text("utf-8").splitlines()
    for line in lines:
        name, tab, text = line.partition("\t")
        if tab:
            yield name, text


def _by_rule(prompt: Prompt, text: str) -> str:
    if _SUMMARISE.search(text):
        return "summarisation"
    if _CODE.search(text):
        return "code"
    if prompt.answer_format is not None or _TRANSLATE_OR_EXTRACT.search(text):
        return "extraction"
    return ""


def _features(text: str) -> Iterator[str]:
    found = _WORD.findall(text.casefold())
    yield from found
    for one, two in pairwise(found):
        yield f"{one} {two}"
