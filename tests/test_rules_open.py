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
        ("image left", "left"),
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
        ("it is on the left side of the brain", "left", 1.0),
        ("it is on the left side of the brain", "right", 0.0),
        ("The lesion lies on the patient's right side.", "left", 0.0),
        ("on both sides", "left", 0.0),
        ("Side: left", "left", 1.0),
        ("it was taken with a CT scan", "CT", 1.0),
        ("it was taken with a CT scan", "MRI", 0.0),
        ("This image is an MRI of the brain.", "CT", 0.0),
        ("The image was obtained using MRI.", "MRI", 1.0),
        ("The imaging modality is ultrasound.", "CT", 0.0),
        ("This is a chest X-ray.", "X-ray", 1.0),
        ("This is an axial view", "axial", 1.0),
        ("This is an axial view", "coronal", 0.0),
        ("It was taken in the sagittal plane.", "axial", 0.0),
        ("transverse plane", "axial", 1.0),
        ("The lesions are large.", "small", 0.0),
        ("small in size", "small", 1.0),
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
        ("That's right.", "left"),
        ("That is right.", "right"),
        ("they left", "left"),
        ("left side of the image", "right"),
        ("left side of the lung", "right"),
        ("to the left of the heart", "right"),
        ("on the left and on the right", "left"),
        ("probably on the left", "right"),
        ("left?", "right"),
        ("It is not on the left.", "right"),
        ("It was made after a CT", "MRI"),
        ("a CT with contrast", "MRI"),
        ("CT angiography", "MRI"),
        ("transverse colon", "axial"),
        ("small bowel", "large"),
        ("very large", "small"),
    ],
)
def test_words_that_may_both_hold_are_undecided(answer: str, reference: str) -> None:
    assert judged(answer, reference) is None


BESIDE_A_NUMBER = (
    "{} inches|{} feet|{} lb|{} gm|{} mSv|{} mm3|{} mm^2|{} mm²|{} cm H2O|{}%|{}°|{} D|{}D|{}C"
    "|{}A|{} a|{}a|{}b|{}bN0|{}HT|{}k|{}K|{}e3|{}E3|{} bn|{}mn|{} lakh|{} crore|{} score"
    "|{} dozen|{} tens|{} tenths|{} thirds|{} fourths|{} squared|{} minus|{} plus|{}+|{}-|+{}"
    "|~{}|±{}|$ {}|${}|€{}|{}'|{}\"|{}′|{}″|{}th|{}nd|{}x|x{}|{}×|{}^2|{}²|{}/3|{}:1|{} to 9"  # noqa: RUF001
    "|{}-9|{}–9|{} of 9|{} or 9|{} negative|{} positive|{} wrong|{} is wrong|{} isn't"
    "|{} unlikely|{} probably wrong|{} maybe|{} others|{} other lesions|{} more|{} more lesions"
    "|{} fewer|at least {}|about {}|only {}|no {}|not {}|No. {}|# {} is wrong|{}?|{} lesions?"
    "|{} possible lesions|{} lesions each|{} mm lesions|{} lesion-free|{} lesions per lung"
    "|{} lesions or more|{} images|{} patients|{} small|{} times|{} and a half|{}½|{} 1/2"
    "|{}.0.1|{}{{,}}5|\\frac{{{}}}{{3}}|—{}|―{}|--{}|- {}|[{},9)"
)


@pytest.mark.parametrize("number", ["2", "5"])
@pytest.mark.parametrize("form", BESIDE_A_NUMBER.split("|"))
def test_a_number_is_never_right_beside_what_may_change_it(form: str, number: str) -> None:
    verdict = judged(form.format(number), number)

    assert verdict is None or verdict.score == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "No idea.", "No image provided.", "No clue", "None provided", "No comment", "No guess",
        "No information", "No data available", "no permission", "There is no image.", "No way",
        "no small lesions", "no other lesions", "no new mass", "no lesion on the left",
        "No, lesions",
        "No. Lesions.", "no lesions?", "no mass effect", "not zero", "none of these", "none?", "no",
        "None of the above", "no one", "no fracture line", "I see no image", "no acute fracture",
    ],
)  # fmt: skip
def test_no_answer_and_no_part_of_it_is_none(answer: str) -> None:
    assert judged(answer, "0") is None


