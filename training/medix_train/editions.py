"""The two editions of the reward: `medix`, and `medix-compat` as it was published.

An edition says how a completion is read, when an answer is right without asking anybody, when it
is worth nothing, and what a judge's vote means. The rest is the same.
"""

from __future__ import annotations

import re

from medix_eval.judging.judge import Grade
from medix_eval.rules.text import normalise
from medix_train.completions import Reading, Solution, read_completion, read_solution

_LONGEST_ANSWER = 2_000
"""Characters; no reference is nearly as long."""
_SUSPICIOUS = ("__", ":", "?")
"""Marks that fool judges by themselves; fine where the reference holds them too."""
_TO_THE_JUDGE = re.compile(
    r"\b(?:respond|reply|answer|output|return|say|print|mark|grade|score|vote)\s+"
    r"(?:(?:it|this|that|with|as|only|just)\s+){0,3}[\"'“`]?(?:yes|correct|true)\b",
    re.IGNORECASE,
)


class Medix:
    """The corrected edition."""

    sees_question = True
    """Whether the judge is shown the question."""

    def solution(self, text: str) -> Solution:
        """Refuse what has no tag or no answer."""
        return read_solution(text)

    def reading(self, completion: str) -> Reading:
        """Read strictly."""
        return read_completion(completion)

    def settle(self, answer: str, reference: str) -> float | None:
        """Return 1 for an equal answer, 0 for what is none, None where it must be judged.

        An answer that speaks to the judge in place of the question is none, and neither is one so
        long that the judge would refuse it: a failure must not go unpunished where it was made.
        """
        said = normalise(answer)
        if said and said == normalise(reference):
            return 1.0
        is_worthless = (
            len(said) <= 1
            or len(answer) > _LONGEST_ANSWER
            or any(mark in answer and mark not in reference for mark in _SUSPICIOUS)
            or bool(_TO_THE_JUDGE.search(answer))
        )
        return 0.0 if is_worthless else None

    def vote(self, grade: Grade) -> float | None:
        """Take the verdict as the harness reads it."""
        return grade.score


class Published:
    """The published edition, with its defects: what it pays for, a policy will learn."""

    sees_question = False

    def solution(self, text: str) -> Solution | None:
        """Split at the first `>`; without one nothing can be right, and nobody is told."""
        tag, bracket, reference = text.partition(">")
        if not bracket:
            return None
        return Solution(modality=f"{tag.strip()}>", reference=reference.strip().strip("."))

    def reading(self, completion: str) -> Reading:
        """Take the first answer wherever it stands, else everything."""
        text = _SQUEEZED.sub(r"\1", completion)
        before, thinking, _ = text.partition("<thinking>")
        found = _ANSWER.search(text)
        return Reading(
            modality=before.strip(),
            answer=(found[1] if found else text).strip().strip("."),
            is_well_formed=bool(thinking and _FORMAT.fullmatch(text, len(before))),
        )

    def settle(self, answer: str, reference: str) -> float | None:
        """Refuse one letter and three marks, whatever the reference says; then compare exactly."""
        if len(answer) <= 1 or any(mark in answer for mark in _SUSPICIOUS):
            return 0.0
        return 1.0 if answer == reference else None

    def vote(self, grade: Grade) -> float | None:
        """Look for YES anywhere in the reply."""
        (vote,) = grade.votes
        return vote.points if vote.reply is None else float("YES" in vote.reply)


_SQUEEZED = re.compile(r"\s*(<|>|/)\s*")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_FORMAT = re.compile(r"<thinking>.*?</thinking>\s*<answer>.*?</answer>", re.DOTALL)

Edition = Medix | Published
EDITIONS: dict[str, Edition] = {"medix": Medix(), "medix-compat": Published()}
