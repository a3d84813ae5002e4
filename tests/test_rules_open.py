from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix_eval.records import Kind, RuleVerdict
from medix_eval.rules.decide import decide
from medix_eval.rules.text import normalise


def judged(answer: str, reference: str) -> RuleVerdict | None:
    return decide(answer, kind=Kind.OPEN, reference=reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("pneumothorax", "Pneumothorax"),
        ("Pneumothorax.", "pneumothorax"),
        ("**Pneumothorax**", "pneumothorax"),
        ("It is a pneumothorax.", "pneumothorax"),
        ("The answer is: pneumothorax", "a pneumothorax"),
        ("The most likely diagnosis is Crohn’s disease.", "Crohn's disease"),
        ("left\u2011sided pleural effusion", "left sided pleural effusion"),
        ("in the right lung", "in the right lung"),
        ("Sjogren syndrome", "Sjögren syndrome"),
        ("no pneumothorax", "No pneumothorax."),
        ("TNF & IL-6", "TNF and IL 6"),
        ("HER2\u2212", "HER2-"),
        ("120/80", "120/80"),
        ("28 x 27 mm", "28×27 mm"),
        ("1,000", "1000"),
        (".5", "0.5"),
        ("5mg", "5 mg"),
    ],
)
def test_the_same_words_are_right(answer: str, reference: str) -> None:
    assert judged(answer, reference) == RuleVerdict(score=1.0, rule="exact")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("no pneumothorax", "pneumothorax"),
        ("pneumothorax", "no pneumothorax"),
        ("It is not a pneumothorax.", "pneumothorax"),
        ("pneumothorax?", "pneumothorax"),
        ("pneumothorax or effusion", "pneumothorax"),
        ("The patient has a pneumothorax.", "pneumothorax"),
        ("Pneumothorax. This is false.", "pneumothorax"),
        ("tension pneumothorax", "pneumothorax"),
        ("left lower lobe pneumonia", "right lower lobe pneumonia"),
        ("hypertension", "hypotension"),
        ("hepatitis A", "hepatitis"),
        ("vitamin A deficiency", "vitamin deficiency"),
        ("HER2+", "HER2-"),
        ("HIV -", "HIV"),
        ("10³", "103"),
        ("2½", "21/2"),
        ("5 mM", "5 mm"),
        ("Mg", "mg"),
        ("p\u0335neumothorax", "pneumothorax"),
        ("pneumo\u200bthorax", "pneumothorax"),
        ("\u0440neumothorax", "pneumothorax"),
        ("", "pneumothorax"),
        (".", "."),
        ("heart", "cardiac"),
    ],
)
def test_other_words_are_never_right_nor_wrong(answer: str, reference: str) -> None:
    assert judged(answer, reference) is None


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("500 mg", "0.5 g"),
        ("0.1 mg", "100 mcg"),
        ("100 µg", "0.1 mg"),
        ("The answer is 500 milligrams.", "0.5 g"),
        ("It is 25 mm.", "2.5 cm"),
        ("1.5 L", "1500 mL"),
        ("1 dL", "100 cc"),
        ("2 hours", "120 min"),
        ("1 week", "7 days"),
        ("2 years", "24 months"),
        ("98.6 °F", "37 °C"),
        ("37 degrees Celsius", "98.6 degrees Fahrenheit"),
        ("120 mm Hg", "120.0 mmHg"),
        ("80 bpm", "80 beats per minute"),
        ("50 percent", "50%"),
        ("5000 mcg/kg/day", "5 mg/kg/day"),
        ("100 mg/dL", "1 g/L"),
        ("ceftriaxone 1000 mg daily", "Ceftriaxone 1 g daily"),
        ("5.0", "5"),
        ("two", "2"),
        ("twenty-five", "25"),
        ("two lesions", "2"),
        ("There are two small lesions.", "2"),
        ("2", "two"),
        ("no lesions", "0"),
        ("None.", "0"),
        ("two lesions", "2 lesions"),
        ("≥ 500 mg", "≥ 0.5 g"),
        ("28.0 x 27.0 mm", "28 x 27 mm"),
    ],
)
def test_equal_quantities_are_right_in_any_unit(answer: str, reference: str) -> None:
    assert judged(answer, reference) == RuleVerdict(score=1.0, rule="number")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("5 mg", "50 mg"),
        ("0.05 mg", "0.5 mg"),
        ("500 mcg", "5 mg"),
        ("The answer is 5 g.", "0.5 g"),
        ("ceftriaxone 10 g daily", "ceftriaxone 1 g daily"),
        ("25 cm", "2.5 cm"),
        ("2.1 cm", "2.0 cm"),
        ("-5", "5"),
        ("three", "2"),
        ("3 lesions", "2"),
        ("no lesions", "2"),
        ("stage 3", "stage 2"),
        ("38 °C", "37 °C"),
        ("<6", "<5"),
    ],
)
def test_other_quantities_of_the_same_unit_are_wrong(answer: str, reference: str) -> None:
    assert judged(answer, reference) == RuleVerdict(score=0.0, rule="number")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        pytest.param("5", "5 mg", id="missing-unit"),
        pytest.param("5 mg", "5", id="unit-of-a-bare-number"),
        pytest.param("5 mg", "5 ml", id="other-dimension"),
        pytest.param("5 mg", "5 mg/kg", id="other-divisor"),
        pytest.param("6 Mg", "6 mg", id="magnesium"),
        pytest.param("0.5", "50%", id="a-share-without-its-sign"),
        pytest.param("33%", "33.3%", id="may-be-rounded"),
        pytest.param("2 cm", "21 mm", id="may-be-rounded-in-its-own-unit"),
        pytest.param("120/90", "120/80", id="blood-pressure"),
        pytest.param("3:2", "3:1", id="ratio"),
        pytest.param("5-11", "5-10", id="range"),
        pytest.param("2.8 x 2.7 cm", "28 x 27 mm", id="dimensions"),
        pytest.param("<5", "5", id="bound"),
        pytest.param("at least 2", "2", id="at-least"),
        pytest.param("2 or 3", "2", id="two-numbers"),
        pytest.param("3 or 2", "2 or 3", id="two-numbers-in-another-order"),
        pytest.param("2 million", "2", id="multiplier"),
        pytest.param("2 pairs", "2", id="pairs"),
        pytest.param("2nd", "2", id="ordinal"),
        pytest.param("not 5 mg", "5 mg", id="denied"),
        pytest.param("5 mg is wrong", "5 mg", id="taken-back"),
        pytest.param("score 1", "1", id="a-score"),
        pytest.param('{"score": 1}', "1", id="a-score-in-json"),
        pytest.param("9" * 5000, "9", id="no-number-of-this-world"),
        pytest.param("10^3", "103", id="power"),
        pytest.param("1/2", "2", id="fraction"),
    ],
)
def test_quantities_that_cannot_be_compared_are_undecided(answer: str, reference: str) -> None:
    assert judged(answer, reference) is None


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("left", "right", 0.0),
        ("It is on the left side.", "left", 1.0),
        ("on the right", "left", 0.0),
        ("bilateral", "left", 0.0),
        ("CT", "MRI", 0.0),
        ("X-ray image", "xray", 1.0),
        ("The answer is ultrasound.", "CT", 0.0),
        ("computed tomography", "ct", 1.0),
        ("small", "large", 0.0),
    ],
)
def test_words_that_exclude_each_other_are_decided(
    answer: str, reference: str, score: float
) -> None:
    assert judged(answer, reference) == RuleVerdict(score=score, rule="exclusive_word")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("left or right", "left"),
        ("not left", "right"),
        ("left lung", "right"),
        ("left", "right lung"),
        ("PET-CT", "CT"),
        ("lateral", "left"),
        ("medium", "large"),
    ],
)
def test_words_that_may_both_hold_are_undecided(answer: str, reference: str) -> None:
    assert judged(answer, reference) is None