@pytest.mark.parametrize(
    "answer",
    [
        "One cannot tell.", "One can't say", "One might guess", "One may wonder", "one of them",
        "One sees a mass", "one another", "one-sided", "one hopes", "one half",
        "One eye is swollen",
        "single", "a lesion", "no one",
    ],
)  # fmt: skip
def test_one_may_be_a_person(answer: str) -> None:
    assert judged(answer, "1") is None


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("no visible lesions", "0", 1.0),
        ("There are none.", "0", 1.0),
        ("three ribs", "3", 1.0),
        ("two big bright masses", "2", 1.0),
        ("There is one kidney.", "1", 1.0),
        ("There is one kidney.", "2", 0.0),
        ("no fractures", "3", 0.0),
        ("No idea.", "3", 0.0),
    ],
)
def test_what_is_found_is_counted(answer: str, reference: str, score: float) -> None:
    assert judged(answer, reference) == RuleVerdict(score=score, rule="number")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("positive", "A positive"), ("negative", "A negative"), ("beta fibre", "A beta fibre"),
        ("wave", "A wave"), ("A-delta fibres", "delta fibres"), ("A positive", "positive"),
        ("a positive", "positive"), ("A band", "band"), ("It is A band.", "band"),
        ("A cells", "cells"),
        ("A chain", "chain"), ("A virus", "virus"), ("A lines", "lines"), ("The A wave", "wave"),
        ("A vitamin deficiency", "vitamin deficiency"), ("A nodes", "nodes"), ("A, mass", "mass"),
        ("No, fracture.", "no fracture"), ("No. Fracture.", "no fracture"), ("No; mass", "no mass"),
        ("No (bleeding)", "no bleeding"), ("Not. Malignant!", "not malignant"),
        ("No - disease", "no disease"), ("No\nfracture", "no fracture"), ("No: mass", "no mass"),
        ("No — mass", "no mass"), ("with, out contrast", "without contrast"),
        ("No fracture. Dislocation.", "no fracture, dislocation"), ("No! Mass", "no mass"),
        ("It is no, fracture", "no fracture"), ("Without. Contrast", "without contrast"),
        ("Never, smoked", "never smoked"), ("no fracture (dislocation)", "no fracture dislocation"),
        ("Not. 5 mg", "not 5 mg"), ("no, 5 mm nodule", "no 5 mm nodule"),
    ],
)  # fmt: skip
def test_a_letter_is_no_article_and_a_mark_may_end_a_negation(answer: str, reference: str) -> None:
    assert judged(answer, reference) is None
    assert judged(reference, answer) is None


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("1.500 mg", "1500 mg", 1.0), ("1500 mg", "1.500 mg", 1.0), ("1.500", "1500", 1.0),
        ("1.234 mg", "1234 mg", None), ("1.500 mL", "1.5 mL", None), ("2.000 cm", "2 cm", None),
        ("1.500 g", "1500 mg", 1.0), ("1.500 mg", "1.5 g", 0.0), ("1.500 mg", "15 mg", 0.0),
        ("0.500 mg", "0.5 mg", 1.0), ("0.500 mg", "500 mg", 0.0), ("1,5 mg", "1.5 mg", 1.0),
        ("0,05 mg", "0.05 mg", 1.0), ("1,5 mg", "15 mg", None), ("1,5 mg", "1.6 mg", None),
        ("1,500 mg", "1.5 mg", 0.0), ("4,5", "4, 5", 1.0), ("4,6", "4.5", None),
        ("1.500.000", "1500000", None), ("1,5 mg", "1500 mg", None),
        ("½", "0.5", 1.0), ("2½", "2.5", 1.0), ("2½", "4", 0.0), ("¾ mg", "0.75 mg", 1.0),
        ("1/2", "½", 1.0), ("1/2", "0.5", None), ("120/80", "1.5", None),
        ("\\frac{1}{2}", "0.5", 1.0), ("\\dfrac{3}{4}", "0.5", 0.0), ("-½", "0.5", None),
        ("1.5 x 10^3", "1500", 1.0), ("1.5 × 10⁻³", "0.0015", 1.0), ("2 x 10^3", "2", 0.0),
        ("150000/µL", "150 x 10^9/L", 1.0), ("160×10⁹/L", "150 x10^9/L", 0.0),
        ("—2.5", "-2.5", None), ("—2.5", "2.5", None), ("T-score —1.8", "T-score -1.8", None),
        ("T-score — 1.8", "T-score -1.8", None), ("―2.5", "-2.5", None), ("z —2", "z 2", None),
        ("—3 dioptres", "3 dioptres", None), ("‒2", "-2", 1.0), ("–2", "-2", 1.0),  # noqa: RUF001
        ("Answer — 2", "2", 1.0), ("--2", "2", None), ("minus 2", "2", None),
        ("5 lb", "5 pounds", 1.0), ("6 feet", "72 inches", 1.0), ("10 mSv", "0.01 Sv", 1.0),
        ("2 D", "2 days", None), ("5 cm H2O", "5 cm", None), ("2 mm²", "2 mm", None),
        ("5 mg (per kg)", "5 mg/kg", 1.0), ("5 mg (per kg)", "5 mg", None),
        ("[0,9)", "(0,9)", None), ("[0, 9 mg)", "(0, 9 mg)", None), ("[0-9)", "(0-9)", None),
        ("[0,9]", "(0,9)", None), ("[0, 9)", "[0,9)", 1.0), ("(0,9]", "(0,9)", None),
    ],
)  # fmt: skip
def test_a_number_is_read_in_its_notation(answer: str, reference: str, score: float | None) -> None:
    verdict = judged(answer, reference)

    assert (verdict and verdict.score) == score


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("\u200fleft", 1.0), ("left\u200e.", 1.0), ("\u061cright", 0.0), ("left\u00a0side", 1.0),
        ("\u202eleft", None), ("left\u200b", None), ("le\u00adft", None),
        ("\u2066left\u2069", None),
        ("l\u0435ft", None), ("ｌｅｆｔ", 1.0), ("𝐫𝐢𝐠𝐡𝐭", 0.0), ('{"answer": "left"}', 1.0),  # noqa: RUF001
        ('{"answer": "right"}', 0.0), ('```json\n{"final_answer": "left"}\n```', 1.0),
        ('{"answer": "left", "or": "right"}', None), ('{"question": "left"}', None),
        ('{"answer": "left"} is wrong', None), ('{"answer": "left or right"}', None),
        ("\\text{left}", 1.0), ("\\mathbf{right}", 0.0), ("\\left", None), ("\\neg left", None),
    ],
)  # fmt: skip
def test_what_dresses_an_answer_leaves_it_as_it_is(answer: str, score: float | None) -> None:
    verdict = judged(answer, "left")

    assert (verdict and verdict.score) == score


