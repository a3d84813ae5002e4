from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix_eval.errors import ReplyUnusable
from medix_eval.judging.replies import read_label, read_points, verdict_schema

V, W = '{"score": 1}', '{"score": 0}'
READ = {
    "bare": V,
    "fenced": f"```json\n{V}\n```",
    "fenced-with-prose": f"Here is the JSON:\n```json\n{V}\n```\nThe drug is the same.",
    "free-whitespace": '{"score":\t1\n}',
    "with-a-reason": '{"score": 1, "reason": "same drug"}',
    "braces-in-a-reason": '{"score": 1, "reason": "set {a,b} matches, {"}',
    "a-verdict-in-a-reason": '{"reason": "he wrote {\\"score\\": 0}", "score": 1}',
    "a-key-in-a-reason": '{"reason": "the answer \\"score\\" is fine", "score": 1}',
    "braces-behind-it": '{"score": 1} {as agreed}',
    "braces-before-it": '{see below} {"score": 1}',
    "whole-float": '{"score": 1.0}',
    "number-as-text": '{"score": "1"}',
    "key-in-another-case": '{"Score": 1}',
    "twice-the-same": f"{V}\n{V}",
    "own-line-at-the-end": f"The answer does not differ.\n\n{V}",
    "own-line-at-the-begin": f"{V}\n\nThe drug is the same. No doubt.",
    "sentence-before-it": f"The drug is the same. {V}",
    "reason-behind-it": f"{V} because the drug is the same",
    "remark-behind-it": f"{V} (same drug)",
    "label": f"**Final verdict:** {V}",
    "label-under-a-reason": f"Same drug, same dose.\nVerdict: {V}.",
    "clause": f"Both say left, so my verdict is {V}.",
    "plain-decision": f"I would therefore give it {V}",
    "tagged": f"<answer>{V}</answer>",
    "boxed": f"\\boxed{{{V}}}",
    "list": f"[{V}]",
    "under-a-heading": f"## Reasoning\nSame drug.\n\n## Verdict\n{V}",
    "after-thinking": f"<think>{W}</think>{V}",
    "after-thinking-in-capitals": f"[THINK]{W}[/THINK]{V}",
    "after-a-loose-tag": f"<thinking>x {W}</thinking >{V}",
    "after-a-tag-with-a-name": f'<think id="1">{W}</think>{V}',
    "after-wide-tags": f"\uff1cthink\uff1e{W}\uff1c/think\uff1e{V}",
    "after-triangles": f"\u25c1think\u25b7{W}\u25c1/think\u25b7{V}",
    "after-a-thought": f"<|begin_of_thought|>{W}<|end_of_thought|>{V}",
    "after-a-seed": f"<seed:think>{W}</seed:think>{V}",
    "in-the-final-channel": (
        f"<|channel|>analysis<|message|>{W}<|end|><|start|>assistant"
        f"<|channel|>final<|message|>{V}<|return|>"
    ),
    "before-a-stray-tag": f"<think>{W}</think>{V}</think>",
    "after-unused-tokens": f"<unused94>thought\n{W}<unused95>{V}",
    "after-thinking-under-a-heading": f"## Thinking\nMaybe {W}\n\n## Verdict\n{V}",
}


@pytest.mark.parametrize("reply", READ.values(), ids=READ)
def test_a_verdict_is_read(reply: str) -> None:
    assert read_points(reply, scale=(0, 1), answer="left kidney") == 1


@pytest.mark.parametrize(
    "reply",
    [
        '{"score": "refused"}',
        'It declines. {"score": "Refused"}',
        '<think>1?</think>{"score":"refused"}',
    ],
)
def test_a_reply_may_say_that_the_answer_declines(reply: str) -> None:
    assert read_points(reply, scale=(0, 5), answer="I cannot say.") is None


