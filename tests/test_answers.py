from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix_eval.rules.answers import extract_answer, thinking_of


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        pytest.param("warfarin", "warfarin", id="plain-text"),
        pytest.param("  warfarin \n", "warfarin", id="stripped"),
        pytest.param("<think>A?</think>B", "B", id="think"),
        pytest.param("<thinking>A?</thinking> B", "B", id="thinking"),
        pytest.param("<THINKING>A?</Thinking>B", "B", id="tags-in-any-case"),
        pytest.param("[THINK]A?[/THINK]B", "B", id="think-in-brackets"),
        pytest.param('<think id="1">A?</think>B', "B", id="think-with-a-name"),
        pytest.param("<seed:think>A?</seed:think>B", "B", id="seed-think"),
        pytest.param("<thought>A?</thought>B", "B", id="thought"),
        pytest.param("\uff1cthink\uff1eA?\uff1c/think\uff1eB", "B", id="wide-tags"),
        pytest.param("\u25c1think\u25b7A?\u25c1/think\u25b7B", "B", id="triangles"),
        pytest.param("<|begin_of_thought|>A<|end_of_thought|>B", "B", id="begin-of-thought"),
        pytest.param("<|START_THINKING|>A<|END_THINKING|>B", "B", id="start-thinking"),
        pytest.param(
            "<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>final<|message|>B",
            "B",
            id="final-channel",
        ),
        pytest.param("analysisIs it A?assistantfinalB", "B", id="channels-without-their-marks"),
        pytest.param("analysis of blood gases", "analysis of blood gases", id="a-plain-word"),
        pytest.param("[think] B", "[think] B", id="a-remark"),
        pytest.param("[THINK]It may be B", "", id="cut-off-in-brackets"),
        pytest.param("<|channel|>analysis<|message|>It may be B", "", id="cut-off-in-a-channel"),
        pytest.param("A or B?</think>B", "B", id="opening-tag-was-in-the-prompt"),
        pytest.param("<think>A</think>B</thinking>C", "C", id="the-closing-tag-that-comes-last"),
        pytest.param("<think>use <think> tags</think>B", "B", id="a-tag-quoted-while-thinking"),
        pytest.param("<CT_SCAN><thinking>A</thinking><answer>B</answer>", "B", id="medix-r1"),
        pytest.param("<CT_SCAN> left lung", "left lung", id="modality-tag"),
        pytest.param("<X_RAY>\n<CT_SCAN>left", "left", id="two-modality-tags"),
        pytest.param("left <CT_SCAN>", "left <CT_SCAN>", id="a-tag-that-is-not-in-front"),
        pytest.param("<answer>A</answer><answer>B</answer>", "B", id="last-block"),
        pytest.param("<answer>A <answer>B</answer>", "B", id="innermost-block"),
        pytest.param("<answer>A</answer><answer>B", "A", id="last-complete-block"),
        pytest.param("<answer>A</answer> so B</answer>", "A", id="stray-closing-tag"),
        pytest.param("It follows: <answer>\nB\n</answer> as said", "B", id="text-around-a-block"),
        pytest.param("<answer>B", "B", id="block-that-never-closes"),
        pytest.param("<answer></answer>", "", id="empty-block"),
        pytest.param("<answer>A</answer></think>B", "B", id="a-block-inside-thinking"),
        pytest.param("<think><answer>A</answer></think>", "", id="only-thinking-holds-a-block"),
        pytest.param("<think>It is B", "", id="cut-off-while-thinking"),
        pytest.param("B<think>or A", "", id="cut-off-while-thinking-again"),
        pytest.param("<answer>B</answer><thinking>or", "", id="thinking-after-a-block"),
        pytest.param("", "", id="empty"),
        # Other families.
        pytest.param("<reasoning>A?</reasoning>B", "B", id="reasoning"),
        pytest.param("<reason>A?</reason>B", "B", id="reason"),
        pytest.param("<thoughts>A?</thoughts>B", "B", id="thoughts"),
        pytest.param("<scratchpad>A?</scratchpad>B", "B", id="scratchpad"),
        pytest.param("<unused94>thought\nA?<unused95>B", "B", id="unused-tokens"),
        pytest.param("<unused94>thought\nIt may be B", "", id="unused-tokens-not-closed"),
        pytest.param("<|channel>thought\nA?<channel|>B", "B", id="one-sided-channel"),
        pytest.param(
            "<|begin_of_thought|>A?<|end_of_thought|>\n\n<|begin_of_solution|>B<|end_of_solution|>",
            "B",
            id="solution",
        ),
        pytest.param(
            "<|START_THINKING|>A?<|END_THINKING|><|START_RESPONSE|>B<|END_RESPONSE|>",
            "B",
            id="response",
        ),
        pytest.param("<|channel|>commentary<|message|>It may be B", "", id="commentary"),
        pytest.param("<|channel|>final<|message|>B<|return|>", "B", id="final-channel-alone"),
        pytest.param("commentaryIs it A?assistantfinalB", "B", id="stripped-commentary"),
        pytest.param("Is it A? It isassistantfinalB", "B", id="stripped-begin-is-missing"),
        pytest.param("analysisIs it A?", "", id="stripped-and-cut"),
        pytest.param("## Thinking\n\nA?\n\n## Final Response\n\nB", "B", id="headings"),
        pytest.param("# thinking:\nA?\n### Final answer: B", "B", id="headings-of-other-levels"),
        pytest.param("**Thought Process:**\nA?\n\n**Final Answer:** B", "B", id="bold-headings"),
        pytest.param("Well.\n\n## Thinking\nA?\n## Answer\nB", "B", id="heading-after-a-word"),
        pytest.param(
            "## Thinking\n### Answer\nA?\n## Final Answer\nB", "B", id="the-final-heading"
        ),
        pytest.param("## Thinking\nA?\n", "## Thinking\nA?", id="a-heading-that-nothing-ends"),
        pytest.param("**Thinking:** A?\n\n**Diagnosis:** B", "B", id="headings-on-their-lines"),
        pytest.param("**Thinking:** so B", "**Thinking:** so B", id="a-label-that-nothing-ends"),
        pytest.param(
            "<|channel|>final <|constrain|>json<|message|>B", "B", id="final-channel-of-json"
        ),
        pytest.param("B\n\n**Thought process:**\nA", "B\n\n**Thought process:**\nA", id="section"),
        pytest.param("## Answer\nB\n## Why\nC", "## Answer\nB\n## Why\nC", id="plain-headings"),
        pytest.param(
            "Here is my thought process:\nA?\n\nHere is my response:\nB", "B", id="thought-process"
        ),
        # A closing with nothing behind it.
        pytest.param("<think>x</think>\nA\n</think>", "A", id="stray-after-a-closing"),
        pytest.param("<think>x</think>A</thinking>", "A", id="stray-of-another-name"),
        pytest.param("<think>x</think>A</think></think>", "A", id="two-stray-tags"),
        pytest.param("<answer>A</answer></think>", "A", id="stray-after-a-block"),
        pytest.param(
            "<thinking>x</thinking><answer>A</answer></thinking>", "A", id="stray-after-all"
        ),
        pytest.param("[THINK]x[/THINK]A[/THINK]\n", "A", id="stray-in-brackets"),
        pytest.param("<think>maybe A</think>", "", id="all-is-thinking"),
        pytest.param("It may be A</think>", "", id="all-is-thinking-opened-in-the-prompt"),
        pytest.param("It may be A</think></think>", "", id="all-is-thinking-closed-twice"),
        pytest.param("<think>x</think>A<think>B</think>", "A", id="thinks-again-and-says-nothing"),
        pytest.param("B\n\n<reasoning>\nA?\n</reasoning>", "B", id="reasons-behind-the-answer"),
        pytest.param("<answer>B</answer><think>A?</think>", "B", id="thinking-behind-a-block"),
        pytest.param("<answer></answer></think>", "", id="stray-after-an-empty-block"),
        pytest.param("<answer>A</answer> or B</think>", "", id="a-block-within-thinking"),
    ],
)
def test_the_answer_is_what_is_said_after_thinking(completion: str, answer: str) -> None:
    assert extract_answer(completion) == answer


