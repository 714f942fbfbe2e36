"""Words of any script as they are compared, and where they stand.

Letters, digits and the marks upon them make a word; scripts without spaces are compared by pairs of
characters; endings are taken off by the Snowball stemmer of the text's language (Porter, 2001).
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Protocol


def word_set(listed: str) -> frozenset[str]:
    """The words of a list that is written as text."""
    return frozenset(listed.split())


# More characters of one word are no word: a line of base64, a picture.
_MAX_WORD = 64
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]+"
)
_ASCII = re.compile(r"[a-z0-9]+", re.IGNORECASE)
_STOPS = {
    "english": """
        a about all also am an and any are as at be been being but by can could did do does
        done for from had has have he her him his how i if in into is it its just me my no nor
        not of on or our out she should so some such than that the their them then there these
        they this those to too up us very was we were what when where which while who whom
        whose why will with would you your tell please
    """,
    "german": """
        der die das dem den des ein eine einen einem einer und oder ist sind war waren wie wer
        wo wann warum welche welcher welches ich du er sie es wir ihr im am zu von mit für auf
        nicht auch sich bei nach wird werden dass
    """,
    "french": """
        le la les un une des du de est sont et ou que qui quoi où quand pourquoi combien quel
        quelle je tu il elle nous vous dans avec sur à pour pas ne ce cette
    """,
    "spanish": """
        el la los las un una unos y o es son qué quién dónde cuándo cómo cuál por para con en
        de del se no su al lo
    """,
    "italian": """
        il lo la i gli le un una e o è sono che chi dove quando perché come di da in con su
        per non si del della
    """,
    "russian": """
        и в на с не что кто где когда почему как это я ты он она мы по для из от до к
    """,
}
LANGUAGES = tuple(_STOPS)
ENGLISH = LANGUAGES[0]
_STOP_SETS = {language: word_set(listed) for language, listed in _STOPS.items()}
# A text in which fewer of its words are known to a language is of none that is known.
_DETECTED_SHARE = 0.08
_LOOKED_AT = 200


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it is compared, and where it stands, in code points."""

    text: str
    start: int
    end: int


class _Stemmer(Protocol):
    def stemWord(self, word: str) -> str: ...  # noqa: N802 - the library's name


@cache
def _any_script() -> re.Pattern[str]:
    marks = "".join(
        chr(point) for point in range(0x300, 0xFFFF) if unicodedata.category(chr(point))[0] == "M"
    )
    return re.compile(rf"(?:[^\W_]|[{marks}])+")


def words(text: str) -> Iterator[Word]:
    """The words of a text in their order, folded; pairs of characters in scripts without spaces."""
    if text.isascii():
        for match in _ASCII.finditer(text):
            if match.end() - match.start() <= _MAX_WORD:
                yield Word(match[0].lower(), match.start(), match.end())
        return
    for match in _any_script().finditer(text):
        start = match.start()
        if match[0].isascii():
            if len(match[0]) <= _MAX_WORD:
                yield Word(match[0].lower(), start, match.end())
            continue
        at = 0
        for run in _UNSPACED.finditer(match[0]):
            yield from _spaced(match[0], start, at, run.start())
            yield from _pairs(match[0], start, run.start(), run.end())
            at = run.end()
        yield from _spaced(match[0], start, at, len(match[0]))


def _spaced(text: str, offset: int, start: int, end: int) -> Iterator[Word]:
    if 0 < end - start <= _MAX_WORD:
        yield Word(_fold(text[start:end]), offset + start, offset + end)


def _pairs(text: str, offset: int, start: int, end: int) -> Iterator[Word]:
    for at in range(start, max(start + 1, end - 1)):
        last = min(at + 2, end)
        yield Word(_fold(text[at:last]), offset + at, offset + last)


def _fold(word: str) -> str:
    return unicodedata.normalize("NFKC", word).casefold()


_stemming = threading.Lock()


@cache
def _stemmer(language: str) -> _Stemmer:
    import snowballstemmer  # type: ignore[import-untyped]

    found: _Stemmer = snowballstemmer.stemmer(language)
    return found


@lru_cache(200_000)
def stem(word: str, language: str = ENGLISH) -> str:
    """A word without its ending."""
    # A stemmer works in place, and threads read texts beside the event loop.
    with _stemming:
        return _stemmer(language).stemWord(word)


def is_stop(word: str, language: str = ENGLISH) -> bool:
    """Whether a word carries no subject."""
    return word in _STOP_SETS[language]


def language_of(found: list[Word]) -> str:
    """The language whose commonest words a text has most of; empty where that says nothing."""
    looked = found[:_LOOKED_AT]
    counts = {
        language: sum(word.text in stops for word in looked)
        for language, stops in _STOP_SETS.items()
    }
    best = max(LANGUAGES, key=lambda language: counts[language])
    return best if counts[best] and counts[best] >= _DETECTED_SHARE * len(looked) else ""


def terms(text: str) -> list[str]:
    """The stems of a text that carry a subject, in their order, by the text's own language."""
    found = list(words(text))
    language = language_of(found) or ENGLISH
    return [stem(word.text, language) for word in found if not is_stop(word.text, language)]


def query_terms(text: str) -> list[str]:
    """The stems to look for, each once: in every language that the query may be in.

    A query of stop words alone is looked for by them: "to be or not to be".
    """
    found = list(words(text))
    language = language_of(found)
    languages = [language] if language else list(LANGUAGES)
    carrying = [word for word in found if not any(is_stop(word.text, each) for each in languages)]
    return list(
        dict.fromkeys(stem(word.text, each) for word in carrying or found for each in languages)
    )