FORMS = ["{}", "{}.", "**{}**", "It is {}.", "The answer is {}.", "Answer: {}", "`{}`", "({})",
         "\\boxed{{{}}}", '{{"answer": "{}"}}', "Final answer: {}", "{}!", "$\\text{{{}}}$",
         "“{}”"]  # fmt: skip
PAIRS = [("left", "right"), ("right", "bilateral"), ("CT", "MRI"), ("x-ray", "ultrasound"),
         ("axial", "coronal"), ("small", "large"), ("5 mg", "50 mg"), ("1.5 cm", "1.6 mm"),
         ("yes", "no"), ("two", "four"), ("two lesions", "three lesions"), ("-2.5", "2.5"),
         ("10 x 10^9/L", "11 x 10^9/L"), ("50%", "60%"), ("½", "¼"), ("37 °C", "38 °C"),
         ("2", "3")]  # fmt: skip


@pytest.mark.parametrize("form", [*FORMS, "It is not {}.", "{}?", "Perhaps {}.", "{} or so"])
@pytest.mark.parametrize(("right", "wrong"), PAIRS)
def test_right_and_wrong_answers_of_one_form_are_decided_alike(
    form: str, right: str, wrong: str
) -> None:
    scores = [
        verdict and verdict.score
        for verdict in (judged(form.format(word), right) for word in (right, wrong))
    ]

    assert scores == ([1.0, 0.0] if form in FORMS else [None, None])


SIDES_AND_VIEWS = {
    "it is on the {} side of the brain": [("left", "right")],
    "The lesion is on the {}.": [("left", "right")],
    "It is located on the {} side": [("left", "right")],
    "it was taken with a {} scan": [("CT", "MRI"), ("MRI", "CT")],
    "This is a {} of the chest.": [("CT", "MRI"), ("radiograph", "CT")],
    "The modality is {}": [("ultrasound", "CT"), ("CT", "microscopy")],
    "This is a {} view": [("coronal", "axial"), ("sagittal", "coronal")],
    "They are {}.": [("small", "large"), ("large", "small")],
}


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [(form, *pair) for form, pairs in SIDES_AND_VIEWS.items() for pair in pairs],
)
def test_a_sentence_around_one_word_is_decided_alike_whichever_word(
    form: str, right: str, wrong: str
) -> None:
    verdicts = [judged(form.format(word), right) for word in (right, wrong)]

    assert [verdict and verdict.score for verdict in verdicts] == [1.0, 0.0]


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
