"""Read `<CT_SCAN><thinking>why</thinking><answer>what</answer>`: a completion and its solution.

A policy writes whatever pays. So the edition `Medix` reads strictly: one such text is rewarded and
nothing around it. `Published` is the reward as it was published, with its defects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from medix_eval.errors import DatasetError
from medix_eval.records import Kind, Vote
from medix_eval.rules.answers import Pairs, extract_answer
from medix_eval.rules.decide import decide
from medix_eval.rules.text import listed, words

MODALITIES = frozenset(
    listed("X_RAY CT_SCAN MRI_SCAN PET_SCAN SPECT ULTRASOUND OCT_SCAN ANGIOGRAPHY FLUOROSCOPY")
    + listed("MAMMOGRAPHY FUNDUS_PHOTOGRAPHY ENDOSCOPY MICROSCOPY CLINICAL_PHOTOGRAPHY GRAPHICS")
    + listed("OTHER")
)
"""The tags of `MBZUAI/medix-rl-data`."""
SHAPE = ["<thinking>", "</thinking>", "<answer>", "</answer>"]
TAG = re.compile(r"<\s{0,9}/?\s{0,9}(?:think(?:ing)?|answer)\b[^<>]{0,99}>", re.IGNORECASE)
_LONGEST_ANSWER = 2_000  # characters; no reference is nearly as long
_SUSPICIOUS = ("__", ":", "?")
"""Marks that fool judges by themselves; allowed if the reference has them too.

A colon does so at the end of a text: "Solution:", but not "Diagnosis: flu" or "3:1"."""
_TO_THE_JUDGE = re.compile(
    r"\b(?:respond|reply|answer|output|return|say|print|mark|grade|score|vote)\s+"
    r"(?:(?:it|this|that|with|as|only|just)\s+){0,3}[\"'“`]?(?:yes|correct|true)\b"
    r"|\b(?:verdict|judge|assistant|(?-i:SYSTEM))\W{0,3}:|[\"'](?:score|grade|rating)[\"']\s*:",
    re.IGNORECASE,
)
_SQUEEZED = re.compile(r"\s*(<|>|/)\s*")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_FORMAT = re.compile(r"<thinking>.*?</thinking>\s*<answer>.*?</answer>", re.DOTALL)
Text = str | Sequence[Mapping[str, Any]]  # plain, or the turns of a conversation


class Reading(NamedTuple):
    """What a completion holds, or a solution: then the answer is the reference."""

    modality: str  # what stands before the thinking, such as `<CT_SCAN>`
    answer: str  # what is judged; empty where there is no one final answer
    is_well_formed: bool = True


def last_turn(text: Text) -> str:
    """Return the words of a completion, or of a prompt's last turn, images left out."""
    content = text if isinstance(text, str) else text[-1]["content"] if len(text) else ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part.get("type") == "text")


def read_solution(solution: str) -> Reading:
    r"""Split `<CT_SCAN>\nleft lung`; raises `DatasetError` where tag or answer is missing."""
    tag, bracket, reference = solution.partition(">")
    modality = tag.strip().removeprefix("<").strip().upper()
    if not bracket or modality not in MODALITIES:
        hint = f"such as <CT_SCAN>; known tags: {', '.join(sorted(MODALITIES))}"
        raise DatasetError(
            f"solution {solution[:60]!r} does not begin with a modality tag", hint=hint
        )
    if not reference.strip():
        raise DatasetError(f"solution {solution[:60]!r} has no answer after its tag")
    return Reading(f"<{modality}>", reference.strip())


def read_completion(text: str, *, more: Pairs = ()) -> Reading:
    """Read a completion strictly.

    It is well formed if it is one known modality tag, thinking with words, one answer, and nothing
    else. Where it is not, its answer still counts if it is the only one and ends the text, and if
    an evaluation reads the same: no family's marks, nor `more` of a protocol, make a thought of it.
    """
    tags, parts = TAG.findall(text), TAG.split(text)
    modality = parts[0].strip() if tags else ""
    ends_in_one_answer = (
        tags[-2:] == SHAPE[2:]
        and tags[-3:-2] in ([], SHAPE[1:2])
        and sum("answer" in tag.lower() for tag in tags) == len(SHAPE[2:])
        and not parts[-1].strip()
    )
    answer = parts[-2].strip() if ends_in_one_answer else ""
    answer = answer if answer == extract_answer(text, more=more) else ""
    is_well_formed = (
        tags == SHAPE
        and modality.startswith("<")
        and modality.strip("<>").upper() in MODALITIES
        and bool(re.search(r"\w", parts[1]))
        and not parts[2].strip()
        and bool(answer)
    )
    return Reading(modality, answer, is_well_formed)


class Medix:
    """The corrected edition of the reward."""

    sees_question = True  # whether the judge is shown the question
    solution = staticmethod(read_solution)
    reading = staticmethod(read_completion)

    def settle(self, answer: str, reference: str) -> float | None:
        """Return what the rules are certain of, 0 for a non-answer, None if it must be judged.

        Text that addresses the judge instead of the question is not an answer, nor is one so
        long that the judge would refuse it: provoking a failure must not pay.
        """
        if verdict := decide(answer, kind=Kind.OPEN, reference=reference):
            return verdict.score
        text = answer.rstrip()
        is_worthless = (
            not words(answer)
            or len(answer) > _LONGEST_ANSWER
            or any(
                mark in (text[-1:] if mark == ":" else text) and mark not in reference
                for mark in _SUSPICIOUS
            )
            or _TO_THE_JUDGE.search(answer)
        )
        return 0.0 if is_worthless else None

    def verdict(self, score: float | None, vote: Vote) -> float | None:
        """Take the verdict as the harness reads it."""
        return score


class Published:
    """The published edition: what it pays for, a policy will learn."""

    sees_question = False

    def solution(self, text: str) -> Reading | None:
        """Split at the first `>`; without one no answer can be right, silently."""
        tag, bracket, reference = text.partition(">")
        return Reading(f"{tag.strip()}>", reference.strip().strip(".")) if bracket else None

    def reading(self, completion: str, *, more: Pairs = ()) -> Reading:
        """Take the first answer wherever it stands, else everything."""
        text = _SQUEEZED.sub(r"\1", completion)
        before, thinking, _ = text.partition("<thinking>")
        found = _ANSWER.search(text)
        answer = (found[1] if found else text).strip().strip(".")
        is_well_formed = bool(thinking and _FORMAT.fullmatch(text, len(before)))
        return Reading(before.strip(), answer, is_well_formed)

    def settle(self, answer: str, reference: str) -> float | None:
        """Refuse one letter and three marks, whatever the reference says; then compare exactly."""
        if len(answer) <= 1 or any(mark in answer for mark in _SUSPICIOUS):
            return 0.0
        return 1.0 if answer == reference else None

    def verdict(self, score: float | None, vote: Vote) -> float | None:
        """Look for YES anywhere in the reply."""
        return vote.points if vote.reply is None else float("YES" in vote.reply)


EDITIONS: dict[str, Medix | Published] = {"medix": Medix(), "medix-compat": Published()}
