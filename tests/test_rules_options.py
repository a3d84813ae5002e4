from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from medix_eval.records import Kind, RuleVerdict
from medix_eval.rules.decide import decide
from medix_eval.rules.text import normalise

DRUGS = ["aspirin", "warfarin", "heparin", "clopidogrel"]


def chosen(answer: str, options: Sequence[str], *, reference: str) -> RuleVerdict | None:
    return decide(answer, kind=Kind.MULTIPLE_CHOICE, reference=reference, options=options)


def index_of(answer: str, options: Sequence[str] = DRUGS) -> int | None:
    """Return the option that the rules read, asked once for each possible reference."""
    verdicts = [chosen(answer, options, reference=option) for option in options]
    if verdicts == [None] * len(options):
        return None
    (index,) = [i for i, verdict in enumerate(verdicts) if verdict and verdict.score == 1.0]
    assert all(v is not None and v.score == 0.0 for i, v in enumerate(verdicts) if i != index)
    return index


@pytest.mark.parametrize(
    "answer",
    [
        "B", "(B)", "[B]", "B.", "B)", "b", "b)", "**B**", "`B`", "\\boxed{B}", "$\\text{B}$",
        "\uff22", "option B", "Option b.", "B) warfarin", "B. Warfarin", "B: warfarin",
        "(B) Warfarin", "B - warfarin", "B — warfarin", "**B. Warfarin**", "B warfarin",
        "warfarin (B)", "warfarin, option B", "Answer: B", "Answer B", "answer = B",
        "Final answer:\n\n(B)",
        "The answer is B", "The correct answer is (B) warfarin.", "My answer is option B.",
        "I'd go with B.", "I would choose B", "It's B.", "So, B.", "I think the answer is B.",
        "B is correct.", "Option B is the best answer.", "B, not A.", "B because it acts slowly.",
        "Warfarin.", "the warfarin", "“Warfarin”", "I would choose warfarin.", "It is warfarin.",
        "The answer is probably warfarin.", "The most likely diagnosis is warfarin.",
        "The best next step in management is warfarin.", "This is warfarin.",
        "The drug is expensive. The answer is warfarin (a vitamin K antagonist).",
        "A is incorrect. C is incorrect. B is correct. D is incorrect.",
        "Correct answer: B\n\nExplanation: warfarin lasts longest.",
        "The answer is B. It is not C because heparin is parenteral.",
        "It is not A. The answer is B.",
    ],
)  # fmt: skip
def test_one_option_that_is_given_is_read(answer: str) -> None:
    assert index_of(answer) == 1


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        pytest.param(
            "Aspirin is tempting, but the best choice here is warfarin.", 1, id="named-before"
        ),
        pytest.param("The answer is B, warfarin. Aspirin was considered.", 1, id="named-after"),
        pytest.param("The answer is B. Aspirin was considered.", 1, id="next-sentence"),
        pytest.param("This patient most likely has a", None, id="article-is-no-letter"),
        pytest.param("The answer is a", None, id="cut-off-after-an-article"),
        pytest.param(
            "The correct answer is C. It is not B because heparin acts at once.", 2, id="denial"
        ),
    ],
)
def test_the_answers_that_fool_a_matcher_of_substrings(answer: str, index: int | None) -> None:
    assert index_of(answer) == index


