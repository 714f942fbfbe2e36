"""Words as they are compared: any script, case folded, English endings taken off."""

from __future__ import annotations

import unicodedata


def word_set(listed: str) -> frozenset[str]:
    """The words of a list that is written as text."""
    return frozenset(listed.split())


# Scripts without spaces between words: their letters are compared two by two.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
# More characters than one conversation has, and no more than memory should.
_REMEMBERED = 20_000
# Words that carry no subject. Those of other languages are only such as mean nothing in English.
STOP_WORDS = word_set(
    """
    a about all also am an and any are as at be been being but by can could d did do does doing
    done for from get got had has have having he her here hers him his how i if in into is it its
    just ll m may me might mine my no nor not now of off on or our ours out please re s shall she
    should so some such t than that the their theirs them then there these they this those to too
    up us ve very was we were what when where which while who whom whose why will with would you
    your yours
    tell show give find say said know much many long old far often big tall
    der das dem den ein eine einen einem einer ist sind und oder wie wer wo wann warum welche
    welcher welches ich du er sie wir ihr mein meine dein deine im am zu von mit für auf
    le la les un une des du est sont et ou que qui quoi où quand pourquoi combien quel quelle je
    tu il elle nous vous mon ma mes dans avec sur à
    el los las una unos es y o qué quién dónde cuándo cómo cuál cuánto mi tu su de en con por para
    что кто где когда почему как какой какая какое сколько это и в на с мой моя моё я ты он она
    """
)


class _Separated(dict[int, str]):
    """What `str.translate` makes of each character: itself in a word, a space between words."""

    def __missing__(self, point: int) -> str:
        character = chr(point)
        # Marks belong to the letter before them: without them Hindi falls into single consonants.
        inside = character.isalnum() or unicodedata.category(character) in ("Mn", "Mc")
        separated = character if inside else " "
        if len(self) < _REMEMBERED:
            self[point] = separated
        return separated


_SEPARATED = _Separated()


def words(text: str) -> list[str]:
    """The words of a text, in order, as they are compared."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    found: list[str] = []
    for word in text.casefold().translate(_SEPARATED).split():
        if word.isascii():
            found.append(word)
        else:
            found.extend(_split_unspaced(word))
    return found


def content(text: str) -> list[str]:
    """The stems of the words that carry a subject."""
    return [stem(word) for word in words(text) if word not in STOP_WORDS]


def stem(word: str) -> str:
    """An English word without its ending, by a few of Porter's (1980) rules; others stay whole."""
    if not word.isascii() or len(word) < 4:
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith("s") and word[-2] not in "su":
        word = word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            if word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def _split_unspaced(word: str) -> list[str]:
    """A word, with every run of an unspaced script in it as its pairs of letters."""
    parts: list[str] = []
    run = ""
    unspaced = False
    for character in word:
        kind = _is_unspaced(ord(character))
        if run and kind != unspaced:
            parts.extend(_pairs(run) if unspaced else [run])
            run = ""
        unspaced = kind
        run += character
    parts.extend(_pairs(run) if unspaced else [run])
    return parts


def _pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run]


def _is_unspaced(point: int) -> bool:
    return point >= _UNSPACED[0][0] and any(low <= point <= high for low, high in _UNSPACED)
