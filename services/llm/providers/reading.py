"""What a message wants: by its first words and its question marks, not by understanding it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise

from services.llm.providers.sentences import split_sentences
from services.llm.providers.words import STOP_WORDS, content, stem, word_set, words

_BEGINNING = 400
_LONGEST_REQUEST = 40
_QUESTION_MARKS = ("?", "？", "؟")
_CLOSING = "\"'”’»)]} "
# Chinese and Japanese ask with words inside the sentence, and put no spaces around them.
_ASKING_INSIDE = (
    *("为什么", "什么", "多少", "多久", "多长", "多大", "怎么", "哪里", "哪", "谁", "吗", "几"),
    *("ですか", "ますか", "いつ", "どこ", "なに", "何", "誰"),
)


def _phrases(text: str) -> tuple[tuple[str, ...], ...]:
    # The longest first, so that none is taken for the beginning of another.
    found = (tuple(each.split()) for each in text.split(","))
    return tuple(sorted(found, key=len, reverse=True))


_GREETINGS = _phrases(
    "hello, hi, hey, hiya, howdy, greetings, good morning, good afternoon, good evening, good day, "
    "hallo, moin, servus, guten tag, guten morgen, guten abend, bonjour, bonsoir, salut, hola, "
    "buenos días, buenas tardes, ciao, olá, hej, ahoj, namaste, привет, здравствуйте, 你好"
)
_ABOUT = _phrases(
    "what can you do, what do you do, who are you, what are you, what is your name, help, help me, "
    "what s your name, how can you help, how do you work, what can i do, what can i ask, "
    "what can i ask you, can you help, which model are you, what model are you, are you a bot, "
    "introduce yourself, how are you, are you there, are you an ai, are you human, "
    "wer bist du, was kannst du, que peux tu faire, qui es tu, quién eres, qué puedes hacer, "
    "кто ты, что ты умеешь, test"
)
_THANKS = _phrases(
    "thanks, thank you, many thanks, thx, cheers, bye, goodbye, see you, danke, merci, gracias, "
    "grazie, obrigado, спасибо, ok, okay, great, perfect, cool, nice, good, very good"
)
_FILLERS = word_set(
    """
    a all and bit but exactly for here in it it's just me now of please plexus really so
    that then there this to today us very well with world much everyone everybody again later lot
    """
)
_POLITE = word_set(
    """
    please can could would will you kindly now i want need like to d just then ok okay and so hello
    hi hey first next also briefly
    """
)
_SUMMARY_VERBS = word_set(
    """
    summarise summarize summarising summarizing recap condense shorten tldr
    zusammenfassen fasse résume résumer resume resumir riassumi riassumere резюмируй
    """
)
_SUMMARY_NOUNS = word_set(
    "summary overview recap synopsis gist digest zusammenfassung résumé resumen riassunto"
)
_BEFORE_SUMMARY = word_set(
    """
    give write make provide create show list get do me us a an the short brief quick concise one two
    three four five six seven eight nine ten sentence sentences paragraph line bullet point what is
    are s of gib mir eine kurze
    """
)
_SENTIMENT_NOUNS = word_set("sentiment tone mood polarity stimmung tonalité sentimiento")
_FEELINGS = word_set("positive negative neutral positiv negativ neutre positivo negativo")
_KEYWORD_NOUNS = word_set(
    "keyword keywords keyphrase keyphrases schlüsselwörter stichwörter palabras-clave mots-clés"
)
_BEFORE_NOUN = _BEFORE_SUMMARY | word_set(
    """
    extract classify analyse analyze determine detect judge rate find tell say which five ten top
    most important main overall its this that text s liste nenne bestimme
    """
)
_POINTS = frozenset(("points", "point", "ideas", "takeaways", "facts"))
_MAIN = frozenset(("main", "key", "important", "essential", "central"))
_NUMBERS = {
    each: number
    for number, each in enumerate(
        ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), start=1
    )
}
_KEY_WHAT = (["words"], ["phrases"], ["terms"])
_UNITS = ("sentence", "bullet", "point", "line", "item", "key")
_MOST_SENTENCES = 20
_ORDERS = word_set(
    "tell show give find name explain describe quote define list look search answer compare"
)
_ASKING = _ORDERS | word_set(
    """
    what who whom whose which where when why how is are am was were do does did can could would
    should shall will has have had may might
    wer wo wann warum wie welche welcher welches wieviel wieso nenne erkläre sag
    qui que quoi où quand pourquoi combien quel quelle quels quelles
    qué quién dónde cuándo cómo cuál cuánto chi cosa dove quando perché quanto quale
    что кто где когда почему как какой какая какое сколько
    """
)
_YES_OR_NO = word_set(
    "is are am was were do does did can could would should shall will has have had may"
)
_TELLING = word_set("i we my our is are am was were be been it")
_SAYS_OF_IT = _TELLING | word_set("has had will says said shows due by may must should")
_NUMBER_WORDS = word_set("when wann quand cuándo когда combien cuánto сколько wieviel")
_HOW = word_set("much many long old far often big tall high deep late early soon heavy")


class Want(Enum):
    """What a message wants."""

    NOTHING = auto()
    GREETING = auto()
    ABOUT = auto()
    THANKS = auto()
    SUMMARY = auto()
    SENTIMENT = auto()
    KEYWORDS = auto()
    ANSWER = auto()
    TO_TELL = auto()


@dataclass(frozen=True, slots=True)
class Reading:
    """A message as it was read.

    Attributes:
        want: What it wants.
        question: Its words that ask, where it wants an answer.
        passage: The sentences that tell something rather than ask for it.
        size: How many sentences or keywords it shall be; None where it does not say.
    """

    want: Want
    question: str = ""
    passage: tuple[str, ...] = ()
    size: int | None = None

    @property
    def subject(self) -> list[str]:
        """The stems to look for."""
        return [stem(word) for word in self._asked if word not in STOP_WORDS]

    @property
    def _asked(self) -> Sequence[str]:
        question = self.question
        for each in _ASKING_INSIDE:
            question = question.replace(each, " ")
        return _without(words(question), _GREETINGS)

    @property
    def number_wanted(self) -> bool:
        """Whether the answer is a number or a date."""
        asked = self._asked
        how = any(first == "how" and second in _HOW for first, second in pairwise(asked))
        return how or any(word in _NUMBER_WORDS for word in asked)

    @property
    def yes_or_no(self) -> bool:
        """Whether the answer is that it is so, or is not."""
        return not _YES_OR_NO.isdisjoint(self._asked[:1])


def read(text: str) -> Reading:
    """Read a message."""
    sentences = split_sentences(text)
    if not sentences:
        return Reading(Want.NOTHING)
    beginning = words(text[:_BEGINNING]) if len(text) <= _BEGINNING else []
    rest = _without(beginning, _GREETINGS)
    if beginning and not rest:
        return Reading(Want.GREETING)
    if rest and not _without(rest, _ABOUT):
        return Reading(Want.ABOUT)
    if rest and not _without(rest, _THANKS):
        return Reading(Want.THANKS)
    return _work(sentences) or _question(sentences)


def _without(given: Sequence[str], phrases: Sequence[tuple[str, ...]]) -> Sequence[str]:
    """The words after any of the phrases and the fillers that follow them."""
    at = 0
    while at < len(given):
        here = (each for each in phrases if tuple(given[at : at + len(each)]) == each)
        found = next(here, None)
        if found is None:
            break
        at += len(found)
        while at < len(given) and given[at] in _FILLERS:
            at += 1
    return given[at:]


def _work(sentences: Sequence[str]) -> Reading | None:
    """What shall be done with a text that stands before the request for it, or after."""
    head, colon, tail = sentences[0].partition(":")
    want = _wanted(head)
    if want is not None:
        passage = [tail.strip()] if colon and tail.strip() else []
        return Reading(want, head, (*passage, *sentences[1:]), _size(head))
    want = _wanted(sentences[-1])
    if want is not None:
        return Reading(want, sentences[-1], tuple(sentences[:-1]), _size(sentences[-1]))
    return None


def _wanted(sentence: str) -> Want | None:
    if _asks_for_summary(sentence):
        return Want.SUMMARY
    rest = words(sentence[:_BEGINNING])
    while rest and (rest[0] in _POLITE or rest[0] in _BEFORE_NOUN or rest[0].isdecimal()):
        rest = rest[1:]
    # `The tone is warm` tells something of one.
    if not rest or not _SAYS_OF_IT.isdisjoint(rest[1:2]):
        return None
    if rest[0] in _SENTIMENT_NOUNS:
        return Want.SENTIMENT
    if rest[0] in _KEYWORD_NOUNS or (rest[0] == "key" and rest[1:2] in _KEY_WHAT):
        return Want.KEYWORDS
    offered = sum(each in _FEELINGS for each in rest) > 1
    asks = rest[0] in _FEELINGS or is_question(sentence)
    return Want.SENTIMENT if offered and asks else None


def _asks_for_summary(sentence: str) -> bool:
    rest = words(sentence[:_BEGINNING])
    while rest and rest[0] in _POLITE:
        rest = rest[1:]
    if not rest:
        return False
    if rest[0] in _SUMMARY_VERBS or rest[:2] == ["tl", "dr"]:
        return True
    if rest[0] == "sum" and "up" in rest[1:4]:
        return True
    while rest and (rest[0] in _BEFORE_SUMMARY or rest[0].isdecimal()):
        rest = rest[1:]
    if rest and rest[0] == "most":
        rest = rest[1:]
    if rest and rest[0] in _SUMMARY_NOUNS:
        # `The summary is due on Friday` tells something of one.
        return _SAYS_OF_IT.isdisjoint(rest[1:2])
    return rest[:1] != [] and rest[0] in _MAIN and not _POINTS.isdisjoint(rest[1:2])


def _size(sentence: str) -> int | None:
    """The number in `in three sentences`."""
    found = words(sentence[:_BEGINNING])
    for word, *after in zip(found, found[1:], [*found[2:], ""], strict=False):
        number = int(word) if word.isdecimal() and len(word) < 4 else _NUMBERS.get(word, 0)
        if number and any(each.startswith(_UNITS) for each in after):
            return min(number, _MOST_SENTENCES)
    return None


def _question(sentences: Sequence[str]) -> Reading:
    asked = [each for each in sentences if is_question(each)]
    if asked:
        told = tuple(each for each in sentences if not is_question(each))
        return Reading(Want.ANSWER, " ".join(asked), told)
    if _asks(sentences[-1]) or (len(sentences) == 1 and _names_a_subject(sentences[0])):
        return Reading(Want.ANSWER, sentences[-1], tuple(sentences[:-1]))
    if _asks(sentences[0]):
        return Reading(Want.ANSWER, sentences[0], tuple(sentences[1:]))
    return Reading(Want.TO_TELL, passage=tuple(sentences))


def is_question(sentence: str) -> bool:
    """Whether it ends in a question mark."""
    return sentence.rstrip(_CLOSING).endswith(_QUESTION_MARKS)


def _asks(sentence: str) -> bool:
    if any(each in sentence for each in _ASKING_INSIDE):
        return True
    found = words(sentence[:_BEGINNING])
    while found and found[0] in ("please", "and", "so", "then", "but", "ok", "now", "hello", "hi"):
        found = found[1:]
    # `What we sell is bread.` begins as a question does, and is none.
    told = sentence.endswith(".") and found[:1] != [] and found[0] not in _ORDERS
    return found[:1] != [] and found[0] in _ASKING and not told and len(found) <= _LONGEST_REQUEST


def _names_a_subject(sentence: str) -> bool:
    """Whether it is what people type into a search box, such as `warranty period`."""
    found = words(sentence)
    few = len(content(sentence)) > 0 and len(found) <= 5
    return few and not sentence.endswith((".", "!", "。")) and _TELLING.isdisjoint(found)