@pytest.mark.parametrize(
    "answer",
    [
        # two options
        "A or B", "A and B", "A, B", "A/B", "A & B", "A B", "AB", "A; B", "A\nB", "B. A.",
        "(A) (B)", "Both A and B", "Either aspirin or warfarin.", "aspirin / warfarin",
        "aspirin, warfarin", "The answer is A or B.", "The answer is B. The answer is A.",
        "B is correct, A is correct",
        "The answer is B. However, A is possible.", "B. Or A.", "B. A too.", "B, but A is better.",
        "A. aspirin\nB. warfarin", "B. The right one is A.", "B\n\nA is what I meant.",
        # letter and text of different options
        "B. aspirin", "B) aspirin", "A: warfarin", "warfarin (A)", "The answer is A, warfarin.",
        "The answer is B. Aspirin.", "A warfarin",
        # denied, doubted or taken back
        "not B", "Not warfarin.", "The answer is not B.", "It isn't warfarin", "B is wrong.",
        "I would not choose B.", "I don't think the answer is B.", "B? No.", "B?", "B. Incorrect.",
        "The answer is warfarin. This is false.", "The answer is B. Just kidding.", "B - no",
        "The answer is B. Actually A.", "The answer is B. Wait, A.", "~~B~~", "!B", "B != answer",
        "If she is pregnant, the answer is B.", "I am not sure, B.", "Maybe B.",
        "The answer may be B",
        "It is a myth that the answer is B.", "Some say, the answer is B.", "Nobody chose B.",
        "The wrong answer is B.", "The least likely answer is B.", "Anything but B.",
        "It is B. The lazy answer is A.", "The answer is B. It is not B.",
        "It is B. I would choose insulin.", "The most common mistake is warfarin.",
        "The second best answer is B.", "Avoid warfarin.",
        # letters that are words or parts of names
        "vitamin B", "hepatitis B", "group B streptococcus", "B cells", "B12", "type B", "E. coli",
        "C. difficile", "A 45-year-old man", "I", "I think so", "\u0412", "Б",
        # more than the option, less than the option, none
        "warfarin and vitamin K", "The answer is warfarin followed by heparin.", "anti-warfarin",
        "non-warfarin", "no warfarin", "warf", "insulin", "None of them.", "E", "", " ", ":", "?",
        "The patient takes warfarin.", "B. Insulin", "war\u200bfarin", "\u200bB",
    ],
)  # fmt: skip
def test_what_is_not_certain_is_left_undecided(answer: str) -> None:
    assert index_of(answer) is None


@pytest.mark.parametrize(
    ("options", "answer", "index"),
    [
        (["ulna", "tibia"], "a", 0),
        (["pneumonia", "viral pneumonia"], "pneumonia", 0),
        (["pneumonia", "viral pneumonia"], "The answer is viral pneumonia.", 1),
        (["Pneumonia", "Pneumonia due to a virus"], "It is pneumonia due to a virus.", 1),
        (["Increase", "Decrease"], "decrease", 1),
        (["1", "10"], "10", 1),
        (["1", "10"], "The answer is 1.", 0),
        (["10", "1.0", "-10"], "-10", 2),
        (["ER+/PR+", "ER-/PR-"], "The answer is ER\u2212/PR\u2212.", 1),
        (["10³", "103"], "103", 1),
        (["28×27 mm", "28-27 mm"], "28 x 27 mm", 0),
        (["yes", "no", "maybe"], "Yes, it lowers mortality.", 0),
        (["yes", "no", "maybe"], "The answer is no.", 1),
        (["yes", "no", "maybe"], "maybe", 2),
        (["yes", "no", "maybe"], "C", 2),
        (["yes", "no", "maybe"], "Yes and no", None),
        (["yes", "no", "maybe"], "No difference was found", None),
        (["aspirin", "None of the above", "All of the above"], "None of the above.", 1),
        (["aspirin", "heparin", "Both A and B"], "Both A and B", 2),
        (["Indicated", "Not indicated"], "The answer is not indicated.", 1),
        (["Benign", "Probably benign"], "The answer is probably benign.", 1),
        (["No further treatment is needed", "Surgery"], "No further treatment is needed.", 0),
        (["Wait. Then repeat the scan.", "Wait"], "The answer is wait. Then repeat the scan.", 0),
        (["An increase", "A decrease"], "A decrease", 1),
        (["Ulna", "Fracture"], "The answer is a fracture.", 1),
        (["Ulna", "Fracture"], "A fracture", None),
        (["Surgery", "No surgery"], "No. Surgery.", None),
        (["Surgery", "No surgery"], "No surgery.", 1),
        (["C. difficile", "E. coli", "Giardia"], "C. difficile", 0),
        (["C. difficile", "E. coli", "Giardia"], "The answer is E. coli.", 1),
        (["Vitamin A", "Vitamin B", "Vitamin C"], "Vitamin C", 2),
        (["B cells", "T cells"], "B cells", 0),
        (["A", "B", "AB", "O"], "A", 0),
        (["B", "A", "AB", "O"], "A", None),
        (["B", "A", "AB", "O"], "AB", 2),
        (["II", "I"], "I", 1),
        ([f"option {n}" for n in "klmnopqrst"], "I", 8),
        ([f"organ {n}" for n in range(10)], "J", 9),
        (["aspirin", "", "heparin"], "C", 2),
        (["aspirin", "", "heparin"], "B", None),
        (["Aa", "AA", "aa"], "B", 1),
        (["Aa", "AA", "aa"], "The answer is AA.", None),
    ],
)
def test_options_that_look_alike_are_told_apart(
    options: list[str], answer: str, index: int | None
) -> None:
    assert index_of(answer, options) == index


