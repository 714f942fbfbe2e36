"""Why a parser gives a file up."""

from __future__ import annotations


class Refused(Exception):
    """A file cannot be read; `reason` is a name of the domain's `Reason`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
