"""The oracles agree with the worked examples of what was published."""

from __future__ import annotations

import published_rewards as rewards
import published_scoring as scoring
import pytest

RIGHT = "<X_RAY><thinking>shown</thinking><answer>{}</answer>"
HACKS = {**rewards.FREE_HACKS, **rewards.JUDGED_HACKS}


def overall(response: str, solution: str, *, says: str = "NO", cosine: float = 0.0) -> float:
    return rewards.reward(response, solution, judge_reply=says, cosine=cosine).overall


@pytest.mark.parametrize("gold", ["A", "3", "Ratio 3:1", "why?", "a__b"])
def test_an_identical_answer_that_looks_like_a_hack_earns_only_its_form(gold: str) -> None:
    earned = overall(RIGHT.format(gold), f"<X_RAY>\n{gold}", says="YES", cosine=1.0)

    assert earned == pytest.approx(0.145)


def test_the_weights_sum_to_those_of_the_published_formula() -> None:
    gold = "<X_RAY>\nPneumonia"
    wrong = RIGHT.format("Fracture")

    assert overall(RIGHT.format("Pneumonia"), gold) == pytest.approx(1.0)
    assert overall(RIGHT.replace("X_", "").format("Pneumonia"), gold) == pytest.approx(0.955)
    assert overall("Pneumonia", gold) == pytest.approx(0.855)
    assert overall(wrong, gold, says="YES") == pytest.approx(0.5175 + 0.145)
    assert overall(wrong, gold, cosine=0.8) == pytest.approx(0.3375 + 0.145)


@pytest.mark.parametrize("gold", ["120 / 80 mmHg", "p < 0.05"])
def test_only_the_prediction_loses_its_spaces_so_identical_text_is_not_equal(gold: str) -> None:
    assert rewards.needs_models(RIGHT.format(gold), f"<X_RAY>\n{gold}")


def test_a_solution_without_a_tag_never_earns_accuracy() -> None:
    found = rewards.reward(RIGHT.format("Flu"), "Flu", judge_reply="YES", cosine=1.0)

    assert (found.accuracy_llm, found.accuracy_embedding) == (0.0, 0.0)


@pytest.mark.parametrize("name", rewards.FREE_HACKS)
def test_a_free_hack_scores_full_marks_whatever_the_models_say(name: str) -> None:
    assert overall(rewards.FREE_HACKS[name], rewards.HACK_SOLUTION) == pytest.approx(1.0)


@pytest.mark.parametrize("name", HACKS)
def test_every_hack_has_full_format_and_a_fooled_judge(name: str) -> None:
    found = rewards.reward(HACKS[name], rewards.HACK_SOLUTION, judge_reply="YES", cosine=0.0)

    assert (found.format, found.accuracy_llm) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("score", "sample_id", "expected"),
    [
        pytest.param("1", "medqa_0", 1.0, id="right"),
        pytest.param('"1"', "medqa_0", 0.0, id="a-string-is-wrong"),
        pytest.param("true", "medqa_0", 1.0, id="true-is-right"),
        pytest.param("1.0", "medqa_0", 1.0, id="a-float-is-right"),
        pytest.param("7", "medqa_0", 0.0, id="seven-is-not-one"),
        pytest.param("7", "mimic_cxr_report_generation_0", 7.0, id="seven-of-five"),
    ],
)
def test_three_equal_replies_score_as_published(
    score: str, sample_id: str, expected: float
) -> None:
    replies = [f'<think></think> {{"score": {score}}}'] * 3

    assert scoring.sample_score(replies, sample_id=sample_id) == expected


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(None, id="no-text"),
        pytest.param("1", id="no-json"),
        pytest.param('{"score": 1} or {"score": 0}', id="two-objects"),
        pytest.param('}{"score": 1', id="never-closed"),
        pytest.param('<think>{"score": 1}</think>', id="only-in-thinking"),
        pytest.param('{"verdict": 1}', id="another-key"),
    ],
)
def test_one_unusable_reply_loses_the_sample(reply: str | None) -> None:
    with pytest.raises(scoring.NoVerdict):
        scoring.sample_score(['{"score": 1}', '{"score": 1}', reply], sample_id="medqa_0")


def test_a_lost_sample_leaves_the_denominator_and_a_repeated_one_enters_twice() -> None:
    assert scoring.task_score([1, 0, 0], task="medqa") == pytest.approx(1 / 3)
    assert scoring.task_score([1, 1, 0, 0], task="medqa") == pytest.approx(1 / 2)


def test_a_line_of_another_task_and_a_task_without_lines_both_crash() -> None:
    with pytest.raises(KeyError):
        scoring.run_scores([("medqa", 1.0)], selected=["medmcqa"])
    with pytest.raises(ZeroDivisionError):
        scoring.run_scores([], selected=["medqa"])


def test_there_are_eleven_text_and_six_image_tasks() -> None:
    assert (len(scoring.LLM_TASKS), len(scoring.VLM_TASKS)) == (11, 6)
