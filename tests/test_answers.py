from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix_eval.rules.answers import extract_answer, has_final_answer


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
    ],
)
def test_the_answer_is_what_is_said_after_thinking(completion: str, answer: str) -> None:
    assert extract_answer(completion) == answer


@pytest.mark.parametrize(
    ("completion", "is_final"),
    [
        ("<answer>B</answer> and to expl", True),
        ("<think>A?</think><answer>B</answer>", True),
        ("<think>A?</think>The answer is B", True),
        ("A?</thinking> B", True),
        ("<think>A?</think>  ", False),
        ("<think>A?</think><answer>The most lik", False),
        ("<think>The most lik", False),
        ("<answer>B</answer><think>The most lik", False),
        ("<answer> </answer>", False),
        ("This patient most likely has a", False),
        ("", False),
    ],
)
def test_a_completion_that_was_cut_off_is_judged_only_with_a_complete_answer(
    completion: str, *, is_final: bool
) -> None:
    assert has_final_answer(completion) is is_final


TAGS = ["<answer>", "</answer>", "<think>", "<thinking>", "</think>", "<CT_SCAN>", "\n", "B"]
NOISE = st.lists(st.sampled_from(TAGS) | st.text(max_size=8)).map("".join)
SECRET = "thought-of"


@given(before=NOISE, after=NOISE, closing=st.sampled_from(["</think>", "</thinking>"]))
def test_no_thought_is_ever_an_answer(before: str, after: str, closing: str) -> None:
    thinking = f"<thinking>{before}{SECRET}{closing}"

    assert SECRET not in extract_answer(thinking + after)


@given(before=NOISE)
def test_unfinished_thinking_has_no_answer(before: str) -> None:
    completion = f"{before}<thinking>{SECRET}"

    assert extract_answer(completion) == ""
    assert not has_final_answer(completion)


@given(noise=NOISE, answer=st.text(alphabet="abc XYZ.,", min_size=1))
def test_a_complete_block_after_thinking_is_the_answer(noise: str, answer: str) -> None:
    assert extract_answer(f"{noise}</think><answer>{answer}</answer>") == answer.strip()


@pytest.mark.parametrize("tag", ["<answer>", "</answer>", "<think>", "</think>", "<CT>", "<", " "])
def test_a_huge_completion_is_read_in_linear_time(tag: str) -> None:
    huge = tag * (200_000 // len(tag))  # with a quadratic pattern this takes minutes

    assert len(extract_answer(huge)) <= len(huge)
