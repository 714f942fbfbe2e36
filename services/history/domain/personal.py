"""What a user says of themselves, by conservative rules: better nothing than a wrong memory."""

from __future__ import annotations

import re

_TELLS = re.compile(
    r"^(?:(?:hi|hello|hey|well|also|and|by the way|btw|please remember(?: that)?|remember(?: that)?"
    r"|note(?: that)?)[,:!]? +)*"
    r"(?:my (?:\w+ ){1,3}(?:is|are)\b"
    r"|i (?:prefer|like|love|hate|live in|work (?:at|for|as|in|on))\b"
    r"|i(?: a|['’])m (?:an? )?\w|we use\b|we(?: have|['’]ve)? (?:decided|agreed|chose)\b"
    r"|our (?:\w+ ){1,4}(?:is|are)\b)",
    re.IGNORECASE,
)
_MOODS = re.compile(
    r"\bi(?: a|['’])m (?:\w+ing|not|so|very|afraid|sorry|sure|fine|ok|okay|here|back|done|happy|sad"
    r"|just|also|still|trying)\b|\bmy (?:question|problem|point|guess|mistake|bad) (?:is|are)\b"
    r"|\b(?:if|maybe|perhaps|suppose|would|might)\b",
    re.IGNORECASE,
)


def tells(sentence: str) -> bool:
    """Whether a sentence of a user states something lasting of them or of what is theirs."""
    asks = sentence.rstrip().endswith(("?", "？"))
    return not asks and bool(_TELLS.match(sentence)) and not _MOODS.search(sentence)
