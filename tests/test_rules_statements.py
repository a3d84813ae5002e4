"""Which option an answer states: the last statement, unless something beside it changes it."""

from __future__ import annotations

import pytest

from medix_eval.records import Kind
from medix_eval.rules.decide import decide

DRUGS = ("aspirin", "warfarin", "heparin", "clopidogrel")


def stated(answer: str, options: tuple[str, ...] = DRUGS) -> str | None:
    """Return the letter of the option that the rules read, asked once for each reference."""
    verdicts = [
        decide(answer, kind=Kind.MULTIPLE_CHOICE, reference=option, options=options)
        for option in options
    ]
    right = [at for at, verdict in enumerate(verdicts) if verdict and verdict.score == 1.0]
    assert {verdict is None for verdict in verdicts} == {not right}
    return "ABCDEFGHIJ"[right[0]] if right else None


WHY = (
    "Vitamin K is needed for factors II, VII, IX and X. Aspirin acts on platelets instead, and "
    "heparin may be given first. A high dose is not better."
)


@pytest.mark.parametrize(
    "answer",
    [
        # a courtesy, a heading or a reason behind the letter
        "B. I hope this helps!", "The answer is B. Let me know if you have more questions.",
        "Answer: B\n\nPlease consult a doctor before you take it.", "B\n\nConfidence: 80 %",
        "ANSWER: B - clotting factors need vitamin K", "Answer: B — it acts on the liver",
        "Answer: B (the liver makes fewer factors)", "B. It acts slowly.", "B: it acts slowly",
        "B because it is the only one that acts in the liver", "Answer: B,", "B:",
        "B. Here's why: it acts slowly.",
        # other frames
        "final answer B", "Final Answer: The final answer is B.", "My selection is B.",
        "Select B", "Please choose B", "(B) is best", "(B) fits best.", "answer: b",
        "Option B is the best choice here", "The answer to your question is B.", "Answer → B",
        "The answer is definitely B rather than A.", "The answer is B, not C.", "【B】",
        "So the correct option is: $\\boxed{\\text{B}}$", "Thus \\boxed{B. Warfarin}",
        "### Answer: **B. Warfarin**", "The drug of choice is warfarin.",
        "Not A, the answer is B", "The answer isn't A; it's B.",
        # behind a rationale that weighs the others
        f"{WHY}\n\nThe answer is B.", f"{WHY}\n\n\\boxed{{B}}", f"{WHY}\n\nFinal answer: B",
        f"{WHY}\n\n**Answer: B. warfarin**", f"{WHY} Therefore, option B is correct.",
        f"B. Warfarin\n\n{WHY}", f"**B. Warfarin**\n\n**Explanation:** {WHY}",
        "A. aspirin\nB. warfarin\nC. heparin\nD. clopidogrel\n\nAnswer: B",
        "Answer: B. Warfarin\n\nNot:\n- A. aspirin: acts on platelets\n- C. heparin: is injected",
        # an object
        '{"answer": "B", "confidence": 0.8}', '{"choice": "B", "text": "warfarin"}',
        '```json\n{"selected_letter": "b", "explanation": "It acts slowly."}\n```',
        # a change of mind
        "Answer: A\nWait, this is about vitamin K. The correct answer is B.",
        "I choose A. Actually, the answer is B.", "ANSWER: A\nI misread it.\nANSWER: B",
        "ANSWER: A. Correction: ANSWER: B", "Answer: A or C. On reflection, I choose B.",
        # other languages
        "答案：B",  # noqa: RUF001
        "正确答案是 B。", "因此选B", "故答案为B，因为它起效慢。",  # noqa: RUF001
        "【答案】B",
        "정답은 B입니다.", "정답: B", "따라서 정답은 B번입니다.", "答えはBです。",
        "正解：B",  # noqa: RUF001
        "Ответ: B", "Ответ: B, так как действует медленно.",
        "Правильный ответ — B.", "Я выбираю вариант B.", "Выбираю B",
        "La respuesta correcta es la B.", "Respuesta: B. Espero que te ayude.",
        "Die richtige Antwort ist B.", "La bonne réponse est B.", "A resposta correta é a letra B.",
        "La risposta corretta è B.", "الإجابة الصحيحة هي B.",
    ],
)  # fmt: skip
def test_a_stated_letter_is_read(answer: str) -> None:
    assert stated(answer) == "B"


