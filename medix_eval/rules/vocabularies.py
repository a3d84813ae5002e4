"""Words that exclude each other: who says one of them has not said another.

Only what holds in every report is listed. A word that is missing costs a decision, never a wrong
one; a synonym that is not always one would cost the truth of a score.
"""

from __future__ import annotations

from collections.abc import Mapping

from medix_eval.rules.text import words

_SIDE = {"left": ("left",), "right": ("right",), "both": ("both", "bilateral")}
_SIZE = {"small": ("small",), "large": ("large", "big")}
_MODALITY = {
    "x-ray": ("x-ray", "xray", "radiograph", "plain film"),
    "ct": ("ct", "computed tomography"),
    "mri": ("mri", "magnetic resonance imaging", "magnetic resonance"),
    "ultrasound": ("ultrasound", "ultrasonography", "sonography"),
    "microscopy": ("microscopy", "microscopic"),
}

Vocabulary = Mapping[tuple[str, ...], str]
"""Each phrase, as words, and the value it means."""


def _vocabulary(values: Mapping[str, tuple[str, ...]]) -> Vocabulary:
    return {words(phrase): value for value, phrases in values.items() for phrase in phrases}


VOCABULARIES: dict[str, Vocabulary] = {
    "side": _vocabulary(_SIDE),
    "size": _vocabulary(_SIZE),
    "modality": _vocabulary(_MODALITY),
}
"""By the name that a task gives to a fact."""

ORGANS = _vocabulary(
    {
        "brain": ("brain", "cerebrum", "cerebral"),
        "heart": ("heart", "cardiac"),
        "lung": ("lung", "lungs", "pulmonary"),
        "liver": ("liver", "hepatic"),
        "spleen": ("spleen", "splenic"),
        "pancreas": ("pancreas", "pancreatic"),
        "kidney": ("kidney", "kidneys", "renal"),
        "urinary bladder": ("urinary bladder", "bladder"),
        "gallbladder": ("gallbladder", "gall bladder"),
        "stomach": ("stomach", "gastric"),
        "colon": ("colon", "colonic"),
        "prostate": ("prostate", "prostatic"),
        "uterus": ("uterus", "uterine"),
        "ovary": ("ovary", "ovaries", "ovarian"),
        "breast": ("breast", "breasts"),
        "thyroid": ("thyroid", "thyroid gland"),
        "eye": ("eye", "eyes"),
    }
)
"""Only for naming mistakes: an organ may be part of another answer, so no rule decides by these."""