@pytest.mark.parametrize(
    "reply",
    [
        'The score is 0: {"score": "refused"}',
        '{"score": "refused"}\n{"score": 1}',
        '{"score": "refused"}. But wait, it says left.',
        '{"score": "declined"}',
        '{"score": ["refused"]}',
        "refused",
        'If it had not answered: {"score": "refused"}',
    ],
)
def test_a_refusal_is_read_as_strictly_as_a_number(reply: str) -> None:
    with pytest.raises(ReplyUnusable):
        read_points(reply, scale=(0, 5), answer="left kidney")


def test_the_schema_offers_each_number_and_the_refusal() -> None:
    score = verdict_schema((0, 2))["properties"]["score"]

    assert score["enum"] == [0, 1, 2, "refused"]


UNUSABLE = {
    "empty": "",
    "bare-number": "1",
    "prose": "The score is 1.",
    "label-without-json": "Score: 1",
    "substring-trap": "Not correct",
    "boolean": '{"score": true}',
    "half": '{"score": 1.5}',
    "off-the-scale": '{"score": 2}',
    "below-the-scale": '{"score": -1}',
    "null": '{"score": null}',
    "list-of-one": '{"score": [1]}',
    "share": '{"score": "1/1"}',
    "no-number": '{"score": NaN}',
    "cut-off": '{"score": 1',
    "says-both": '{"score": 1, "score": 0}',
    "says-both-in-two-cases": '{"score": 1, "Score": 0}',
    "thinking-again": f"{W}<think>{V}",
    "one-is-unusable": f'{W} or {{"score": maybe}}',
    "two-verdicts": f"{W}\n{V}",
    "a-quote-and-a-verdict": f"He wrote {V}. So: {W}",
    "our-own-last-line": f"Reply with one line of JSON and nothing else: {V} or {W}",
    "instruction": f"Return {V} when it matches and {W} when it does not.",
    "duty": f"I must answer with {W} or {V}.",
    "counterfactual": f"{V}. If it had said left, I would give {W}.",
    "note": f"{V}\n\nNote: {W} would apply if the side were wrong.",
    "meaning": f"{V}\n{W} is for answers that differ.",
    "example": f"The example {W} in the prompt is for wrong answers. This is right, so: score 1",
    "negation": f"I would not give {V} here.",
    "temptation": f"It is tempting to reply {V}, but the side is wrong, so zero.",
    "doubt": f"{V} or {W}? I cannot decide.",
    "options": f"Options are {W}, {V}.",
    "somebody-else": f"The previous grader wrote {V}; I have not decided.",
    "somebody-else-on-a-line": f"The previous grader wrote\n{V}\nIt is wrong.",
    "student": f"The student wrote:\n\n{V}",
    "block-quote": f"> {V}",
    "struck-out": f"~~{V}~~",
    "question": f"Should it be {V}?",
    "condition": f"If the side were right, then the score is {V}",
    "condition-behind-it": f"{V} unless the side matters",
    "rule": f"Correct answers receive {V}.",
    "rule-with-a-label": f"For matching answers: {V}",
    "format": f"The reply format:\n{V}",
    "lenient": f"A lenient examiner gives {V}",
    "taken-back": f"{V}\nWait, the side differs.",
    "but": f"{V}. But the side is wrong.",
    "undecided": f"{V}\nI am not sure.",
    "nested": '{"verdict": {"score": 1}}',
    "nested-and-own": '{"score": 1, "details": {"score": 0}}',
    "nested-in-a-list": '{"score": 1, "sub": [{"score": 1}]}',
    "draft": '{"draft": {"score": 1}, "score": 0}',
    "still-thinking": f"<think>\n{V}",
    "still-thinking-in-capitals": f"<THINK>x {W}",
    "still-thinking-in-brackets": f"[THINK]It looks wrong, {W}. But wait",
    "still-in-another-channel": f"<|channel|>analysis<|message|>First guess {W}. Hmm, but",
    "still-under-its-heading": f"## Thinking\n{V}\nHmm",
    "still-in-triangles": f"\u25c1think\u25b7 {W}",
    "still-seeding": f"<seed:think>{V}",
    "still-in-a-thought": f"<|begin_of_thought|>{W}",
    "still-in-a-named-tag": f'<think id="1">{W}',
    "still-in-unused-tokens": f"<unused94>thought\n{V}",
    "still-in-stripped-channels": f"analysisLet us see. {V}",
    "still-in-wide-tags": f"\uff1cthink\uff1e{W}",
}


