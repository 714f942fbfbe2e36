"""Whether a text speaks of what was asked, and whether it repeats another."""

from __future__ import annotations

from collections.abc import Iterable

from services.context.text.words import ENGLISH, is_stop, language_of, stem, terms, word_set, words

_SAME = 0.8
_INSIDE = 0.9
_ENOUGH_TERMS = 3
_SHARE = 0.4
# What people say without asking for anything.
_CHAT = word_set(
    """
    hello hi hey thank thanks good morning evening night ok okay yes no bye goodbye welcome
    great nice cool sure hallo danke guten morgen abend tschüss bonjour merci salut hola
    gracias ciao grazie привет спасибо
    """
)


def asked_for(text: str) -> frozenset[str]:
    """The words by which a text asks for something; empty where it only greets."""
    found = list(words(text))
    language = language_of(found) or ENGLISH
    return frozenset(each.text for each in found if not is_stop(each.text, language)) - _CHAT


def coverage(asked: frozenset[str], text: str) -> int:
    """How many of the words that were asked for a text has, by their stems in its language."""
    found = list(words(text))
    language = language_of(found) or ENGLISH
    there = {stem(each.text, language) for each in found}
    return sum(stem(each, language) in there for each in asked)


def speaks_of(asked: frozenset[str], text: str) -> bool:
    """Whether a text has enough of what was asked: some of few words, three of many."""
    return coverage(asked, text) >= min(_ENOUGH_TERMS, max(1, round(_SHARE * len(asked))))


def repeats(text: str, others: Iterable[frozenset[str]]) -> bool:
    """Whether one of some texts, given by their stems, says the same or all of it."""
    own = frozenset(terms(text))
    if not own:
        return False
    return any(
        len(own & other) >= _SAME * len(own | other) or len(own & other) >= _INSIDE * len(own)
        for other in others
    )
