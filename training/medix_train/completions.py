"""Read a trained model's completion: modality tag, thinking, answer.

MediX-R1 writes `<CT_SCAN><thinking>why</thinking><answer>what</answer>`. A policy writes whatever
pays, so reading is strict: what is rewarded is one such text and nothing around it. The published
reading, which a policy can play, stands in `editions`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from medix_eval.errors import DatasetError

MODALITIES = frozenset(
    [
        *("X_RAY", "CT_SCAN", "MRI_SCAN", "PET_SCAN", "SPECT", "ULTRASOUND", "OCT_SCAN"),
        *("ANGIOGRAPHY", "FLUOROSCOPY", "MAMMOGRAPHY", "FUNDUS_PHOTOGRAPHY", "ENDOSCOPY"),
        *("MICROSCOPY", "CLINICAL_PHOTOGRAPHY", "GRAPHICS", "OTHER"),
    ]
)
"""The tags of `MBZUAI/medix-rl-data`."""
_TAG = re.compile(r"<\s{0,9}/?\s{0,9}(?:think(?:ing)?|answer)\b[^<>]{0,99}>", re.IGNORECASE)
_SHAPE = ["<thinking>", "</thinking>", "<answer>", "</answer>"]
_WORD = re.compile(r"\w")


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """What the dataset says of a sample: its modality tag and the reference."""

    modality: str
    """The tag with its brackets, such as `<CT_SCAN>`."""
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a completion holds."""

    modality: str
    """What stands before the thinking, brackets included."""
    answer: str
    """What is judged; empty where there is no one final answer."""
    is_well_formed: bool


def read_solution(solution: str) -> Solution:
    r"""Split `<CT_SCAN>\nleft lung`; raises `DatasetError` where the tag or the answer is missing.

    >>> read_solution("<CT_SCAN>\nleft lung")
    Solution(modality='<CT_SCAN>', reference='left lung')
    """
    tag, bracket, reference = solution.partition(">")
    modality = tag.strip().removeprefix("<").strip().upper()
    if not bracket or modality not in MODALITIES:
        raise DatasetError(
            f"solution {solution[:60]!r} does not begin with a modality tag",
            hint=f"such as <CT_SCAN>; known tags: {', '.join(sorted(MODALITIES))}",
        )
    if not reference.strip():
        raise DatasetError(f"solution {solution[:60]!r} has no answer behind its tag")
    return Solution(modality=f"<{modality}>", reference=reference.strip())


def read_completion(text: str) -> Reading:
    """Read a completion strictly.

    It is well formed if it is one known modality tag, thinking with words, one answer, and nothing
    else. Where it is not, its answer still counts if it is the only one and ends the text.

    >>> read_completion("<X_RAY><thinking>It bends.</thinking><answer>fracture</answer>").answer
    'fracture'
    >>> read_completion("It may be a fracture").answer
    ''
    """
    tags = list(_TAG.finditer(text))
    modality = text[: tags[0].start()].strip() if tags else ""
    inside = [text[tag.end() : after.start()] for tag, after in pairwise(tags)]
    answer = inside[-1].strip() if _ends_in_one_answer(tags, text) else ""
    is_well_formed = (
        [tag[0] for tag in tags] == _SHAPE
        and modality.startswith("<")
        and modality.strip("<>").upper() in MODALITIES
        and bool(_WORD.search(inside[0]))
        and not inside[1].strip()
        and bool(answer)
    )
    return Reading(modality=modality, answer=answer, is_well_formed=is_well_formed)


def num_tags(text: str) -> int:
    """Count thinking and answer tags; a well-formed completion has four."""
    return len(_TAG.findall(text))


def text_outside(text: str) -> int:
    """Count the characters behind the last tag, where a policy puts what it wants overlooked."""
    last = 0
    for tag in _TAG.finditer(text):
        last = tag.end()
    return len(text[last:].strip())


def _ends_in_one_answer(tags: list[re.Match[str]], text: str) -> bool:
    names = [tag[0] for tag in tags]
    answers = [name for name in names if "answer" in name.lower()]
    return (
        names[-2:] == _SHAPE[2:]
        and len(answers) == len(_SHAPE[2:])
        and names[-3:-2] in ([], ["</thinking>"])
        and not text[tags[-1].end() :].strip()
    )