def test_the_verdict_says_whether_the_letter_or_the_text_decided() -> None:
    by_letter = chosen("B. warfarin", DRUGS, reference="warfarin")
    by_text = chosen("Warfarin.", DRUGS, reference="warfarin")

    assert by_letter == RuleVerdict(score=1.0, rule="option_letter")
    assert by_text == RuleVerdict(score=1.0, rule="option_text")


def test_two_options_with_one_text_are_the_same_answer() -> None:
    options = ["aspirin", "heparin", "aspirin"]

    assert chosen("C", options, reference="aspirin") == RuleVerdict(score=1.0, rule="option_letter")
    assert chosen("aspirin", options, reference="aspirin") == RuleVerdict(
        score=1.0, rule="option_text"
    )


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("B. Itchy rash", 1.0),
        ("D. Itchy rash", 1.0),
        ("The answer is D: itchy rash.", 1.0),
        ("Itchy rash (D)", 1.0),
        ("A. Cough", 0.0),
        ("C. Itchy rash", None),
        ("A or D", None),
        ("B. Itchy rash and cough", None),
    ],
)
def test_every_letter_of_a_text_that_stands_twice_is_accepted(
    answer: str, score: float | None
) -> None:
    verdict = chosen(
        answer, ["Cough", "Itchy rash", "Fever", "Itchy rash "], reference="Itchy rash"
    )

    assert (verdict and verdict.score) == score


LISTS_OF_LETTERS = [
    ["a", "c", "bc", "ad"], ["ac", "a", "ad", "ab"], ["A,B", "A,C", "B,C", "ABC"],
    ["A", "B", "C", "E"], ["B", "C", "D", "E"], ["a, c", "b", "a, b, c", "d"],
    ["a,b & c", "a & c", "b & d", "d"], ["A and B", "C", "B and C", "A, B and C"],
]  # fmt: skip


@given(
    options=st.sampled_from(LISTS_OF_LETTERS),
    letters=st.permutations("abcde").flatmap(lambda of: st.integers(2, 3).map(lambda n: of[:n])),
    between=st.sampled_from([", ", ",", " and ", " & ", "/", " ", "-", ""]),
    is_upper=st.booleans(),
)
def test_letters_in_a_row_are_no_option_but_the_one_with_these_letters(
    options: list[str],
    letters: list[str],
    between: str,
    is_upper: bool,  # noqa: FBT001
) -> None:
    listed = between.join(letters)
    index = index_of(listed.upper() if is_upper else listed, options)

    named = set() if index is None else set(options[index].lower()) & set("abcde")
    if "and" in (options[index] if index is not None else ""):
        named = set(options[index or 0].lower().replace("and", "")) & set("abcde")
    assert named in (set(), set(letters))


@pytest.mark.parametrize(
    ("options", "answer", "index"),
    [
        (["a", "c", "bc", "ad"], "C. bc", 2),
        (["a", "c", "bc", "ad"], "B. c", 1),
        (["a", "c", "bc", "ad"], "b, c", None),
        (["a", "c", "bc", "ad"], "C", None),
        (["ac", "a", "ad", "ab"], "a, b", None),
        (["ac", "a", "ad", "ab"], "a (B)", 1),
        (["A,B", "A,C", "B,C", "ABC"], "A,C", 1),
        (["A,B", "A,C", "B,C", "ABC"], "B,A,C", None),
    ],
)
def test_options_that_are_letters_are_told_from_lists_of_letters(
    options: list[str], answer: str, index: int | None
) -> None:
    assert index_of(answer, options) == index


def test_an_answer_of_many_pages_is_undecided() -> None:
    assert index_of("The answer is B." + " It is good." * 10) == 1
    assert index_of("The answer is B." + " It is good." * 1000) is None


