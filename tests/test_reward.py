"""The composite reward as a trainer sees it: asked once, together, and silent where it must be."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from medix_eval.errors import ConfigError, ServerError
from medix_eval.judging.embedding import Pair
from medix_eval.testing import Reply, ScriptedServer, prompt_text
from medix_train.reading import last_turn
from medix_train.recipe import RewardSettings, load_reward_settings
from medix_train.reward import MedixReward

QUESTION = "<image>What is shown?"


def completion(answer: str, tag: str = "X_RAY") -> list[dict[str, str]]:
    text = f"<{tag}><thinking>It looks so.</thinking><answer>{answer}</answer>"
    return [{"role": "assistant", "content": text}]


def unlike(pairs: Collection[Pair]) -> dict[Pair, float]:
    return dict.fromkeys(pairs, 0.25)


def says_yes_to(word: str) -> Any:
    return lambda body: "YES" if word in prompt_text(body).split("===")[-3] else "NO"


def a_reward(server: ScriptedServer, **changes: Any) -> MedixReward:
    values = {
        "judge": {"model": "openai:scripted", "base_url": [server.url]},
        "cache": None,
        "canaries_every": 0,
        **changes,
    }
    return MedixReward(settings=RewardSettings.model_validate(values), similarities=unlike)


def ask(
    reward: MedixReward, answers: Sequence[str], references: Sequence[str], **columns: Any
) -> list[float | None]:
    """Ask as TRL does, then close as a trainer does at the end."""

    async def asked() -> list[float | None]:
        found = await reward(
            [[{"role": "user", "content": QUESTION}]] * len(answers),
            [completion(answer) for answer in answers],
            solution=[f"<X_RAY>\n{reference}" for reference in references],
            **columns,
        )
        await reward.close()
        return found

    return asyncio.run(asked())


def test_each_part_has_its_weight() -> None:
    with ScriptedServer(says_yes_to("lung")) as server:
        reward = a_reward(server)
        found = ask(reward, ["the lung", "heart", "Left lung."], ["left lung"] * 3)

    assert found == pytest.approx([0.5175 + 0.145, 0.145, 1.0])
    assert [one.judge for one in reward.scored] == [1.0, 0.0, 1.0]


def test_the_judge_is_shown_the_question_and_a_pair_is_asked_once() -> None:
    with ScriptedServer(says_yes_to("lung")) as server:
        ask(a_reward(server), ["the lung"] * 5 + ["heart"] * 3, ["left lung"] * 8)

    prompts = [prompt_text(body) for body in server.requests]
    assert len(prompts) == 2
    assert all("What is shown?" in text and "<image>" not in text for text in prompts)


def test_the_question_is_the_problem_column_where_there_is_one() -> None:
    with ScriptedServer(says_yes_to("lung")) as server:
        ask(a_reward(server), ["heart"], ["left lung"], problem=["<image>Which side?"])

    (body,) = server.requests
    assert "Which side?" in prompt_text(body)


def test_what_is_thought_in_the_marks_of_a_protocol_earns_nothing() -> None:
    marks = "answer.thinking=[['((muse', 'muse))']]"
    with ScriptedServer(says_yes_to("lung")) as server:
        plain = ask(a_reward(server), ["((muse left lung"], ["left lung"])
        own = ask(a_reward(server, set=[marks]), ["((muse left lung"], ["left lung"])

    assert plain == pytest.approx([0.5175 + 0.145])
    assert own == pytest.approx([0.045])  # the modality


def test_verdicts_are_kept_over_steps_and_processes(tmp_path: Path) -> None:
    with ScriptedServer(says_yes_to("lung")) as server:
        first = ask(a_reward(server, cache=tmp_path / "v.sqlite"), ["the lung"], ["left lung"])
        again = ask(a_reward(server, cache=tmp_path / "v.sqlite"), ["the lung"], ["left lung"])

    assert first == again
    assert len(server.requests) == 1


def test_a_cache_that_cannot_be_used_says_how_a_reward_does_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with ScriptedServer(says_yes_to("lung")) as server, pytest.raises(ConfigError) as error:
        ask(a_reward(server, cache=tmp_path / "file" / "v.sqlite"), ["heart"], ["left lung"])

    assert "`cache: null`" in error.value.hint


def test_a_judge_that_fails_leaves_the_completion_without_any_reward() -> None:
    def script(body: Any) -> str | Reply:
        return Reply(status=400) if "heart" in prompt_text(body) else "NO"

    with ScriptedServer(script) as server:
        reward = a_reward(server, failures={"tolerated_share": 0.5})
        found = ask(reward, ["heart", "kidney", "Left lung"], ["left lung"] * 3)

    assert found == [None, pytest.approx(0.145), pytest.approx(1.0)]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pause without waiting; the retries inside still wait, but only for moments."""
    slept: list[float] = []

    async def pause(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("medix_train.reward._pause", pause)
    monkeypatch.setattr("medix_eval.models.requests._FIRST_WAIT_S", 0.01)
    return slept


def test_an_outage_is_waited_for_and_only_what_failed_is_asked_again(pauses: list[float]) -> None:
    is_down = [True]

    def script(body: Any) -> str | Reply:
        if "heart" not in prompt_text(body):
            return "NO"
        is_down[0] = len(pauses) < 3
        return Reply(status=503) if is_down[0] else "NO"

    with ScriptedServer(script) as server:
        found = ask(a_reward(server), ["heart", "kidney"], ["left lung"] * 2)

    assert found == pytest.approx([0.145, 0.145])
    assert pauses == [1.0, 2.0, 4.0]
    asked = Counter("heart" in prompt_text(body) for body in server.requests)
    assert asked[False] == 1


def test_patience_ends_in_one_clear_line(pauses: list[float]) -> None:
    with ScriptedServer(lambda _: Reply(drop=True)) as server:
        reward = a_reward(server, failures={"patience_s": 5})
        with pytest.raises(ServerError, match=r"judge failed: 2 of 2 for 7 s") as error:
            ask(reward, ["heart", "kidney"], ["left lung"] * 2)

    assert error.value.exit_code == 4
    assert "resume" in error.value.hint
    assert pauses == [1.0, 2.0, 4.0]


def test_a_judge_that_refuses_us_is_not_waited_for(pauses: list[float]) -> None:
    with (
        ScriptedServer(lambda _: Reply(status=401)) as server,
        pytest.raises(ServerError, match="401"),
    ):
        ask(a_reward(server), ["heart"], ["left lung"])

    assert pauses == []


def test_one_silent_answer_in_fifty_is_left_open_without_a_pause(pauses: list[float]) -> None:
    with ScriptedServer(
        lambda body: "perhaps" if "organ 7\n" in prompt_text(body) else "NO"
    ) as server:
        found = ask(a_reward(server), [f"organ {n}" for n in range(50)], ["left lung"] * 50)

    assert [n for n, total in enumerate(found) if total is None] == [7]
    assert pauses == []


def test_a_judge_that_nobody_can_read_stops_the_training(pauses: list[float]) -> None:
    with (
        ScriptedServer(lambda _: "perhaps") as server,
        pytest.raises(ServerError, match="its first 16 votes none") as error,
    ):
        ask(a_reward(server), [f"organ {n}" for n in range(50)], ["left lung"] * 50)

    assert error.value.exit_code == 4
    assert pauses == []


def test_parts_and_answers_are_logged_for_the_monitor() -> None:
    columns: dict[str, list[Any]] = {}
    metrics: dict[str, float] = {}
    with ScriptedServer(says_yes_to("lung")) as server:
        reward = a_reward(server, canaries_every=1)
        ask(
            reward,
            ["the lung", "heart"],
            ["left lung", "liver"],
            log_extra=columns.__setitem__,
            log_metric=metrics.__setitem__,
        )

    assert columns["answer"] == ["the lung", "heart"]
    assert columns["reference"] == ["left lung", "liver"]
    assert columns["judge"] == [1.0, 0.0]
    assert metrics["reward_parts/judge"] == 0.5
    assert metrics["reward_parts/judge_failed"] == 0.0
    assert metrics["canary/wrong_accepted"] == 0.5  # "left lung" in place of "liver"
    assert metrics["canary/key_accepted"] == 0.0


def test_graded_similarity_pays_for_likeness_itself() -> None:
    with ScriptedServer(lambda _: "NO") as server:
        (found,) = ask(a_reward(server, graded=True), ["heart"], ["left lung"])

    assert found == pytest.approx(0.145 + 0.3375 * 0.25)


def test_judge_and_embedding_work_at_the_same_time() -> None:
    both_at_work = threading.Barrier(2, timeout=30)  # neither goes on before the other has begun

    def embed(pairs: Collection[Pair]) -> dict[Pair, float]:
        both_at_work.wait()
        return unlike(pairs)

    def judge(_: dict[str, Any]) -> str:
        both_at_work.wait()
        return "NO"

    with ScriptedServer(judge) as server:
        reward = MedixReward(settings=a_reward(server).settings, similarities=embed)
        (found,) = ask(reward, ["heart"], ["left lung"])

    assert found is not None


@pytest.mark.parametrize(
    ("judge", "goes"),
    [
        ({}, "nowhere"),
        ({"allow_egress": " "}, "nowhere"),
        ({"local_hosts": ["ward"]}, "there"),
        ({"allow_egress": "covered by contract 12"}, "there"),
    ],
)
def test_restricted_rows_go_to_no_judge_elsewhere(
    monkeypatch: pytest.MonkeyPatch, judge: dict[str, Any], goes: str
) -> None:
    monkeypatch.setattr("socket.getaddrinfo", resolved_to("127.0.0.1", "192.0.2.7"))
    with ScriptedServer(lambda _: "YES") as server:
        url = server.url.replace("127.0.0.1", "ward")
        whole = {"model": "openai:scripted", "base_url": [url], **judge}
        reward = a_reward(server, judge=whole, data_class="dua")
        if goes == "there":
            assert ask(reward, ["a silhouette"], ["heart"]) != [None]
        else:
            with pytest.raises(ConfigError, match=r"dua: restricted .* to ward") as caught:
                ask(reward, ["a silhouette"], ["heart"])
            assert "reward.judge.local_hosts" in caught.value.hint

    assert bool(server.requests) == (goes == "there")


def resolved_to(*addresses: str) -> Any:
    """Look names up here; one that can be reached comes first."""

    def look_up(host: str, port: object, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    return look_up


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"weights": {"judge": 0.9}}, "sum to 1.3825, not to 1"),
        ({"wieghts": {}}, "unknown key 'wieghts'"),
        ({"edition": "medix-compat", "graded": True}, "was not published"),
        ({"judge": {"concurrency": 0}}, "judge.concurrency"),
        ({"edition": "medixx"}, "edition"),
    ],
)
def test_a_mistake_in_the_settings_is_one_line(
    values: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=said) as error:
        load_reward_settings(path)

    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "said"), [("medix", "exactly one"), ("rules", "exactly one")])
def test_a_protocol_that_is_no_reward_is_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MedixReward(settings=RewardSettings(protocol=name))


def test_a_prompt_of_parts_gives_its_words() -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "Which organ?"}]

    assert last_turn([{"role": "user", "content": parts}]) == "Which organ?"
