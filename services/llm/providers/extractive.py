"""Answers made of the conversation's own sentences, each with its source in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.llm.domain.generation import Message, Origin, Role
from services.llm.providers.keywords import keywords
from services.llm.providers.ranking import Match, Sentence, rank
from services.llm.providers.reading import Reading, Want, is_question, read
from services.llm.providers.sentences import split_sentences
from services.llm.providers.sentiment import judge
from services.llm.providers.summary import summarise
from services.llm.providers.words import content, word_set, words

NAME = "offline/extractive"
# The newest part of a conversation that is read; what bounds the work of an answer.
MAX_CHARACTERS = 200_000
# A token is about four characters, by this module's estimate.
WINDOW = MAX_CHARACTERS // 4
_SURE = 0.75
_CLOSE = 0.55
_NEARLY_AS_GOOD = 0.8
_MAX_QUOTES = 3
_HEADING_WORDS = 4
_MOST_IN_SUMMARY = 5
_KEYWORDS = 8
_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth"),
    *("sixth", "seventh", "eighth", "ninth", "tenth"),
)
_DIRECTIVES = word_set(
    """
    act always answer ask avoid be do don explain follow help if keep never only please provide
    refer reply respond say speak think treat use write remember ensure
    """
)
# The line above a passage, by which it is cited: it names the passage and says nothing.
_MARK = re.compile(r"\A\[\d+\][^\n]*\n")
_YOU = frozenset(("you", "your", "yours", "yourself"))
_CONNECT = (
    "To connect a language model, set PLEXUS_LLM_URL and PLEXUS_LLM_MODEL (and PLEXUS_LLM_KEY, if "
    "its server needs one) to any server that speaks the OpenAI protocol, and restart Plexus."
)
_ABILITIES = (
    f"I am {NAME}, the model built into Plexus. I need no key and no network, and I am no large "
    "language model: I quote, I do not make up.\n\n"
    "What I can do:\n"
    "- Answer from this conversation. Give me a text, ask about it, and I quote the sentence that "
    "answers and say which message it is from.\n"
    "- Summarise. Write “Summarise:” and a text, or “Summarise this in three sentences” after one."
    "\n- Judge a sentiment, and find keywords. Write “Sentiment:” or “Keywords:” and a text."
    "\n- Say plainly when nothing you gave me holds the answer.\n\n"
    "Try: “The museum opens at nine and closes at five. When does the museum open?”\n\n" + _CONNECT
)


def answer(messages: Sequence[Message]) -> str:
    """Answer the last of the messages."""
    asked = read(messages[-1].text[:MAX_CHARACTERS])
    if asked.want is Want.NOTHING:
        return f"Your message has no words that I could answer. {_signed()}"
    if asked.want is Want.GREETING or asked.want is Want.ABOUT:
        return f"Hello! {_ABILITIES}"
    if asked.want is Want.THANKS:
        return f"You are welcome. Ask on whenever you like. {_signed()}"
    source = _Source(messages, asked)
    return _DOES.get(asked.want, _answer)(asked, source)


def _signed() -> str:
    return f"({NAME})"


class _Source:
    """The sentences of a conversation that tell something, and the names of where they stand."""

    def __init__(self, messages: Sequence[Message], asked: Reading) -> None:
        self._messages = messages
        self.whole = True
        room = MAX_CHARACTERS - len(messages[-1].text)
        last = len(messages) - 1
        parts = [list(_numbered(asked.passage, last, messages[-1].role))]
        for place in range(last - 1, -1, -1):
            message = messages[place]
            if room <= 0:
                self.whole = False
                break
            self.whole = self.whole and len(message.text) <= room
            told = _told(message, message.text[:room])
            parts.append(list(_numbered(told, place, message.role)))
            # A short message costs something too: there may be thousands.
            room -= len(message.text) + 10
        self.sentences = [each for part in reversed(parts) for each in part]

    def name(self, place: int) -> str:
        """Where a sentence stands, in words."""
        role = self._messages[place].role
        if self._messages[place].origin is Origin.RETRIEVED:
            before = self._messages[:place]
            return f"passage {1 + sum(each.origin is Origin.RETRIEVED for each in before)}"
        if place == len(self._messages) - 1:
            return "this message of yours"
        if role is Role.SYSTEM:
            return "the instructions of this agent"
        number = sum(_said(each, role) for each in self._messages[:place])
        same = sum(_said(each, role) for each in self._messages[:-1])
        if role is Role.USER and same == 1:
            return "your earlier message"
        which = _ORDINALS[number] if number < len(_ORDINALS) else f"{number + 1}th"
        return f"your {which} message" if role is Role.USER else f"the {which} answer above"


def _said(message: Message, role: Role) -> bool:
    return message.role is role and message.origin is not Origin.RETRIEVED


def _told(message: Message, text: str) -> Sequence[str]:
    if message.origin is not Origin.RETRIEVED and message.role is Role.USER:
        return read(text).passage
    if message.origin is Origin.RETRIEVED:
        text = _MARK.sub("", text, count=1)
    if message.role is Role.ASSISTANT and NAME in text:
        # What was quoted before would be quoted as if it were another source.
        return ()
    return [each for each in split_sentences(text) if not is_question(each)]


def _numbered(sentences: Sequence[str], place: int, role: Role) -> Iterator[Sentence]:
    for number, text in enumerate(sentences):
        yield Sentence(text, place, number, role is Role.SYSTEM and _is_directive(text))


def _is_directive(sentence: str) -> bool:
    found = words(sentence)
    return bool(found) and (found[0] in _DIRECTIVES or not _YOU.isdisjoint(found))


def _heard(asked: Reading, _: _Source) -> str:
    size = len(asked.passage)
    what = "I have read that" if size == 1 else f"I have read these {size} sentences"
    return (
        f"{what}. I keep nothing beyond this conversation, and I have no opinion of my own; ask me "
        f"about it and I quote what answers, or ask for a summary. {_signed()}"
    )


def _summary(asked: Reading, source: _Source) -> str:
    given = _given(asked, source)
    kept = [each for each in given if len(content(each.text)) > 1] or given
    if not kept:
        return _no_text("summarise", "Summarise:")
    size = asked.size or min(_MOST_IN_SUMMARY, max(2, len(kept) // 4))
    chosen = [kept[index] for index in summarise([each.text for each in kept], size)]
    count = "All" if len(chosen) == len(kept) else f"The {len(chosen)} most telling"
    lines = "\n".join(f"- {each.text}" for each in chosen)
    return (
        f"{count} of the {len(kept)} sentences in {_where(kept, source)}, word for "
        f"word{_part(source)}:\n{lines}\n{_signed()}"
    )


def _sentiment(asked: Reading, source: _Source) -> str:
    given = _given(asked, source)
    if not given:
        return _no_text("judge", "Sentiment:")
    found = judge([each.text for each in given])
    where = f"{_where(given, source)}{_part(source)}"
    if not found.strongest:
        why = f"{where} has no English word that I know to be for or against something"
    else:
        why = f"{found.score:+.2f} between -1 and 1 for {where}; most of it by “{found.strongest}”"
    return f"{found.label}\n{why}\n{_signed()}"


def _keywords(asked: Reading, source: _Source) -> str:
    given = _given(asked, source)
    found = keywords([each.text for each in given], asked.size or _KEYWORDS)
    if not found:
        return _no_text("find keywords in", "Keywords:")
    return f"{', '.join(found)}\nfrom {_where(given, source)}{_part(source)}\n{_signed()}"


def _given(asked: Reading, source: _Source) -> list[Sentence]:
    """The text to work on: that of the message itself, or else what was told before."""
    last = max((each.place for each in source.sentences), default=0)
    inside = [each for each in source.sentences if each.place == last] if asked.passage else []
    return inside or [each for each in source.sentences if not each.directive]


def _where(sentences: Sequence[Sentence], source: _Source) -> str:
    places = sorted({each.place for each in sentences})
    return source.name(places[0]) if len(places) == 1 else f"{len(places)} messages"


def _no_text(verb: str, opening: str) -> str:
    return (
        f"There is nothing to {verb}: give me the text in the same message, after “{opening}”, or "
        f"in one before it. {_signed()}"
    )


def _part(source: _Source) -> str:
    return "" if source.whole else f" (of the newest {MAX_CHARACTERS:,} characters alone)"


@dataclass(frozen=True, slots=True)
class _Quote:
    text: str
    place: int


def _answer(asked: Reading, source: _Source) -> str:
    stems = asked.subject
    found = rank(stems, source.sentences, number_wanted=asked.number_wanted) if stems else []
    # A sentence that only repeats a question answers nothing, unless the question is whether.
    repeated = frozenset[str]() if asked.yes_or_no else frozenset(stems)
    fitting = [each for each in found if _fits(each, source.sentences, repeated)]
    if not fitting:
        return _nothing(source, stems)
    best = fitting[0]
    good = [
        each
        for each in fitting
        if each.score >= _NEARLY_AS_GOOD * best.score and each.coverage >= best.coverage - 0.01
    ][:_MAX_QUOTES]
    quotes = _quotes(sorted(good, key=lambda each: each.index), source.sentences)
    lines = "\n".join(f"From {source.name(each.place)}: “{each.text}”" for each in quotes)
    if best.coverage >= _SURE:
        return f"{lines}\n{_signed()}"
    return (
        f"I am not sure that this answers it; it is the closest I was given.\n{lines}\n{_signed()}"
    )


def _fits(match: Match, sentences: Sequence[Sentence], repeated: frozenset[str]) -> bool:
    sentence = sentences[match.index]
    if match.coverage < _CLOSE:
        return False
    if sentence.directive and (match.coverage < 1 or match.shared < 2 or match.leans):
        # An agent's orders are no facts; only one that speaks of all that was asked is an answer.
        return False
    says_more = not repeated.issuperset(content(sentence.text))
    return says_more or _continues(match.index, sentences)


def _continues(index: int, sentences: Sequence[Sentence]) -> bool:
    """Whether a sentence is a heading whose matter follows."""
    here = sentences[index]
    heading = len(words(here.text)) <= _HEADING_WORDS and not here.text.endswith((".", "!", "。"))
    return (
        (heading or here.text.endswith(":"))
        and index + 1 < len(sentences)
        and sentences[index + 1].place == here.place
    )


def _quotes(matches: Sequence[Match], sentences: Sequence[Sentence]) -> list[_Quote]:
    quotes: dict[str, _Quote] = {}
    used: set[int] = set()
    for match in matches:
        first = match.index - match.leans
        last = match.index + _continues(match.index, sentences)
        span = [index for index in range(first, last + 1) if index not in used]
        used.update(span)
        text = " ".join(sentences[index].text for index in span)
        if text:
            # The same words again: where they stand last is where they are quoted from.
            quotes[text] = _Quote(text, sentences[match.index].place)
    return list(quotes.values())


def _nothing(source: _Source, stems: Sequence[str]) -> str:
    count = len(source.sentences)
    if not stems:
        why = "Your question names nothing that I could look for."
    elif not count:
        why = "I answer from what stands in this conversation, and so far it holds questions alone."
    else:
        sentences = "the one sentence" if count == 1 else f"the {count} sentences"
        why = (
            f"I looked through {sentences} of this conversation that could{_part(source)}, and "
            "found no answer to that."
        )
    return (
        f"{why} I know nothing else, so I will not guess. Give me a text that holds the answer and "
        f"ask again. {_CONNECT} {_signed()}"
    )


_DOES = {
    Want.TO_TELL: _heard,
    Want.SUMMARY: _summary,
    Want.SENTIMENT: _sentiment,
    Want.KEYWORDS: _keywords,
}
