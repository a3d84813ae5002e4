"""One statement of what is right: whoever asks a judge or a person quotes it, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import re
from collections import Counter
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_judges import Scripted, a_judge

from medix_eval.data.samples import _question_at
from medix_eval.errors import BadRow, ConfigError, ReplyUnusable
from medix_eval.evaluation.controls import _without_images
from medix_eval.judge_check.probes import load_probes
from medix_eval.judge_check.sheet import COLUMNS, as_page
from medix_eval.judging.judge import cells, grader_for
from medix_eval.judging.outcomes import verdict_of
from medix_eval.judging.prompts import check_prompts, compiled, fields_of, filled
from medix_eval.judging.protocol import DialogueJudge, LLMJudge, Rubric, load_protocol
from medix_eval.judging.replies import RELATIONS, details_of, labels_of, read_points, verdict_schema
from medix_eval.models.chat import Completion, Prompt, Sampling
from medix_eval.models.requests import thinking_switch
from medix_eval.records import CompletionRecord, Kind, Outcome, Sample, VerdictRecord
from medix_eval.results.statistics import Said, judge_effects, ratings

ROOT = Path(__file__).parents[1]
STATEMENTS = {
    name: (ROOT / "judges" / "rubric" / f"{name}.txt").read_text(encoding="utf-8").rstrip()
    for name in ("question", "report", "question_short", "report_short")
}
MEDIX = load_protocol("medix")
assert isinstance(MEDIX.judge, LLMJudge)
RUBRICS = {"question": MEDIX.judge.question, "report": MEDIX.judge.report}
CHOICE = CompletionRecord(
    task="t@1",
    sample_id="s1",
    row=0,
    kind=Kind.MULTIPLE_CHOICE,
    prompt="Which vitamin?\n\nChoices:\nA. Vitamin A\nB. Vitamin B\nC. Vitamin C",
    reference="Vitamin C",
    options=("Vitamin A", "Vitamin B", "Vitamin C"),
    completion="It may be scurvy, so I would say C.",
)
REPORT = CHOICE.model_copy(
    update={"kind": Kind.REPORT, "options": (), "prompt": "Describe it.", "reference": "Effusion."}
)


# Who quotes it


@pytest.mark.parametrize("protocol", ["medix", "cascade"])
def test_every_prompt_of_a_judge_begins_with_the_statement(protocol: str) -> None:
    judge = load_protocol(protocol).judge
    texts = load_protocol(protocol).texts
    assert isinstance(judge, LLMJudge)

    for kind, rubric in (("question", judge.question), ("report", judge.report)):
        assert len(rubric.prompts) == 3
        assert all(texts[file].startswith(STATEMENTS[kind] + "\n") for file in rubric.prompts)


def test_the_reward_asks_for_the_same_in_its_short_form() -> None:
    reward = load_protocol("reward")
    assert isinstance(reward.judge, LLMJudge)

    for kind, rubric in (("question", reward.judge.question), ("report", reward.judge.report)):
        (file,) = rubric.prompts
        assert STATEMENTS[f"{kind}_short"] in reward.texts[file]


def test_the_labelling_sheet_quotes_the_statement_of_what_is_on_it() -> None:
    row = dict.fromkeys(COLUMNS, "") | {"kind": "open", "sample_id": "1"}

    page = unescape(as_page([row]))
    both = unescape(as_page([row, row | {"kind": "report"}]))

    assert STATEMENTS["question"] in page
    assert STATEMENTS["report"] not in page
    assert STATEMENTS["report"] in both


def test_the_readme_quotes_the_statements() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")

    for name in ("question", "report", "question_short"):
        assert f"```text\n{STATEMENTS[name]}\n```" in page


def test_a_verdict_can_say_what_the_statement_lists_and_no_more() -> None:
    listed = re.findall(r"^([01]): (\w+) - ", STATEMENTS["question"], re.MULTILINE)
    scored = re.findall(r"^([0-5]): ", STATEMENTS["report"], re.MULTILINE)
    errors = re.findall(r"^(\w+) - ", STATEMENTS["report"], re.MULTILINE)
    schema = verdict_schema((0, 5), "findings")["properties"]

    assert {word: int(points) for points, word in listed} == RELATIONS
    assert [*verdict_schema((0, 1), "relation")["properties"]["relation"]["enum"]] == [*RELATIONS]
    assert scored == [*"012345"]
    assert [*schema] == ["reason", *errors, "score"]


@pytest.mark.parametrize("split", ["development", "held_out"])
def test_no_probe_is_labelled_against_the_statement(split: Any) -> None:
    items = load_probes(split).items

    assert {item.relation for item in items} == {*RELATIONS}
    assert all(item.is_correct == bool(RELATIONS[item.relation]) for item in items)


# The six cells


@pytest.mark.parametrize("kind", RUBRICS)
def test_no_cell_is_stricter_by_its_text(kind: str) -> None:
    """Three wordings name the parts in other words; all else is the same, to the letter."""
    texts = [MEDIX.texts[file] for file in RUBRICS[kind].prompts]
    fixed = {text.partition("\n\n")[0] for text in texts}
    frames = [text.partition("\n\n")[2].splitlines() for text in texts]

    assert len(fixed) == 1
    for lines in zip(*frames, strict=True):
        is_label = all(re.fullmatch(r"[A-Z][\w' ]{2,30}(\([a-z]+\))?[:.]", line) for line in lines)
        assert is_label or len({*lines}) == 1


@pytest.mark.parametrize("kind", RUBRICS)
def test_a_sample_meets_each_wording_once_and_both_orders_first(kind: str) -> None:
    drawn = [cells(RUBRICS[kind], f"sample {number}") for number in range(6000)]
    firsts = Counter(one[0].name for one in drawn)
    pairs = Counter((one[0].name, one[1].name) for one in drawn)

    assert all({cell.file for cell in one} == {*RUBRICS[kind].prompts} for one in drawn)
    assert all(one[0].answer_first != one[1].answer_first for one in drawn)
    assert len(firsts) == 6
    assert len(pairs) == 12
    assert all(900 < number < 1100 for number in firsts.values())
    assert cells(RUBRICS[kind], "sample 7") == drawn[7]


def test_a_prompt_that_is_not_crossed_is_asked_as_it_stands() -> None:
    mine = Rubric(scale=(0, 1), prompts=("a", "b", "c"), decide="majority")

    assert [cell.name for cell in cells(mine, "s")] == ["a", "b", "c"]


@pytest.mark.parametrize("file", [file for rubric in RUBRICS.values() for file in rubric.prompts])
def test_what_all_models_share_comes_first(file: str) -> None:
    template = compiled({file: MEDIX.texts[file]})[file]
    record = CHOICE if "question" in file else REPORT
    fields = fields_of(record, answer="THE ANSWER")

    shown = filled(template, record, fields)
    swapped = filled(template, record, fields, swapped=True)

    parts = ["taken as right", "marks", record.prompt, fields["reference"], "THE ANSWER"]
    for text in (shown, swapped):
        places = [text.rindex(part) for part in parts]
        assert places == sorted(places)
        parts[3:] = reversed(parts[3:])
    assert "JSON" in shown.splitlines()[-1]


def votes_of(number: int, *, order: float, wording: float, rng: random.Random) -> list[Said]:
    """Invent the votes of a judge that leans to prompts with the reference first, and to one."""
    truth = rng.random() < 0.5
    votes: list[Said] = []
    for cell in cells(RUBRICS["question"], f"sample {number}")[:2]:
        chance = (0.7 if truth else 0.2) + order * (not cell.answer_first)
        chance += wording * ("question_3" in cell.name)
        votes.append(("judge", cell.name, float(rng.random() < chance)))
    return votes


def test_effects_of_order_and_wording_are_told_apart() -> None:
    rng = random.Random(4)  # noqa: S311
    said = [votes_of(number, order=0.2, wording=0.1, rng=rng) for number in range(3000)]

    found = judge_effects((votes, 1.0) for votes in said)

    assert {*found} == {"question_1", "question_2", "question_3", "reference first"}
    covers = {"reference first": 0.2, "question_3": 0.1, "question_1": -0.05, "question_2": -0.05}
    for name, effect in covers.items():
        low, high = found[name].interval or (1.0, -1.0)
        assert low < effect < high
        assert high - low < 0.12
    assert found["reference first"].n == 3000
    assert found["question_1"].n == pytest.approx(2000, abs=100)


def test_two_judges_who_vote_alike_make_no_interval_narrower() -> None:
    rng = random.Random(5)  # noqa: S311
    said = [votes_of(number, order=0.2, wording=0.0, rng=rng) for number in range(200)]
    both = [[*votes, *(("twin", prompt, points) for _, prompt, points in votes)] for votes in said]

    alone = judge_effects((votes, 1.0) for votes in said)
    twice = judge_effects((votes, 1.0) for votes in both)

    for name, effect in alone.items():
        assert twice[name].interval == pytest.approx(effect.interval, abs=0.002)


def test_an_effect_is_a_share_of_the_scale() -> None:
    votes: list[Said] = [("j", "report_1", 5.0), ("j", "report_2/answer_first", 3.0)]

    found = judge_effects([(votes, 5.0)] * 20)

    assert found["reference first"].difference == pytest.approx(0.4)
    low, high = found["reference first"].interval or (0.0, 0.0)
    assert low <= 0.4 <= high


@pytest.mark.parametrize(("second", "found"), [(None, set()), (1.0, {"reference first"})])
def test_a_vote_that_failed_is_in_no_effect(second: float | None, found: set[str]) -> None:
    votes: list[Said] = [("j", "question_1", 0.0), ("j", "question_1/answer_first#2", second)]

    assert {*judge_effects([([*votes, ("j", "question_3", 1.0)], 1.0)])} == found


def test_the_raters_of_drawn_prompts_are_first_and_second_vote() -> None:
    votes = [("j", "question_2/answer_first", 1.0), ("j", "question_1", 0.0)]

    assert ratings(votes) == {"vote 1": 1.0, "vote 2": 0.0}


# What a judge is shown


def test_the_reference_of_a_choice_has_its_letter() -> None:
    assert fields_of(CHOICE, answer="C")["reference"] == "C. Vitamin C"


def test_every_letter_that_reads_the_same_is_right() -> None:
    twice = CHOICE.model_copy(
        update={
            "prompt": "Which?\nA. Vitamin  C\nB. Vitamin B\nC. Vitamin C\nD. vitamin c",
            "options": ("Vitamin  C", "Vitamin B", "Vitamin C", "vitamin c"),
        }
    )

    assert fields_of(twice, answer="A")["reference"] == "A or C. Vitamin C"


@pytest.mark.parametrize(
    "prompt", ["Which vitamin?", "Which?\n1. Vitamin A\n2. Vitamin B\n3. Vitamin C", "C is for cat"]
)
def test_a_letter_that_the_question_does_not_show_is_not_named(prompt: str) -> None:
    record = CHOICE.model_copy(update={"prompt": prompt})

    assert fields_of(record, answer="C")["reference"] == "Vitamin C"


def test_the_published_evaluation_sees_the_text_alone() -> None:
    asked: list[Prompt] = []

    async def ask(prompt: Prompt, _: Sampling) -> Completion:
        asked.append(prompt)
        return Completion(text='{"score": 1}')

    compat = load_protocol("medix-compat")
    assert isinstance(compat.judge, DialogueJudge)
    grader = grader_for(compat, {"j": ask}, identities={"j": {}}, cache=None)
    assert grader is not None
    asyncio.run(grader.grade(CHOICE, answer="C"))

    assert "Correct answer:\nVitamin C\n" in asked[0].text


def test_images_left_out_move_no_question() -> None:
    prompt = "<image>History: none.\nWhich organ is it?"
    sample = Sample(
        id="s", task="t@1", row=0, kind=Kind.OPEN, prompt=prompt, reference="liver",
        question_at=prompt.index("Which"), images=(b"image",),
    )  # fmt: skip

    found = _without_images(sample)

    assert found.prompt[found.question_at :] == "Which organ is it?"


@pytest.mark.parametrize(
    ("question", "shown"),
    [("maybe", "maybe\n\nA. yes\nB. maybe"), ("A", None), ("Is it?  ", "Is it?\nmaybe")],
)
def test_a_question_begins_at_its_line(question: str, shown: str | None) -> None:
    prompt = "Is it?\nmaybe\n\nA. yes\nB. maybe"
    task: Any = SimpleNamespace(name="t", settings=SimpleNamespace(question="q"))

    def begins() -> int:
        return _question_at(task, {"q": question}, prompt=prompt, row=3)

    if shown is None:
        with pytest.raises(BadRow, match="t, row 3: column 'q' is no line of the prompt"):
            begins()
    else:
        assert prompt[begins() :].startswith(shown)


def test_a_judge_sees_the_question_and_not_what_stands_before() -> None:
    prompt = (
        "BACKGROUND: long.\nWhich vitamin?\n\nChoices:\nA. Vitamin A\nB. Vitamin B\nC. Vitamin C"
    )
    record = CHOICE.model_copy(update={"prompt": prompt, "question_at": prompt.index("Which")})

    assert fields_of(record, answer="")["question"] == CHOICE.prompt
    assert fields_of(record, answer="", published=True)["question"] == prompt


# What a judge replies


def verdict(points: int, *, kind: str, rng: random.Random) -> dict[str, Any]:
    """Return a verdict in the form of a schema."""
    reason = rng.choice(["", "Same.", 'It claims {"score": 1}.', "a { b", 'q"uote', "Оценка: 1"])
    if kind == "score":
        return {"score": points}
    if kind == "relation":
        fitting = [word for word, score in RELATIONS.items() if score == points]
        return {"reason": reason, "relation": rng.choice(fitting), "score": points}
    error = {"finding": reason, "site": "pleura", "side": "left", "certainty": "sure"}
    lists = {
        name: [error | {"urgency": rng.choice(["urgent" if points <= 2 else "soon", "soon"])}]
        * (rng.randrange(1, 3) if points < 5 else 0)
        for name in ("missing", "contradicted", "invented")
    }
    return {"reason": reason, **lists, "score": points}


@pytest.mark.parametrize(("kind", "most"), [("score", 1), ("relation", 1), ("findings", 5)])
@given(seed=st.integers(0, 10**6), where=st.floats(0, 1, exclude_max=True))
def test_a_verdict_is_read_whole_or_not_at_all(
    kind: str, most: int, seed: int, where: float
) -> None:
    rng = random.Random(seed)  # noqa: S311
    said = verdict(rng.randrange(most + 1), kind=kind, rng=rng)
    indent = rng.choice([None, 1])
    text = json.dumps(said, indent=indent, ensure_ascii=rng.random() < 0.5)

    assert read_points(text, scale=(0, most)) == said["score"]
    with pytest.raises(ReplyUnusable):
        read_points(text[: int(where * len(text))].rstrip() or "?", scale=(0, most))


@pytest.mark.parametrize(("relation", "points"), [*itertools.product(RELATIONS, (0, 1))])
def test_a_verdict_that_contradicts_itself_is_none(relation: str, points: int) -> None:
    text = json.dumps({"reason": "", "relation": relation, "score": points})
    if RELATIONS[relation] == points:
        assert read_points(text, scale=(0, 1)) == points
    else:
        with pytest.raises(ReplyUnusable, match="contradicts itself"):
            read_points(text, scale=(0, 1))


@pytest.mark.parametrize(
    "reply",
    [
        '{"relation": "Opposite", "score": 1}',
        '{"relation": " opposite ", "score": 1}',
        '{"relation": "opposite - other side", "score": 1}',
        '{"relation": ["opposite"], "score": 1}',
        '{"Relation": "opposite", "score": 1}',
        '{"relation": "opposite"}\n{"score": 1}',
        '{"relation": "same", "relation": "opposite", "score": 1}',
        '{"relation": "partial", "score": "refused"}',
        '{"relation": ["same", "other"], "score": 1}',
        '{"rel\\u0061tion": "opposite", "score": 1}',
    ],
)
def test_a_relation_in_any_spelling_must_fit_its_score(reply: str) -> None:
    with pytest.raises(ReplyUnusable, match="contradicts itself"):
        read_points(reply, scale=(0, 1))


@pytest.mark.parametrize("relation", ['"alike"', "null", '""', "[]", "7", '["same", "alike"]'])
def test_a_relation_that_the_rubric_does_not_know_is_named(relation: str) -> None:
    with pytest.raises(ReplyUnusable, match=r"is not one of same, narrower"):
        read_points(f'{{"relation": {relation}, "score": 1}}', scale=(0, 1))


@pytest.mark.parametrize(
    ("listed", "most"),
    [
        ({}, 5),
        ({"missing": [{"urgency": "urgent", "by": "presence"}]}, 2),
        ({"missing": [{"urgency": "urgent"}]}, 2),
        ({"missing": [{"urgency": "urgent", "by": "side"}]}, 4),  # given, but without its side
        ({"missing": [{"urgency": "soon", "by": "presence"}]}, 4),
        ({"invented": [{"urgency": "urgent", "by": "presence"}]}, 2),
        ({"contradicted": [{"urgency": "routine", "by": "side"}]}, 2),
        ({"contradicted": [{"urgency": "urgent", "by": "size"}]}, 4),
        ({"missing": [{"urgency": "routine"}, {"urgency": "urgent"}], "invented": ["?"]}, 2),
    ],
)
def test_a_report_scores_as_its_lists_allow(listed: dict[str, Any], most: int) -> None:
    lists = {name: listed.get(name, []) for name in ("missing", "contradicted", "invented")}
    usable = list[int | None]()
    for score in (0, 1, 2, 3, 4, 5, "refused"):
        with contextlib.suppress(ReplyUnusable):
            usable.append(read_points(json.dumps({**lists, "score": score}), scale=(0, 5)))

    assert usable == ([*range(most + 1)] if listed else [0, 5, None])


@pytest.mark.parametrize(
    ("lists", "score", "labels"),
    [
        ({"Missing": [{"urgency": "Urgent ", "BY": "Presence"}]}, 2, ("missing", "missing_urgent")),
        ({"missing": [{"urgency": "urgent", "by": None}]}, 2, ("missing", "missing_urgent")),
        ({"contradicted": [{"By": "Side"}]}, 2, ("contradicted", "laterality")),
        ({"missing": "none", "invented": ["None"], "contradicted": None}, 5, ()),
        ({"missing": "effusion"}, 4, ("missing",)),
        ({"missing": [{"finding": "mass", "correct_side": "left"}]}, 4, ("missing",)),
    ],
)
def test_lists_in_any_spelling_bind_the_score(
    lists: dict[str, Any], score: int, labels: tuple[str, ...]
) -> None:
    text = json.dumps({"missing": [], "contradicted": [], "invented": [], "score": score} | lists)
    more = json.dumps({**json.loads(text), "score": min(5, score + 1)})

    assert read_points(text, scale=(0, 5)) == score
    assert labels_of(text) == labels
    if labels:
        with pytest.raises(ReplyUnusable, match="contradicts itself"):
            read_points(more, scale=(0, 5))


def test_what_a_page_shows_of_a_reply_is_text_that_a_file_can_hold() -> None:
    reply = '{"reason": "\\ud83d", "x": NaN, "y": 1e999, "relation": "same", "score": 1}'

    shown = details_of(reply)
    json.dumps(shown, ensure_ascii=False, allow_nan=False).encode()
    assert shown == {"reason": "?", "x": "NaN", "y": "1e999", "relation": "same"}


def test_a_report_without_error_has_none_listed() -> None:
    listed = '{"missing": [{"finding": "mass"}], "score": 5}'

    assert read_points(listed.replace("5", "4"), scale=(0, 5)) == 4
    with pytest.raises(ReplyUnusable, match="contradicts itself"):
        read_points(listed, scale=(0, 5))


def test_a_reason_may_hold_a_line_break() -> None:
    assert read_points('{"reason": "a\nb", "relation": "same", "score": 1}', scale=(0, 1)) == 1


def test_a_refusal_that_is_said_to_mean_the_reference_is_no_verdict() -> None:
    with pytest.raises(ReplyUnusable, match="contradicts itself"):
        read_points('{"relation": "same", "score": "refused"}', scale=(0, 1))


@pytest.mark.parametrize(
    ("reply", "labels"),
    [
        ('{"score": 1}', ()),
        ("not JSON", ()),
        ('{"relation": "Same", "score": 1}', ("same",)),
        ('{"relation": "alike", "score": 1}', ()),
        ('{"relation": ["opposite"], "score": 0}', ("opposite",)),
        ('{"rel\\u0061tion": "partial", "score": 0}', ("partial",)),
        ('<think>{"relation": "same", "score": 1}</think>{"score": 0}', ()),
        ('{"missing": [{"urgency": "urgent", "by": "site"}], "score": 3}', ("missing",)),
        ('{"relation": "opposite", "score": 0}', ("opposite",)),
        ('{"missing": [], "contradicted": [], "invented": [], "score": 5}', ()),
        ('{"missing": "none", "contradicted": [7], "score": 3}', ("contradicted",)),
        (
            '{"missing": [{"urgency": "urgent"}], "contradicted": [{"by": "side"}], "score": 2}',
            ("contradicted", "laterality", "missing", "missing_urgent"),
        ),
    ],
)
def test_labels_are_words_of_the_schema(reply: str, labels: tuple[str, ...]) -> None:
    assert labels_of(reply) == labels


def test_an_old_verdict_has_no_details() -> None:
    thought = '<think>{"reason": "no", "score": 0}</think>{"reason": "yes", "score": 1}'

    assert details_of('The same drug. {"score": 1}') == {}
    assert details_of(thought) == {"reason": "yes"}


def ended(record: CompletionRecord, *replies: str) -> VerdictRecord:
    judge = a_judge(Scripted(*replies), tries=2)
    return asyncio.run(verdict_of(record, protocol=MEDIX, grader=judge))


def test_the_mistakes_that_most_votes_name_are_error_tags() -> None:
    opposite, other, same = (
        json.dumps({"reason": "", "relation": word, "score": RELATIONS[word]})
        for word in ("opposite", "other", "same")
    )

    assert ended(CHOICE, opposite, opposite).error_tags == ("opposite",)
    assert ended(CHOICE, opposite, other).error_tags == ()
    assert ended(CHOICE, same, opposite, opposite).error_tags == ("opposite",)
    assert ended(CHOICE, same, opposite, same).error_tags == ()


def test_what_is_wrong_with_a_report_is_an_error_tag() -> None:
    urgent = '{"missing": [{"urgency": "urgent"}], "score": 2}'
    minor = '{"missing": [{"urgency": "minor"}], "score": 4}'
    found = ended(REPORT, urgent, urgent, minor)

    assert found.outcome is Outcome.PARTIAL
    assert found.error_tags == ("missing", "missing_urgent")
    assert ended(REPORT, minor, minor, urgent).error_tags == ("missing",)
    assert ended(REPORT, *['{"score": 5}'] * 3).error_tags == ()


def test_a_second_try_asks_for_the_score_alone() -> None:
    scripted = Scripted("?", '{"score": 1}', '{"score": 1}')

    asyncio.run(a_judge(scripted, tries=2).grade(CHOICE, answer="C"))

    first, again, _ = (set((one.schema or {})["properties"]) for one in scripted.prompts)
    assert (first, again) == ({"reason", "relation", "score"}, {"score"})


# Thinking


@pytest.mark.parametrize(
    ("name", "switch"),
    [
        ("Qwen/Qwen3-14B", "enable_thinking"),
        ("openai:qwen3-14b", "enable_thinking"),
        ("Qwen/Qwen3-4B-Instruct-2507", ""),
        ("openai:qwen3-4b-2507", ""),
        ("Qwen/Qwen3-VL-8B-Instruct", ""),
        ("Qwen/Qwen2.5-7B-Instruct", ""),
        ("openai/gpt-oss-120b", "reasoning_effort"),
        ("openai-api:gpt-5-mini", "reasoning_effort"),
        ("openai-api:gpt-5-chat-latest", ""),
        ("openai-api:gpt-4.1", ""),
        ("deepseek-ai/DeepSeek-V3.1", "thinking"),
        ("zai-org/GLM-4.5-Air", "enable_thinking"),
        ("meta-llama/Llama-3.3-70B-Instruct", ""),
        ("/data/qwen3/medix-r1", ""),
        ("/models/o1/llama", ""),
        ("org/o3d-med", ""),
        ("Qwen3VL-8B", ""),
        ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", ""),
        ("/models/Instruct/Qwen3-8B/", "enable_thinking"),
    ],
)
def test_a_family_is_asked_not_to_think_in_its_own_way(name: str, switch: str) -> None:
    asked = thinking_switch("off", name)

    assert bool(asked) == bool(switch)
    assert switch in json.dumps(asked)
    assert thinking_switch("as_is", name) == {}


def test_the_switch_is_sent_and_what_thinking_cost_is_kept() -> None:
    said = ('<think>hm</think>{"score": 1}', '{"score": 1}')
    scripted = Scripted(*(Completion(text=one, completion_tokens=100) for one in said))

    found = asyncio.run(a_judge(scripted, name="openai:qwen3-14b").grade(CHOICE, answer="C"))

    assert scripted.prompts[0].extra == {"chat_template_kwargs": {"enable_thinking": False}}
    assert all(prompt.text.endswith(" /no_think") for prompt in scripted.prompts)
    assert [vote.tokens for vote in found.votes] == [100, 100]
    assert [vote.thinking_tokens > 0 for vote in found.votes] == [True, False]


def test_a_name_that_tells_no_family_is_given_one() -> None:
    scripted = Scripted('{"score": 1}')
    switched = ["judge.thinking=qwen3"]

    plain = asyncio.run(a_judge(scripted, name="openai:judge").grade(CHOICE, answer="C"))
    asked = a_judge(scripted, name="openai:judge", overrides=switched)
    told = asyncio.run(asked.grade(CHOICE, answer="C"))

    assert [bool(prompt.extra) for prompt in scripted.prompts] == [False, False, True, True]
    assert {vote.key for vote in plain.votes}.isdisjoint(vote.key for vote in told.votes)


def test_off_is_a_word_though_yaml_reads_it_as_false() -> None:
    off = load_protocol("medix", overrides=["judge.thinking=off"]).judge

    assert off == MEDIX.judge


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("judge.thinking=qwen", "family of models"),
        ("harm={lateralty: 1}", "mistake in `harm`"),
        ("harm={laterality: 2}", "harm.laterality"),
        ("judge.question.reply=words", "judge.question.reply"),
        ("judge.report.prompts=[prompts/reward.jinja, prompts/reward.jinja]", "listed twice"),
    ],
)
def test_a_setting_that_is_none_is_named(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_prompts(load_protocol("medix", overrides=[override]))


def test_a_prompt_that_is_crossed_needs_two_orders(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jinja"
    mine.write_text("{{ reference }} {{ answer }}")
    prompts = f"judge.question.prompts=[{mine}]"

    check_prompts(load_protocol("medix", overrides=[prompts, "judge.question.crossed=false"]))
    with pytest.raises(ConfigError, match=r"mine\.jinja has one order, but is crossed"):
        check_prompts(load_protocol("medix", overrides=[prompts]))


def test_a_statement_that_is_missing_is_named(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jinja"
    mine.write_text('{% include "none.txt" %}{{ reference }} {{ answer }}')

    with pytest.raises(ConfigError, match=r"mine\.jinja includes .*none\.txt: No such file"):
        load_protocol("medix", overrides=[f"judge.question.prompts=[{mine}]"])
