from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripted_servers import Run, Serve, judge, records

from medix_eval.errors import ConfigError
from medix_eval.judging.prompts import shown_protocol
from medix_eval.judging.protocol import (
    EmbeddingSpec,
    LLMJudge,
    Protocol,
    by_role,
    load_protocol,
    protocol_names,
)
from medix_eval.storage.bundled import bundled


def test_every_bundled_protocol_loads_with_its_prompts() -> None:
    assert {"cascade", "medix", "medix-compat", "reward", "rules"} <= set(protocol_names())

    for name in protocol_names():
        protocol = load_protocol(name)
        assert protocol.name == name
        assert all(protocol.texts.values())


def test_an_override_changes_the_digest_and_the_name() -> None:
    plain, longer = load_protocol("medix"), load_protocol("medix", overrides=["judge.tries=3"])

    assert plain.digest != longer.digest
    assert longer.name == "medix+judge.tries=3"
    assert plain.generation_settings() == longer.generation_settings()


def test_the_digest_is_of_a_prompts_text_and_not_of_its_path(tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{{ prompt }} Think first.")
    first = load_protocol("rules", overrides=[f"prompt.template={template}"]).generation_settings()
    template.write_text("{{ prompt }} Be short.")
    second = load_protocol("rules", overrides=[f"prompt.template={template}"]).generation_settings()

    assert first != second


def _own(folder: Path, *, questions: tuple[str, ...], report: str = "report") -> Protocol:
    """A protocol whose prompts lie in a folder of their own, named by their place."""
    folder.mkdir()
    for name in {*questions, report}:
        (folder / f"{folder.name}-{name}.jinja").write_text(
            f"{name}: {{{{ reference }}}} {{{{ answer }}}}"
        )
    listed = [f"{folder.name}-{name}.jinja" for name in questions]
    (folder / "own.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "own",
                "version": 1,
                "summary": "",
                "generation": {"max_tokens": 10},
                "judge": {
                    "scorer": "judge",
                    "model": "any",
                    "sampling": {"max_tokens": 10},
                    "question": {"scale": [0, 1], "prompts": listed, "decide": "majority"},
                    "report": {
                        "scale": [0, 5],
                        "prompts": [f"{folder.name}-{report}.jinja"],
                        "decide": "mean",
                    },
                },
            }
        )
    )
    return load_protocol(str(folder / "own.yaml"))


def test_equal_prompts_in_two_folders_under_two_names_are_one_protocol(tmp_path: Path) -> None:
    one = _own(tmp_path / "one", questions=("a", "b"))
    other = _own(tmp_path / "other", questions=("a", "b"))

    assert one.judging_settings() == other.judging_settings()
    assert one.digest == other.digest
    assert list(one.prompt_names.values()) == ["one-a", "one-b", "one-report"]


def test_runs_under_equal_prompts_in_two_folders_share_a_board_and_keep_the_files_names(
    run: Run, evaluate: Run, serve: Serve, tmp_path: Path
) -> None:
    server, found = serve(lambda _: '{"score": 1}'), {}
    for model, name in (("one", "first"), ("other", "second")):
        _own(tmp_path / name, questions=("a", "b"))
        answering = serve(lambda _: "left", model=model)
        argv = ["--model", f"openai:{model}", "--base-url", answering.url, "--tasks", "rad_vqa"]
        argv += [*judge(server), "--protocol", str(tmp_path / name / "own.yaml")]
        _, out, err = evaluate(*argv)
        assert out, err
        found[name] = json.loads(out)["run"]
        zipped = run("submit", found[name], "--out", tmp_path, "--allow-synthetic")[1].strip()
        said = run("submit", zipped, "--check", "--allow-synthetic")[1]
        assert said.endswith(": accepted\n")
        (verdict, *_) = records(found[name], "verdicts.jsonl")
        assert [vote["prompt"] for vote in verdict["votes"]] == [f"{name}-a", f"{name}-b"]

    compared, _, err = run("compare", *found.values())
    _, boards, _ = run(
        "leaderboard", *found.values(), "--allow-synthetic", "--out", tmp_path / "site"
    )

    assert compared == 0, err
    assert boards.count("own · ") == 1
    assert "2 models" in boards


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"questions": ("a", "c")}, id="text"),
        pytest.param({"questions": ("b", "a")}, id="order"),
        pytest.param({"questions": ("a",)}, id="number"),
        pytest.param({"questions": ("a", "report"), "report": "b"}, id="role"),
    ],
)
def test_another_text_order_or_role_of_a_prompt_is_another_protocol(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    one = _own(tmp_path / "one", questions=("a", "b"))
    other = _own(tmp_path / "other", **changed)

    assert one.digest != other.digest


def test_a_protocol_may_add_marks_of_thinking_and_its_digest_says_so() -> None:
    plain = load_protocol("rules")
    own = load_protocol("rules", overrides=["answer.thinking=[['((muse', 'muse))']]"])

    assert own.answer.thinking == (("((muse", "muse))"),)
    assert own.digest != plain.digest
    assert own.judging_settings()["answer"]["thinking"] == [["((muse", "muse))"]]
    assert "thinking" not in plain.judging_settings()["answer"]


@pytest.mark.parametrize("value", ["[['', 'x']]", "[[a]]", "[a, b]", "[[a, b, c]]"])
def test_a_mark_of_thinking_is_a_pair_of_words(value: str) -> None:
    with pytest.raises(ConfigError, match=r"answer\.thinking"):
        load_protocol("rules", overrides=[f"answer.thinking={value}"])


def test_patterns_in_a_file_are_those_of_the_protocol(tmp_path: Path) -> None:
    raw = yaml.safe_load((bundled("judges") / "rules.yaml").read_text(encoding="utf-8"))
    raw["answer"] = {"refusals": "own.yaml"}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(raw))
    (tmp_path / "own.yaml").write_text("en: [no thanks]\nde: [nein danke]")
    listed = {**raw, "answer": {"refusals": ["no thanks", "nein danke"]}}
    (tmp_path / "q.yaml").write_text(yaml.safe_dump(listed))
    one, other = (load_protocol(str(tmp_path / name)) for name in ("p.yaml", "q.yaml"))

    assert one.answer.refusals == ("no thanks", "nein danke")
    assert one.digest == other.digest


