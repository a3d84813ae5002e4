from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix_eval.errors import ReplyUnusable
from medix_eval.judging.replies import read_label, read_points, verdict_schema


@pytest.mark.parametrize(
    ("reply", "points"),
    [
        pytest.param('{"score": 1}', 1, id="bare"),
        pytest.param('```json\n{"score": 0}\n```', 0, id="fenced"),
        pytest.param('{"score":\t1\n}', 1, id="free-whitespace"),
        pytest.param('<think>{"score": 0}</think>{"score": 1}', 1, id="after-thinking"),
        pytest.param('He wrote {"score": 1}. So: {"score": 0}', 0, id="the-last-one-counts"),
        pytest.param('{"score": 1, "reason": "same drug"}', 1, id="with-a-reason"),
        pytest.param('{"score": 1} {as agreed}', 1, id="braces-behind-it"),
    ],
)
def test_a_verdict_is_read(reply: str, points: int) -> None:
    assert read_points(reply, scale=(0, 1)) == points


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param("", id="empty"),
        pytest.param("1", id="bare-number"),
        pytest.param("The score is 1.", id="prose"),
        pytest.param("Not correct", id="substring-trap"),
        pytest.param('{"score": "1"}', id="number-as-text"),
        pytest.param('{"score": true}', id="boolean"),
        pytest.param('{"score": 1.0}', id="float"),
        pytest.param('{"score": 2}', id="off-the-scale"),
        pytest.param('{"score": -1}', id="below-the-scale"),
        pytest.param('{"score": null}', id="null"),
        pytest.param('{"score": 1', id="cut-off"),
        pytest.param('{"score": 1, "score": 0}', id="says-both"),
        pytest.param('{"Score": 1}', id="other-key"),
        pytest.param('<think>\n{"score": 1}', id="cut-off-while-thinking"),
        pytest.param('{"score": 0}<think>{"score": 1}', id="thinking-again"),
        pytest.param('{"score": 0} or {"score": maybe}', id="the-last-one-is-unusable"),
    ],
)
def test_an_unusable_reply_raises_instead_of_scoring(reply: str) -> None:
    with pytest.raises(ReplyUnusable):
        read_points(reply, scale=(0, 1))


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
    ],
)
def test_a_label_is_read(reply: str, points: int) -> None:
    assert read_label(reply, labels=LABELS) == points


@pytest.mark.parametrize(
    "reply", ["", "NO, not YES", "YES or NO", "YESNO", "maybe", "1", "<think>YES", "Not"]
)
def test_a_reply_with_more_than_one_label_raises_instead_of_scoring(reply: str) -> None:
    with pytest.raises(ReplyUnusable):
        read_label(reply, labels=LABELS)
