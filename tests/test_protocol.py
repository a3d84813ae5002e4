from __future__ import annotations

from pathlib import Path

import pytest

from medix_eval.errors import ConfigError
from medix_eval.judging.prompts import shown_protocol
from medix_eval.judging.protocol import EmbeddingSpec, LLMJudge, load_protocol, protocol_names


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
        ("judge.question.repeats=3", "medix.yaml: judge: repeats say the same"),
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
        (["judge.question.labels={'YES': 2}"], "label 'YES' gives 2, off the scale"),
        (["judge.question.labels={YES: 1}"], "judge.question.labels"),
        (["judge.question.labels={'Yes': 1, 'YES': 0}"], "two labels differ only in case"),
        (["judge.question.scale=[1, 1]"], "tells nothing apart"),
        (["judge.question.repeats=3"], "repeats say the same at temperature 0"),
        (["judge.audit=0.1"], "audit samples what the rules settle"),
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