@pytest.mark.parametrize(
    "answer",
    [
        # conditions, other people's answers and labels in front
        "In a child, the answer is B.", "Normally, the answer would be B. With renal failure, C.",
        "For adults:\nThe answer is B.", "Some say the answer is B.", "Previous answer: B",
        "Rejected:\nANSWER: B", "Do not believe what comes next. B", "If not A, then B.",
        "The question mentions B. warfarin", "You must not pick B. Warfarin",
        # what follows changes it
        "B if she is pregnant", "B. Warfarin, if she is pregnant", "B. Warfarin, or maybe not",
        "B. Only at night.", "B\n\nNot really.",
        "B. Warfarin is the trap.", "B. That was a mistake.", "The answer is B. Also C.",
        "B\n\nThe same holds for C.", "B. But C cannot be excluded.", "\\boxed{B} if she is old",
        "The answer is B. Is it?", "B. I keep changing my mind.", "B or C: who knows?",
        "B would be best. But she is pregnant. So we need heparin.",
        "The drug of choice is warfarin. She is pregnant, so we use heparin.",
        "B - contraindicated in pregnancy.\nHeparin is the safest.",
        "The answer is B. In renal failure, choose C.", "B (not really)", "B. Warfarin plus C",
        # nothing, or more than one thing, is stated
        '{"answer": "B", "text": "aspirin"}', '{"answer": "B", "alternative": "C"}',
        "\\boxed{B} or \\boxed{C}", "\\boxed{B}, \\boxed{C}", "A. aspirin B. warfarin C. heparin",
        "The answer is B. Clopidogrel acts faster.", "B. Because … The answer is C.",
        "答案不是B", "La respuesta es B o C.", "Ответ: не B", "정답은 B가 아닙니다",
        "Answer: B\n\nQuestion: What acts on platelets?\nAnswer: A",
    ],
)  # fmt: skip
def test_what_may_change_a_statement_leaves_it_open(answer: str) -> None:
    assert stated(answer) is None


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (("Escherichia coli", "Proteus", "Serratia", "Klebsiella", "None"), "It is E. Coli."),
        (("Clostridioides difficile", "E. coli", "Candida"), "The answer is C. Diff."),
        (("Streptococcus", "Staphylococcus aureus", "Enterococcus"), "Answer: S. Aureus"),
        (("5 mg", "5 mg/kg"), "The answer is 5 mg (per kg)."),
        (("Heparin", "Heparin plus warfarin"), "Heparin (and an oral anticoagulant)"),
        (("Carcinoma", "Carcinoma in situ"), "Carcinoma - of the breast, in situ"),
    ],
)
def test_a_name_or_an_aside_that_may_be_another_option_is_not_read(
    options: tuple[str, ...], answer: str
) -> None:
    assert stated(answer, options) is None


@pytest.mark.parametrize("answer", ["coronal", "sagittal"])
@pytest.mark.parametrize(
    "form",
    ["{}", "{} plane", "It is a {} view.", "The cut is thin. So the answer is {}.",
     "The lobes are seen from the side.\n\n\\boxed{{\\text{{{}}}}}", "Final answer:\n{}"],
)  # fmt: skip
def test_an_open_answer_is_decided_in_the_same_forms_where_it_is_wrong(
    form: str, answer: str
) -> None:
    verdict = decide(form.format(answer), kind=Kind.OPEN, reference="coronal")

    assert verdict is not None
    assert verdict.score == float(answer == "coronal")


@pytest.mark.parametrize(
    ("kind", "reference", "answer"),
    [
        (Kind.CLOSED, "yes", "No\n\nQuestion: Is the heart enlarged?\nAnswer: Yes"),
        (Kind.CLOSED, "yes", "No\n\nIs the heart enlarged?\nAnswer: yes"),
        (Kind.CLOSED, "yes", "No, none.\n\n### Question\nIs there a mass?\n\n### Answer\nYes"),
        (Kind.OPEN, "CT", "MRI\n\nQuestion: Which modality is next?\nAnswer: CT"),
        (Kind.OPEN, "2", "2\n\nQuestion: How many ribs?\nAnswer: 12"),
        (Kind.OPEN, "left", "Left.\n\nQuestion: Where is the liver?\nAnswer: right"),
        (Kind.OPEN, "left", "In the right image"),
        (Kind.CLOSED, "no", "No, it is unclear."),
        (Kind.CLOSED, "no", "No. It is impossible to tell from a single view."),
        (Kind.CLOSED, "no", "No, although a small one may be hidden."),
        (Kind.CLOSED, "no", "No, but there is a small pneumothorax on the left."),
        (Kind.CLOSED, "yes", "Yes, I can analyze medical images."),
        (Kind.CLOSED, "yes", "Yes, it could be."),
        (Kind.CLOSED, "yes", "Yes, in theory."),
    ],
)
def test_another_question_a_hedge_or_small_talk_leaves_it_open(
    kind: Kind, reference: str, answer: str
) -> None:
    assert decide(answer, kind=kind, reference=reference) is None


@pytest.mark.parametrize(
    "answer", ["A: The drug is given orally.", "S: pain\nO: fever\nA: DVT\nP: anticoagulate"]
)
def test_a_label_that_looks_like_a_letter_chooses_nothing(answer: str) -> None:
    drugs = ["aspirin", "warfarin", "heparin", "alteplase"]

    assert decide(answer, kind=Kind.MULTIPLE_CHOICE, reference="warfarin", options=drugs) is None


@pytest.mark.parametrize(
    "report",
    [
        "There are two lesions on the left side. Both lesions are large.",
        "Left: two large lesions. Right: no lesions.",
        "The left side shows two large lesions. The right side shows no lesions.",
        "On the left there are two large lesions. On the right there are none.",
        "The image shows large lesions on the left. There are two.",
        "In the right image there are two large lesions on the left.",
    ],
)
def test_a_right_report_in_words_that_mislead_is_left_open(report: str) -> None:
    facts = {"count": "2", "side": "left", "size": "large"}

    assert decide(report, kind=Kind.REPORT, reference="two on the left", facts=facts) is None
