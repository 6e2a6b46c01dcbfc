r"""Prompts as trees: captions in quotes, joined by AND, OR and NOT.

    prompt  =  [weight] all { "OR" [weight] all }
    all     =  one { "AND" one }
    one     =  "NOT" [ "^" strength ] one  |  ( caption | "(" prompt ")" ) [ "^" power ]

NOT binds before AND, and AND before OR. A caption stands in double or single quotes; weights, strengths and powers are
positive numbers; case does not matter in AND, OR and NOT. Of the terms of an OR either all have weights or none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ..checks.text import misread, shown
from ..errors import ArgumentTypeError

#: Most parentheses and NOTs within each other.
DEEPEST = 50
_TOKEN = re.compile(
    r"""\s*(?:(?P<caption>"[^"]*"|'[^']*'|“[^”]*”)|(?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)"""
    r"""|(?P<word>[^\W\d]+)|(?P<mark>[()^])|(?P<end>$))"""
)


class Caption(NamedTuple):
    """A caption, which begins at `start` of the prompt."""

    text: str
    start: int


class And(NamedTuple):
    """All of the parts."""

    parts: tuple


class Or(NamedTuple):
    """Any of the parts, with positive weights, one each."""

    parts: tuple
    weights: tuple[float, ...]


class Not(NamedTuple):
    """Not the one part, with a strength."""

    parts: tuple
    strength: float


class Power(NamedTuple):
    """The one part, exaggerated by a power."""

    parts: tuple
    power: float


Tree = Caption | And | Or | Not | Power


def fold(tree: Tree, leaf: Callable[[Caption], Any], node: Callable[[Any, list], Any]) -> Any:
    """The value of a tree: `leaf(caption)`, and `node(node, values of its parts)`."""
    return leaf(tree) if isinstance(tree, Caption) else node(tree, [fold(part, leaf, node) for part in tree.parts])


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


def parse(text: str) -> Tree:
    """The tree of a prompt.

    Raises:
        TextError: where it does not follow the grammar; it says where.
        ArgumentTypeError: if it is no text.
    """
    if not isinstance(text, str):
        raise ArgumentTypeError(f'a prompt must be text; got {shown(text)}. Give \'"a cube" AND "sand"\', say.')
    if not text.strip():
        raise misread('a prompt needs a caption, such as "a cube" in quotes', text, 0, len(text))
    reader = _Reader(text)
    tree = reader.any_of(0)
    if reader.token.kind != "end":
        closing = reader.token.text == ")"
        raise reader.wrong("there is no ( for this )" if closing else "AND or OR must stand between captions")
    return tree


class _Reader:
    """Reads a prompt from left to right; `token` is the one that comes next."""

    def __init__(self, text: str):
        self.text, self.place = text, 0
        self.token = self._next()

    def _next(self) -> _Token:
        match = _TOKEN.match(self.text, self.place)
        if match is None:
            start = len(self.text) - len(self.text[self.place :].lstrip())
            if self.text[start] in "\"'“":
                raise misread("this quote is not closed", self.text, start, len(self.text))
            raise misread("this means nothing here. Captions stand in quotes", self.text, start, start + 1)
        kind = str(match.lastgroup)
        self.place = match.end()
        text = match[kind].upper() if kind == "word" else match[kind]
        return _Token(kind, text, match.start(kind))

    def wrong(self, reason: str):
        """The error of the next token."""
        return misread(reason, self.text, self.token.start, self.token.start + len(self.token.text))

    def take(self, *texts: str) -> bool:
        """Whether the next token is one of these operators or marks; then it is read."""
        found = self.token.kind in ("word", "mark") and self.token.text in texts
        if found:
            self.token = self._next()
        return found

    def number(self, what: str) -> float:
        """The next token as a positive number, read."""
        if self.token.kind != "number" or not 0 < float(self.token.text) < 1e6:
            raise self.wrong(f"{what} must be a positive number")
        value = float(self.token.text)
        self.token = self._next()
        return value

    def any_of(self, depth: int) -> Tree:
        parts, weights, starts = [], [], []
        while True:
            starts.append(self.token)
            weights.append(self.number("a weight") if self.token.kind == "number" else None)
            parts.append(self.all_of(depth))
            if not self.take("OR"):
                break
        missing = [start for start, weight in zip(starts, weights, strict=True) if weight is None]
        if len(missing) == len(parts):
            weights = [1.0] * len(parts)
        elif missing or len(parts) == 1:
            self.token = missing[0] if missing else starts[0]
            raise self.wrong("give all terms of an OR a weight, or none" if missing else "a weight belongs to an OR")
        return parts[0] if len(parts) == 1 else Or(tuple(parts), tuple(weights))

    def all_of(self, depth: int) -> Tree:
        parts = [self.one(depth)]
        while self.take("AND"):
            parts.append(self.one(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def one(self, depth: int) -> Tree:
        if depth > DEEPEST:
            raise self.wrong(f"parentheses and NOT may go {DEEPEST} deep")
        if self.take("NOT"):
            strength = self.number("the strength of a NOT") if self.take("^") else 1.0
            return Not((self.one(depth + 1),), strength)
        token = self.token
        if self.take("("):
            tree = self.any_of(depth + 1)
            if not self.take(")"):
                if self.token.kind == "end":
                    self.token = token
                    raise self.wrong("there is no ) for this (")
                raise self.wrong("AND, OR or ) must stand here")
        elif token.kind == "caption":
            self.token = self._next()
            tree = Caption(token.text[1:-1], token.start + 1)
        elif token.kind == "word" and token.text not in ("AND", "OR"):
            raise self.wrong('captions stand in quotes, as in "a cube" AND "sand"')
        else:
            raise self.wrong("a caption in quotes, ( or NOT must stand here")
        return Power((tree,), self.number("a power")) if self.take("^") else tree
