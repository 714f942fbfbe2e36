"""Which commits are kept, and what is kept of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Made:
    """A commit, as far as it matters here."""

    commit_id: str
    parents: tuple[str, ...]
    create_time: int
    root: str
    pruned: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of commits.

    Attributes:
        gone: No name leads to them.
        pruned: They stay, but not what they held.
        whole: They can be read as before.
    """

    gone: set[str]
    pruned: set[str]
    whole: set[str]


def judge(
    commits: Mapping[str, Made], main: str, names: Collection[str], horizon: int | None
) -> Verdict:
    """What is to become of the commits of a space.

    Kept whole is what a name stands for, what was current on any branch since the horizon, and
    where each branch parted from `main`: a merge compares with it.

    Args:
        commits: All of the space.
        main: The head of `main`.
        names: Where the branches and tags lead to, `main` among them.
        horizon: What was current before it is not kept; None keeps all that a name leads to.
    """
    reached = _before(commits, names)
    gone = commits.keys() - reached
    if horizon is None:
        whole = {each for each in reached if not commits[each].pruned}
        return Verdict(set(gone), set(), whole)
    of_main = _before(commits, [main])
    whole = {each for each in names if each in commits}
    for each in reached:
        made = commits[each]
        if made.create_time >= horizon:
            # Until it was made its parents were current, and that was after the horizon.
            whole |= {each, *(parent for parent in made.parents if parent in commits)}
        if each not in of_main:
            whole |= {parent for parent in made.parents if parent in of_main}
    whole = {each for each in whole if not commits[each].pruned}
    pruned = {each for each in reached - whole if not commits[each].pruned}
    return Verdict(set(gone), pruned, whole)


def _before(commits: Mapping[str, Made], names: Iterable[str]) -> set[str]:
    """The commits that lead to some, themselves included."""
    left = [each for each in names if each in commits]
    found = set(left)
    while left:
        for parent in commits[left.pop()].parents:
            if parent in commits and parent not in found:
                found.add(parent)
                left.append(parent)
    return found