def test_thinking_is_what_stands_before_the_answer_with_or_without_a_stray_tag() -> None:
    assert thinking_of("<think>A?</think>B</think>") == "<think>A?</think>"
    assert thinking_of("B") == ""
    assert thinking_of("A?</think>") == "A?</think>"


def test_a_protocol_adds_marks_of_its_own() -> None:
    own = (("((muse", "muse))"), ("Hmm:", "So:"))

    assert extract_answer("((muse A? muse))B", more=own) == "B"
    assert extract_answer("Hmm: A? So: B", more=own) == "B"
    assert extract_answer("((muse It may be B", more=own) == ""
    assert extract_answer("<think>A?</think>B", more=own) == "B"
    assert extract_answer("((muse A? muse))B") == "((muse A? muse))B"


TAGS = ["<answer>", "</answer>", "<think>", "<thinking>", "</think>", "<CT_SCAN>", "\n", "B"]
NOISE = st.lists(st.sampled_from(TAGS) | st.text(max_size=8)).map("".join)
SECRET = "thought-of"


@given(before=NOISE, after=NOISE, closing=st.sampled_from(["</think>", "</thinking>"]))
def test_no_thought_is_ever_an_answer(before: str, after: str, closing: str) -> None:
    # Something is said at the end: with nothing behind it, the closing may be a stray one.
    completion = f"<thinking>{before}{SECRET}{closing}{after}said"

    assert SECRET not in extract_answer(completion)


@given(before=st.text(max_size=20), closing=st.sampled_from(["</think>", "</thinking>"]))
def test_what_is_all_thinking_has_no_answer(before: str, closing: str) -> None:
    assert extract_answer(f"<thinking>{before}{SECRET}{closing}") == ""


@given(before=NOISE)
def test_unfinished_thinking_has_no_answer(before: str) -> None:
    completion = f"{before}<thinking>{SECRET}"

    assert extract_answer(completion) == ""


@given(noise=NOISE, answer=st.text(alphabet="abc XYZ.,", min_size=1))
def test_a_complete_block_after_thinking_is_the_answer(noise: str, answer: str) -> None:
    assert extract_answer(f"{noise}</think><answer>{answer}</answer>") == answer.strip()


@pytest.mark.parametrize(
    "tag", ["<answer>", "</answer>", "<think>", "</think>", "<CT>", "<", " ", "\n# Thinking\n"]
)
def test_a_huge_completion_is_read_in_linear_time(tag: str) -> None:
    huge = tag * (200_000 // len(tag))  # with a quadratic pattern this takes minutes

    assert len(extract_answer(huge)) <= len(huge)
