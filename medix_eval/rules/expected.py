"""What a task knows about the right answer of one sample: all that a rule may compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from medix_eval.records import RuleVerdict
from medix_eval.rules.text import Text, read, words


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The reference, and what belongs to it."""

    reference: str
    options: tuple[str, ...] = ()
    """The texts of the options in the order of their letters."""
    facts: Mapping[str, str]
    """What a report must state, by name."""

    @property
    def text(self) -> Text:
        """The reference as tokens."""
        return read(self.reference)

    @property
    def words(self) -> tuple[str, ...]:
        """The reference as words."""
        return words(self.reference)


Rule = Callable[[Text, Expected], RuleVerdict | None]
"""Judges an answer, or returns None where it is not certain: then the next rule is asked."""