def test_a_reference_that_is_no_option_decides_nothing() -> None:
    assert chosen("B", DRUGS, reference="insulin") is None


def test_a_closed_set_of_options_may_be_offered_to_an_open_question() -> None:
    verdict = decide("It is an MRI.", kind=Kind.OPEN, reference="CT", options=["CT", "MRI"])

    assert verdict == RuleVerdict(score=0.0, rule="option_text")


def test_options_that_changed_in_a_list_are_read_again() -> None:
    options = ["aspirin", "warfarin"]
    before = chosen("B", options, reference="warfarin")
    options.reverse()

    assert before == RuleVerdict(score=1.0, rule="option_letter")
    assert chosen("B", options, reference="warfarin") == RuleVerdict(
        score=0.0, rule="option_letter"
    )


MODIFIERS = ["acute", "chronic", "left", "right", "viral", "no", "not", "group A", "type 2", "5 mg",
             "1.5 cm", "possible", "HER2-", "IgA", "both", "severe, recurrent", "(rare)",
             "vitamin B", "≥ 10%", "x-ray of", "80/50 mmHg", "a"]  # fmt: skip
NOUNS = ["pneumonia", "fracture", "lymphoma", "aspirin", "hepatitis C", "E. coli", "ulcer", "shock",
         "stenosis", "follow-up in 2 weeks", "is needed", "treatment", "Crohn's disease",
         "deficiency", "antibodies", "of the liver", "CO₂", "and then surgery",
         "because of age"]  # fmt: skip
TEXTS = st.tuples(
    st.lists(st.sampled_from(MODIFIERS) | st.sampled_from(NOUNS), max_size=3),
    st.sampled_from(NOUNS),
).map(lambda parts: " ".join([*parts[0], parts[1]]))
STYLES = {
    "letter": "{letter}",
    "letter-and-text": "{letter}. {text}",
    "text": "{text}",
    "sentence": "The answer is {text}.",
    "choice": "I would choose {text}.",
    "correct": "The correct answer is ({letter}) {text}.",
}


@st.composite
def option_lists(draw: st.DrawFn) -> list[str]:
    """Draw options that differ also after normalisation, and are no letters."""
    texts = draw(st.lists(TEXTS, min_size=2, max_size=10, unique_by=normalise))
    assume(all(len(normalise(text)) > 1 for text in texts))
    return texts


@given(options=option_lists(), picked=st.integers(0, 9), style=st.sampled_from(sorted(STYLES)))
def test_every_option_is_read_in_every_style(options: list[str], picked: int, style: str) -> None:
    picked %= len(options)
    answer = STYLES[style].format(letter="ABCDEFGHIJ"[picked], text=options[picked])

    assert index_of(answer, options) == picked


HEDGES = ["{} or {}", "{} and {}", "either {} or {}", "both {} and {}", "{}, {}", "{}/{}", "{}; {}",
          "The answer is {} or {}.", "I would choose {} or {}.", "{}, but maybe {}", "{}\n{}",
          "The answer is {}. The answer is {}.", "{} is correct. {} is correct.", "{}? {}?",
          "The answer is {}. It may also be {}.", "The answer is {}, or {}."]  # fmt: skip


@given(
    hedge=st.sampled_from(HEDGES),
    pair=st.permutations(range(4)),
    by_letter=st.booleans(),
)
def test_an_answer_that_hedges_is_never_decided(
    hedge: str, pair: list[int], *, by_letter: bool
) -> None:
    names = [letter if by_letter else text for letter, text in zip("ABCD", DRUGS, strict=True)]

    assert index_of(hedge.format(names[pair[0]], names[pair[1]])) is None


@given(answer=st.text(max_size=60))
def test_an_answer_that_names_no_option_is_undecided(answer: str) -> None:
    assume(not set("abcd") & set(normalise(answer)))

    assert index_of(answer) is None


@given(picked=st.sampled_from("ABCD"), noise=st.text(max_size=40))
def test_noise_around_a_letter_never_makes_it_another_one(picked: str, noise: str) -> None:
    assume(not set("abcdABCD") & set(normalise(noise)))

    assert index_of(f"The answer is {picked}. {noise}") in {None, "ABCD".index(picked)}
