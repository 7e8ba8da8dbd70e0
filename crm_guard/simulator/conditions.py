"""Conditions joined by `and` and `or`, as search criteria and COQL have them. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

MAX_DEPTH = 50
"""How deep parentheses may be nested: far more than the criteria that are allowed can use. Undocumented."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison.

    Attributes:
        field: API name of the field.
        operator: As the language calls it, in lower case.
        values: What it is compared with, as texts.
    """

    field: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions of which all (`every`) or at least one has to hold."""

    every: bool
    parts: tuple[Tree, ...]


Tree: TypeAlias = Condition | Group


def held(tree: Tree, test: Callable[[Condition], Sequence[bool]]) -> Sequence[bool]:
    """Return for which records a tree holds, where `test` tells this of one condition.

    It is asked once about each condition, also where the tree has it several times.
    """
    return _held(tree, {condition: test(condition) for condition in dict.fromkeys(conditions(tree))})


def _held(tree: Tree, known: Mapping[Condition, Sequence[bool]]) -> Sequence[bool]:
    if isinstance(tree, Condition):
        return known[tree]
    join = all if tree.every else any
    return [join(found) for found in zip(*(_held(part, known) for part in tree.parts), strict=True)]


def conditions(tree: Tree) -> Iterator[Condition]:
    """Yield all conditions of a tree, in their order."""
    if isinstance(tree, Condition):
        yield tree
        return
    for part in tree.parts:
        yield from conditions(part)


def joined(parts: list[Tree], words: list[str]) -> Tree:
    """Return parts with the words between them as one tree: `and` binds before `or` (undocumented)."""
    runs: list[list[Tree]] = [[parts[0]]]
    for word, part in zip(words, parts[1:], strict=True):
        if word == "and":
            runs[-1].append(part)
        else:
            runs.append([part])
    either = [run[0] if len(run) == 1 else Group(every=True, parts=tuple(run)) for run in runs]
    return either[0] if len(either) == 1 else Group(every=False, parts=tuple(either))
