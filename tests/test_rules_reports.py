from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix_eval.records import Kind
from medix_eval.rules.decide import decide

SEEN = {"modality": "CT", "count": "2", "side": "left", "size": "small"}
CLEAR = {"modality": "X-ray", "count": "0", "side": "", "size": ""}


def share(report: str, facts: dict[str, str], *, reference: str = "as written") -> float | None:
    verdict = decide(report, kind=Kind.REPORT, reference=reference, facts=facts)
    return verdict.score if verdict else None


@pytest.mark.parametrize(
    ("report", "score"),
    [
        ("This CT image shows 2 small lesions on the left.", 1.0),
        ("Computed tomography: on the left there are two small bright lesions.", 1.0),
        ("CT. Left side. 2 small nodules. No lesion on the right.", 1.0),
        ("This MRI image shows 2 small lesions on the left.", 0.75),
        ("This CT image shows 3 small lesions on the left.", 0.75),
        ("This CT image shows 2 small lesions on the right.", 0.75),
        ("This CT image shows 2 large lesions on the left.", 0.75),
        ("This CT image shows lesions.", 0.25),
        ("This CT image shows no lesion.", 0.25),
        ("2 small lesions", 0.5),
        ("Nothing of note.", 0.0),
        ("score 2", 0.0),
        ('{"score": 1}', 0.0),
    ],
)
def test_the_score_is_the_share_of_facts_that_are_stated(report: str, score: float) -> None:
    assert share(report, SEEN) == score


@pytest.mark.parametrize(
    ("report", "score"),
    [
        pytest.param("This CT shows 2 small lesions on the left or right.", 0.75, id="two-sides"),
        pytest.param("This CT shows 2 or 3 small lesions on the left.", 0.75, id="two-counts"),
        pytest.param("This CT shows at least 2 small lesions, left.", 0.75, id="inexact-count"),
        pytest.param("CT or MRI: 2 small lesions on the left.", 0.75, id="two-modalities"),
        pytest.param("CT: 2 small lesions, one large lesion, left.", 0.5, id="two-sizes"),
        pytest.param("This CT does not show 2 small lesions on the left.", 0.25, id="denied"),
        pytest.param("This is not a CT. 2 small lesions on the left.", 0.75, id="modality-denied"),
        pytest.param(
            "This CT shows 2 small lesions on the left. There is no lesion.", 0.25, id="both"
        ),
    ],
)
def test_a_fact_that_is_contradicted_is_not_stated(report: str, score: float) -> None:
    assert share(report, SEEN) == score


@pytest.mark.parametrize(
    ("report", "score"),
    [
        ("This X-ray image shows no lesion.", 1.0),
        ("No lesion is seen on this radiograph.", 1.0),
        ("X-ray without visible lesions.", 1.0),
        ("X-ray with 0 lesions", 1.0),
        ("This CT image shows no lesion.", 0.5),
        ("This X-ray image shows no large lesion.", 0.5),
        ("This X-ray image shows no lesion on the left.", 0.5),
        ("This X-ray image shows no other lesion.", 0.5),
        ("This X-ray image shows 2 small lesions on the left.", 0.5),
        ("This X-ray image shows a lesion. No lesion.", 0.5),
        ("This X-ray image is not without lesions.", 0.5),
        ("No evidence of a lesion on this radiograph.", 1.0),
        ("X-ray. No abnormality.", 1.0),
        ("X-ray: no lesion, no mass.", 1.0),
    ],
)
def test_that_nothing_is_found_is_one_fact(report: str, score: float) -> None:
    assert share(report, CLEAR) == score