def test_a_file_of_patterns_that_holds_anything_else_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("en: 5")

    with pytest.raises(ConfigError, match=r"answer\.refusals\.0"):
        load_protocol("rules", overrides=[f"answer.refusals={path}"])


def test_a_file_of_patterns_that_is_missing_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"refusals file .*nowhere\.yaml cannot be read"):
        load_protocol("rules", overrides=["answer.refusals=nowhere.yaml"])


def test_settings_that_hold_more_prompts_than_are_used_are_left_as_they_are() -> None:
    settings = load_protocol("medix").judging_settings()
    more = {**settings, "prompts": settings["prompts"] | {"question_9": "Say 1."}}

    assert by_role(more) == more


def test_both_protocols_share_their_completions() -> None:
    medix, rules = load_protocol("medix"), load_protocol("rules")

    assert medix.generation_settings() == rules.generation_settings()
    assert medix.digest != rules.digest


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generation.max_token=1", "unknown key 'generation.max_token'"),
        ("generation.max_tokens=0", "generation.max_tokens: Input should be greater than or"),
        ("judge.tries=many", "judge.tries: Input should be a valid integer"),
        ("judge.question.repeats=3", "medix.yaml: judge: repeats are identical"),
        ("judge.scorer=oracle", "judge: Input tag 'oracle'"),
        ("generation", "is not key=value"),
        ("name.first=x", "has no keys below it"),
        ("generation.max_tokens=[", "the value is not YAML"),
        ("prompt.template=nowhere.jinja", "prompt file 'nowhere.jinja' does not exist"),
    ],
)
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_protocol("medix", overrides=[override])

    assert message in str(caught.value)


def test_a_protocol_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nversion: 1\nsummary: s\njugde: {}\n")

    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load_protocol(str(path))


def test_reward_has_one_vote_of_two_words_and_an_embedding() -> None:
    reward = load_protocol("reward")

    assert isinstance(reward.judge, LLMJudge)
    assert reward.judge.question.labels == {"YES": 1, "NO": 0}
    assert reward.judge.question.num_votes == 1
    assert reward.embedding == EmbeddingSpec(
        model="abhinand/MedEmbed-large-v0.1", revision=None, threshold=0.8
    )
    assert reward.digest != load_protocol("reward", overrides=["embedding.threshold=0.7"]).digest


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["judge.question.labels={'YES': 2}"], "label 'YES' gives 2, which is off the scale"),
        (["judge.question.labels={YES: 1}"], "judge.question.labels"),
        (["judge.question.labels={'Yes': 1, 'YES': 0}"], "two labels differ only in case"),
        (["judge.question.scale=[1, 1]"], "a scale from 1 to 1 has no range"),
        (["judge.question.repeats=3"], "repeats are identical at temperature 0"),
        (["judge.audit=0.1"], "audit samples what the rules settle"),
        (["judge.question.scale=[0, 5]"], "relation has the scale [0, 1], not [0, 5]"),
        (["judge.report.scale=[0, 10]"], "findings has the scale [0, 5], not [0, 10]"),
        (["judge.question.labels={'YES': 1}"], "relation is JSON, and labels are not"),
        (
            ["judge.question.reply=findings", "judge.question.scale=[0, 5]"],
            "findings is of reports, relation of questions",
        ),
        (
            ["judge.report.reply=relation", "judge.report.scale=[0, 1]"],
            "findings is of reports, relation of questions",
        ),
    ],
)
def test_a_judge_that_cannot_work_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_protocol("medix", overrides=overrides)

    assert message in str(caught.value)


@pytest.mark.parametrize("name", protocol_names())
def test_a_protocol_is_shown_with_every_prompt_filled(name: str) -> None:
    protocol = load_protocol(name)

    shown = shown_protocol(protocol)

    assert protocol.digest in shown
    assert "{{" not in shown
    assert all(file in shown for file in protocol.judge.prompt_files())
    assert ("Vitamin C" in shown) == bool(protocol.judge.prompt_files())


def test_compat_marks_its_results() -> None:
    assert "our own" in load_protocol("medix-compat").stamp()["note"]
    assert set(load_protocol("medix").stamp()) == {"name", "digest"}


def test_one_published_turn_could_find_nothing_right() -> None:
    with pytest.raises(ConfigError, match=r"judge\.turns: .* greater than or equal to 2"):
        load_protocol("medix-compat", overrides=["judge.turns=1"])


def test_a_prompt_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jinja"
    mine.write_bytes(b"\xff\xfe{{ answer }}")

    with pytest.raises(ConfigError, match=r"mine\.jinja is not UTF-8"):
        load_protocol("medix-compat", overrides=[f"judge.prompt_file={mine}"])


def test_an_unknown_protocol_is_answered_with_all_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        load_protocol("qqq")

    assert all(name in caught.value.hint for name in protocol_names())