@given(answer=st.text(max_size=60), reference=st.sampled_from(["aorta", "no lesion", "A1c", "+"]))
def test_noise_is_right_only_if_it_is_the_reference(answer: str, reference: str) -> None:
    verdict = judged(answer, reference)

    assert verdict is None or normalise(answer) == normalise(reference)


@given(digits=st.integers(1, 10**6), places=st.integers(0, 4), factor=st.sampled_from([10, 100]))
def test_a_dose_that_is_ten_or_a_hundred_times_too_high_is_wrong(
    digits: int, places: int, factor: int
) -> None:
    dose, wrong = (f"{number / 10**places:.{places}f} mg" for number in (digits, digits * factor))

    for answer, reference in ((dose, wrong), (wrong, dose)):
        assert judged(answer, reference) == RuleVerdict(score=0.0, rule="number")


@given(milligrams=st.integers(1, 10**7))
def test_a_dose_is_right_in_grams_and_micrograms(milligrams: int) -> None:
    spelt = f"{milligrams // 1000}.{milligrams % 1000:03} g"

    for answer in (spelt, f"{milligrams * 1000} mcg", f"{milligrams:,} mg"):
        verdict = judged(answer, f"{milligrams} mg")
        assert verdict is not None
        assert verdict.score == 1.0


@given(answer=st.text(alphabet="0123456789.,-+/:x×^%°mgcl <>", max_size=20))
def test_no_row_of_digits_and_units_breaks_the_rules(answer: str) -> None:
    verdict = judged(answer, "5 mg")

    assert verdict is None or verdict.score in {0.0, 1.0}