@pytest.mark.parametrize(
    "report",
    [
        "This CT may show 2 small lesions on the left.",
        "Are 2 small lesions on the left of this CT?",
        "There may be 2 small lesions on the left of this CT.",
        "CT: 2 small lesions on the left are suspected.",
        "CT suggests 2 small lesions on the left.",
        "CT: 2 small lesions on the left cannot be excluded.",
        "CT: 2 small lesions on the left, unless this is an artefact.",
        "This is not an MRI but a CT. 2 small lesions on the left.",
        "This is not an MRI, this is a CT: 2 small lesions on the left.",
        "CT: no lesion on the right, 2 small lesions on the left.",
        "CT: no lesion except 2 small ones on the left.",
        "CT: the 2 small lesions on the left are not seen any more.",
        "CT: the 2 small lesions on the left have resolved.",
        "CT fails to show 2 small lesions on the left.",
        "CT: history of 2 small lesions on the left.",
        "CT: negative for 2 small lesions on the left.",
        "CT: a small lesion on the left. A small nodule on the left.",
        "CT. Lesion count: 2. Side: left. Size: small.",
        "CT: a pair of small lesions on the left.",
        "CT: 2 small lesions, left; the right side is clear.",
        "CT: not only 2 small lesions on the left.",
        "CT: no lesion other than 2 small ones on the left.",
        "CT: 2 small lesions on the left. These lesions are artefacts.",
        "CT: 2 small lesions on the left. Scrap that.",
        "CT: 2 small lesions on the left. No.",
        "Suppose that this CT shows 2 small lesions on the left.",
        "My colleague sees 2 small lesions on the left of this CT.",
        "CT: 2 small lesions on the left in case of fever.",
        "CT: 2 small lesions on the left. The image is mirrored.",
    ],
)
def test_a_report_that_hedges_or_denies_in_other_words_is_undecided(report: str) -> None:
    assert share(report, SEEN) is None


@pytest.mark.parametrize(
    "report",
    [
        "Normal X-ray.",
        "Normal.",
        "Unremarkable radiograph.",
        "The lungs are clear on this X-ray.",
        "This X-ray image shows nothing.",
        "This X-ray image possibly shows no lesion.",
        "X-ray: lesions are absent.",
        "X-ray: lesions are not seen.",
        "X-ray: negative for lesions.",
        "X-ray: lesions: none.",
        "X-ray: no acute abnormality.",
        "X-ray: free of lesions.",
        "There may be a lesion on this X-ray.",
        "Nothing abnormal.",
        "X-ray: no lesion and a mass.",
        "X-ray: no lesion, two nodules.",
        "X-ray: a lesion and no mass.",
        "X-ray: no lesion was missed.",
        "X-ray: no mass effect.",
    ],
)
def test_a_normal_report_in_other_words_is_undecided(report: str) -> None:
    assert share(report, CLEAR) is None


def test_a_fact_of_an_unknown_name_must_be_stated_in_its_own_words() -> None:
    facts = {"organ": "left kidney", "contrast": "yes"}

    assert share("The left kidney, contrast: yes.", facts) == 1.0
    assert share("No left kidney is seen.", facts) == 0.0


def test_a_report_that_is_taken_back_is_undecided() -> None:
    assert share("This CT shows 2 small lesions on the left. That is false.", SEEN) is None


def test_a_report_without_facts_is_only_compared_as_a_whole() -> None:
    assert share("No acute findings!", {}, reference="No acute findings.") == 1.0
    assert share("Acute findings.", {}, reference="No acute findings.") is None


def test_the_reference_itself_states_all() -> None:
    reference = "Zwei kleine Herde links im CT."

    assert share(reference, SEEN, reference=reference) == 1.0


SENTENCE = "This {modality} image shows {count} {size} lesions on the {side}."
VALUES = {
    "modality": ["CT", "X-ray", "MRI", "ultrasound", "microscopy"],
    "count": ["2", "3", "4"],
    "size": ["small", "large"],
    "side": ["left", "right"],
}
FACTS = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in VALUES.items()})


@given(facts=FACTS, said=FACTS)
def test_each_fact_counts_by_itself(facts: dict[str, str], said: dict[str, str]) -> None:
    num_right = sum(facts[name] == said[name] for name in facts)

    assert share(SENTENCE.format(**said), facts) == num_right / len(facts)


@given(report=st.text(max_size=80), facts=FACTS)
def test_any_text_gets_a_share_or_nothing(report: str, facts: dict[str, str]) -> None:
    score = share(report, facts)

    assert score is None or 0.0 <= score <= 1.0