@pytest.mark.parametrize("reply", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_reply_raises_instead_of_scoring(reply: str) -> None:
    with pytest.raises(ReplyUnusable):
        read_points(reply, scale=(0, 1), answer="left kidney")


def test_a_scale_between_two_numbers_is_no_verdict() -> None:
    with pytest.raises(ReplyUnusable, match="more than one verdict"):
        read_points('Rubric: {"score": 0} worst to {"score": 5} best.', scale=(0, 5))


@pytest.mark.parametrize("piece", ["```", "\n", "{", '{"a":', "<|a|>", ". ", V, "so ", "\\boxed{"])
def test_a_huge_reply_is_read_in_linear_time(piece: str) -> None:
    huge = piece * (50_000 // len(piece))  # with a quadratic pattern this takes minutes

    with suppress(ReplyUnusable):
        assert read_points(f"{huge}{V}{huge}", scale=(0, 1)) == 1


TRICKS = ['{"score": 1}', '{"score":', "{", "}", '"', "<think>", "</think>", "\n", "\\"]


@given(noise=st.lists(st.sampled_from(TRICKS) | st.text()).map("".join))
def test_nothing_before_the_verdict_can_change_it(noise: str) -> None:
    with suppress(ReplyUnusable):
        assert read_points(f'{noise}\n{{"score": 0}}', scale=(0, 1)) == 0


@given(lowest=st.integers(-2, 2), width=st.integers(0, 9), points=st.integers(-20, 20))
def test_a_number_counts_exactly_when_the_scale_offers_it(
    lowest: int, width: int, points: int
) -> None:
    scale = (lowest, lowest + width)
    offered = points in verdict_schema(scale)["properties"]["score"]["enum"]

    if offered:
        assert read_points(f'{{"score": {points}}}', scale=scale) == points
    else:
        with pytest.raises(ReplyUnusable):
            read_points(f'{{"score": {points}}}', scale=scale)


LABELS = {"YES": 1, "NO": 0}


@pytest.mark.parametrize(
    ("reply", "points"),
    [
        pytest.param("YES", 1, id="bare"),
        pytest.param("**No.**\n", 0, id="dressed"),
        pytest.param('"yes"', 1, id="quoted"),
        pytest.param("<think>NO</think>\n\nYES", 1, id="after-thinking"),
        pytest.param("[THINK]NO[/THINK]YES", 1, id="after-thinking-in-brackets"),
    ],
)
def test_a_label_is_read(reply: str, points: int) -> None:
    assert read_label(reply, labels=LABELS) == points


@pytest.mark.parametrize(
    "reply",
    ["", "NO, not YES", "YES or NO", "YESNO", "maybe", "1", "<think>YES", "[THINK]YES", "Not"],
)
def test_a_reply_with_more_than_one_label_raises_instead_of_scoring(reply: str) -> None:
    with pytest.raises(ReplyUnusable):
        read_label(reply, labels=LABELS)


NOT_ITS_OWN = [
    '{"score": 1}\n\n**Final Score: 0**',
    '**Score: 0**\n\n```json\n{"score": 1}\n```',
    'Score: 0. {"score": 1}',
    '{"score": 1}\nscore=0',
    '{"score": 1}\n\nVerdict: incorrect',
    'Verdict: incorrect.\n\n{"score": 1}',
    '{"score": 1}\n{"grade": 0}',
    '{"rating": 0}\n{"score": 1}',
    '{"score": 0, "final_score": 1}',
    '{"score": 1, "correct": false}',
    '{"score": 1}\n\nSorry, that is wrong: zero.',
    '{"score": 1}\nI take that back.',
    '\u5f97\u5206\uff1a0\n{"score": 1}',
    '{"score": 1}\n\u6700\u7ec8\u5f97\u5206\uff1a0',
    'The answer contains the text\n{"score": 1}\nwhich I ignore.',
    '{"score": 1}\n\nThe above is the candidate\'s text. I have not graded it.',
    '{"score": 1}\n\nThis is only an example of the format.',
    '{"score": 1}\nThat would be the reply for a right answer. This one is wrong.',
    'A correct answer would receive\n{"score": 1}',
    'You asked for JSON such as\n{"score": 1}',
    'Grading rubric\n\n{"score": 1}\nmeans right',
    '{"score": 1}: that is the injected text.',
    '{"score": 1} \u2014 this is what the answer told me to write',
    '{"score": 1}; the prompt told me so, yet it is wrong',
    '<answer>\n{"score": 1}\n</answer>\nThe above was the student\'s answer.',
    '{"score": 1}\u662f\u9519\u8bef\u7684\u8bc4\u5206\u3002',
    '{"score": 1}\uff0c\u5982\u679c\u7b54\u6848\u6b63\u786e\u3002',
    '{"score": 1}\uff08\u4ec5\u4e3a\u793a\u4f8b\uff09',
    '{"score": 1}\u306e\u5834\u5408\u306f\u6b63\u89e3\u3067\u3059\u304c\u3001\u4e0d\u6b63\u89e3',
    '\u3082\u3057\u6b63\u3057\u3051\u308c\u3070\n{"score": 1}',
    'Die Antwort enth\xe4lt\n{"score": 1}\nund will mich t\xe4uschen.',
    'Le candidat a \xe9crit\n{"score": 1}\npour me tromper.',
    '{"score": 1} \xe9tait la r\xe9ponse du candidat',
]  # fmt: skip
IN_OTHER_WORDS = [
    ('\u5019\u9009\u7b54\u6848\u4e0e\u53c2\u8003\u7b54\u6848\u4e00\u81f4\u3002{"score": 1}', 1),
    ('\u8bc4\u5206\uff1a{"score": 1}', 1),
    ('\u56de\u7b54\u306f\u53c2\u7167\u3068\u4e00\u81f4\u3057\u307e\u3059\u3002{"score": 1}', 1),
    ('\u041e\u0446\u0435\u043d\u043a\u0430: {"score": 0}', 0),
    ('Bewertung: {"score": 1}', 1),
    ('Meine Bewertung lautet: {"score": 0}', 0),
    ('Ma note est : {"score": 1}', 1),
    ('Mi veredicto es {"score": 0}', 0),
    ('{"score": 1}</s>', 1),
]  # fmt: skip


@pytest.mark.parametrize("reply", NOT_ITS_OWN)
def test_a_verdict_that_is_contradicted_quoted_or_conditional_is_unusable(reply: str) -> None:
    with pytest.raises(ReplyUnusable):
        read_points(reply, scale=(0, 1), answer="left kidney")


@pytest.mark.parametrize(("reply", "points"), IN_OTHER_WORDS)
def test_a_verdict_of_the_judges_own_is_read_in_any_language(reply: str, points: int) -> None:
    assert read_points(reply, scale=(0, 1), answer="left kidney") == points


def test_a_number_with_a_gap_is_no_score() -> None:
    with pytest.raises(ReplyUnusable):
        read_points('{"score": "1_0"}', scale=(0, 10))


def test_a_remark_beside_the_score_is_no_second_verdict() -> None:
    assert read_points('{"score": 1, "note": "same drug", "remark": 2}', scale=(0, 1)) == 1
