"""A training on the CPU: it resumes to the same curve, evaluates, keeps the best and exports."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from demo_train import embedding_folder
from safetensors.torch import load_file

from medix_eval.errors import ConfigError, RunMismatch, ServerError
from medix_eval.phantom.dataset import model_folder
from medix_eval.testing import Reply, ScriptedServer
from medix_train import train as training
from medix_train.checkpoints import (
    Evaluation,
    best_evaluation,
    check_evaluation,
    load_model,
    load_processor,
    read_evaluations,
)
from medix_train.cli import main
from medix_train.data import load_training_data
from medix_train.recipe import DataSection, ModelSection, Recipe, load_recipe
from medix_train.reward import MedixReward
from medix_train.train import forbid_image_token, num_updates, train
from medix_train.trainer import PolicyTrainer, grpo_config, random_states

SMALL = (
    "data.path=phantom:32",
    "prompts_per_rollout=2",
    "prompts_per_update=1",
    "trl.num_generations=4",
    "trl.per_device_train_batch_size=4",
    "trl.report_to=none",
    "reward.canaries_every=0",
)


@pytest.fixture
def judge() -> Iterator[ScriptedServer]:
    with ScriptedServer(lambda _: "NO") as server:
        yield server


def a_recipe(judge: ScriptedServer, *changes: str) -> Recipe:
    reward = [
        f"reward.set=[embedding.model={embedding_folder()}]",
        "reward.judge.model=openai:scripted",
        f"reward.judge.base_url=[{judge.url}]",
    ]
    return load_recipe("phantom-grpo", overrides=[*SMALL, *reward, *changes])


def curve(out: Path) -> list[dict[str, float]]:
    last = max(out.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    history = json.loads((last / "trainer_state.json").read_text())["log_history"]
    kept = ("step", "loss", "grad_norm", "reward", "entropy", "completions/mean_length")
    return [{name: entry[name] for name in kept} for entry in history if "loss" in entry]


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_to_the_same_curve(
    judge: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = a_recipe(judge, "trl.max_steps=8", "trl.save_steps=4", "evaluation=null")
    train(recipe, out=tmp_path / "undisturbed")

    class Killed(Exception):
        pass

    build = training.build_trainer

    def killed_in_the_third_rollout(*args: Any, **settings: Any) -> Any:
        trainer: Any = build(*args, **settings)
        step = trainer.training_step

        def until_then(*inputs: Any) -> Any:
            if trainer.state.global_step == 5:
                raise Killed
            return step(*inputs)

        trainer.training_step = until_then
        return trainer

    monkeypatch.setattr(training, "build_trainer", killed_in_the_third_rollout)
    with pytest.raises(Killed):
        train(recipe, out=tmp_path / "killed")
    monkeypatch.setattr(training, "build_trainer", build)
    random.seed(99)
    torch.manual_seed(99)
    exported = train(recipe, out=tmp_path / "killed")

    assert curve(tmp_path / "killed") == curve(tmp_path / "undisturbed")
    assert len(curve(tmp_path / "killed")) == 4
    weights = [load_file(path / "model" / "model.safetensors") for path in
               (tmp_path / "undisturbed", exported.parent)]  # fmt: skip
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_a_training_that_lost_its_judge_goes_on_to_the_same_curve(
    judge: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = a_recipe(judge, "trl.max_steps=6", "trl.save_steps=6", "evaluation=null")
    train(recipe, out=tmp_path / "undisturbed")
    score = MedixReward.__call__

    async def lost(self: MedixReward, *batch: Any, trainer_state: Any, **columns: Any) -> Any:
        if trainer_state.global_step == 2:
            raise ServerError("the judge is lost")
        return await score(self, *batch, **columns)

    monkeypatch.setattr(MedixReward, "__call__", lost)
    with pytest.raises(ServerError, match="is lost"):
        train(recipe, out=tmp_path / "lost")
    monkeypatch.setattr(MedixReward, "__call__", score)
    saved = [path.name for path in (tmp_path / "lost").glob("checkpoint-*")]
    train(recipe, out=tmp_path / "lost")

    assert saved == ["checkpoint-2"]
    assert curve(tmp_path / "lost") == curve(tmp_path / "undisturbed")


@pytest.mark.slow
def test_each_checkpoint_is_evaluated_and_the_best_is_exported(
    judge: ScriptedServer, tmp_path: Path
) -> None:
    recipe = a_recipe(
        judge, "trl.max_steps=4", "trl.save_steps=2", "evaluation={tasks: phantom, limit: 2}"
    )
    exported = train(recipe, out=tmp_path)
    best = best_evaluation(tmp_path)

    assert [one.update for one in read_evaluations(tmp_path)] == [2, 4]
    assert best is not None
    assert best.score == max(one.score or 0.0 for one in read_evaluations(tmp_path))
    assert load_file(exported / "model.safetensors").keys() == (
        load_file(Path(best.checkpoint) / "model.safetensors").keys()
    )
    card = (exported / "README.md").read_text()
    assert "phantom_open" in card
    assert str(Path(recipe.model.path).parent) not in card
    assert train(recipe, out=tmp_path) == exported  # nothing is left to do
    assert len(read_evaluations(tmp_path)) == 2
    assert not list(exported.glob("optimizer*"))
    assert load_model(ModelSection(path=str(exported))).num_parameters() == 441_792
    assert load_processor(ModelSection(path=str(exported))).chat_template


@pytest.mark.slow
def test_where_no_evaluation_was_whole_the_last_checkpoint_is_exported_and_says_so(
    judge: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[Any] = []

    def every_other(body: Any) -> str | Reply:
        asked.append(body)
        return Reply(status=400) if len(asked) % 2 else "YES"

    with ScriptedServer(every_other) as failing:
        evaluation = {
            "tasks": "phantom_open", "limit": 8, "protocol": "reward",
            "judge": "openai:scripted", "judge-base-url": [failing.url], "no-cache": True,
        }  # fmt: skip
        recipe = a_recipe(judge, "trl.max_steps=4", "trl.save_steps=2", f"evaluation={evaluation}")
        exported = train(recipe, out=tmp_path)
    found = read_evaluations(tmp_path)

    assert [one.update for one in found] == [2, 4]
    assert [(one.failed, one.is_whole) for one in found] == [(4, False), (4, False)]
    assert best_evaluation(tmp_path) is None
    said = [text for text in caplog.messages if "cannot be the best" in text]
    assert [text.split(" of 8 ")[1] for text in said] == ["judge_failed", "judge_failed"]
    assert "no evaluation was whole" in caplog.text
    assert "No evaluation of its training was whole" in (exported / "README.md").read_text()
    weights = [load_file(folder / "model.safetensors") for folder in
               (exported, tmp_path / "checkpoint-4")]  # fmt: skip
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_a_sign_of_hacking_stops_with_a_checkpoint(judge: ScriptedServer, tmp_path: Path) -> None:
    monitor = "monitor={stop: true, in_a_row: 1, limits: {judge_failed: -1}}"
    train(a_recipe(judge, "trl.max_steps=6", "evaluation=null", monitor), out=tmp_path)

    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_stream_is_trained_on(judge: ScriptedServer, tmp_path: Path) -> None:
    phantoms = load_training_data(
        DataSection(path="phantom:8"),
        processor=load_processor(ModelSection(path=str(model_folder()))),
    )
    assert phantoms.stored is not None
    phantoms.stored.to_parquet(tmp_path / "rows" / "train.parquet")
    recipe = a_recipe(
        judge,
        f"data={{path: {tmp_path / 'rows'}, streaming: true}}",
        "dynamic_sampling=null",
        "trl.max_steps=4",
        "trl.save_steps=4",
        "evaluation=null",
    )
    train(recipe, out=tmp_path / "out")

    assert len(curve(tmp_path / "out")) == 2


@pytest.mark.slow
def test_an_adapter_is_trained_and_merged(judge: ScriptedServer, tmp_path: Path) -> None:
    recipe = a_recipe(judge, "trl.max_steps=2", "evaluation=null", "lora={r: 4, lora_alpha: 8}")
    exported = train(recipe, out=tmp_path)
    before = load_file(Path(recipe.model.path) / "model.safetensors")
    after = load_file(exported / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name].float(), after[name])}

    assert after.keys() == before.keys()
    assert any("q_proj" in name for name in changed)
    assert not any("norm" in name for name in changed)
    assert (exported / "chat_template.jinja").exists()


def test_another_recipe_does_not_go_on_in_the_same_folder(
    judge: ScriptedServer, tmp_path: Path
) -> None:
    training._open_folder(tmp_path, a_recipe(judge, "trl.seed=3"))  # noqa: SLF001
    training._open_folder(tmp_path, a_recipe(judge))  # noqa: SLF001
    (tmp_path / "monitor.jsonl").touch()

    training._open_folder(tmp_path, a_recipe(judge))  # noqa: SLF001
    with pytest.raises(RunMismatch, match=r"seed: 1, now 2"):
        training._open_folder(tmp_path, a_recipe(judge, "trl.seed=2"))  # noqa: SLF001


def test_a_judge_that_is_not_there_stops_before_a_model_is_loaded(
    judge: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "load_model", lambda _: pytest.fail("loaded"))
    recipe = a_recipe(judge, "reward.judge.base_url=[http://127.0.0.1:9/v1]")

    with pytest.raises(ServerError, match=r"127\.0\.0\.1:9"):
        train(recipe, out=tmp_path)


def test_tags_that_are_special_tokens_are_refused(tmp_path: Path) -> None:
    processor = load_processor(ModelSection(path=str(model_folder())))
    processor.tokenizer.add_special_tokens({"additional_special_tokens": ["<answer>", "</answer>"]})
    processor.save_pretrained(tmp_path)
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_text((model_folder() / name).read_text())

    with pytest.raises(ConfigError, match="has </answer>, <answer> as special tokens"):
        load_processor(ModelSection(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("num_rows", "length", "expected"),
    [
        (51_335, "trl.num_train_epochs=2", 800),
        (600, "trl.num_train_epochs=0.5", 2),
        (600, "trl.max_steps=7", 7),
    ],
)
def test_the_length_is_counted_in_whole_rollouts(
    num_rows: int, length: str, expected: int, tmp_path: Path
) -> None:
    recipe = load_recipe("medix-r1-8b-grpo", overrides=[length])
    config = grpo_config(recipe, out=tmp_path)

    assert num_updates(recipe, config, num_rows=num_rows) == expected
    with pytest.raises(ConfigError, match=r"usable rows of .*: 511, fewer than one rollout"):
        num_updates(recipe, config, num_rows=511)


def test_a_recipe_becomes_trls_settings(tmp_path: Path) -> None:
    recipe = load_recipe("medix-r1-7b-gspo", overrides=["trl.learning_rate=2e-6"])
    config = grpo_config(recipe, out=tmp_path)

    assert (config.loss_type, config.importance_sampling_level) == ("grpo", "sequence")
    assert (config.epsilon, config.epsilon_high, config.delta, config.beta) == (3e-4, 4e-4, 3.0, 0)
    assert (config.steps_per_generation, config.gradient_accumulation_steps) == (1280, 320)
    assert (config.save_steps, config.logging_steps) == (20, 4)
    assert config.learning_rate == 2e-6  # YAML takes this for a text


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("trl.logging_steps=1", r"trl\.logging_steps is set by medix-train"),
        ("trl.log_completion=true", r"no setting of TRL is named 'log_completion'"),
        ("trl.optim=adam_who", r"recipe phantom-grpo: adam_who"),
        ("trl.beta=much", r"recipe phantom-grpo: .*beta: invalid float value: 'much'"),
        ("trl.loss_type=dapoo", r"trl\.loss_type 'dapoo' is not one of bnpo, "),
        ("trl.num_generations=1", r"recipe phantom-grpo: .* at least 2 generations"),
    ],
)
def test_what_trl_does_not_take_is_refused(key: str, message: str, tmp_path: Path) -> None:
    recipe = load_recipe("phantom-grpo", overrides=["trl.per_device_train_batch_size=1", key])

    with pytest.raises(ConfigError, match=message):
        grpo_config(recipe, out=tmp_path)


def test_a_checkpoint_within_a_rollout_is_refused(tmp_path: Path) -> None:
    recipe = load_recipe("medix-r1-8b-dapo", overrides=["trl.save_steps=6"])

    with pytest.raises(ConfigError, match=r"trl\.save_steps 6 ends within a rollout"):
        grpo_config(recipe, out=tmp_path)


def test_vllm_may_not_write_an_image_token() -> None:
    config = SimpleNamespace(use_vllm=True, generation_kwargs={"seed": 1})
    forbid_image_token(config, SimpleNamespace(image_token_id=7))

    assert config.generation_kwargs == {"logit_bias": {7: -100.0}, "seed": 1}


@pytest.mark.parametrize(
    ("num_tokens", "loss"), [(60, 0.0), (80, 0.0), (90, 0.5), (100, 1.0), (120, 1.0)]
)
async def test_a_long_completion_loses_part_of_its_reward(num_tokens: int, loss: float) -> None:
    async def reward(**_: Any) -> list[float | None]:
        return [1.0, None]

    recipe = load_recipe("phantom-grpo", overrides=["overlong_buffer=20"])
    trainer: Any = SimpleNamespace(_reward=reward, _recipe=recipe, _cap=100)
    ids = [[0] * num_tokens] * 2

    assert await PolicyTrainer.composite(trainer, completion_ids=ids) == [1 - loss, None]


def an_evaluation(out: Path, update: int, score: float | None, **changes: Any) -> str:
    """Return the line of a checkpoint that is there."""
    (out / f"checkpoint-{update}").mkdir()
    return Evaluation(
        update=update,
        checkpoint=str(out / f"checkpoint-{update}"),
        score=score,
        protocol="rules",
        run="r",
        **{"tasks": {"t": score}, **changes},
    ).model_dump_json()


def test_a_checkpoint_whose_evaluation_was_not_whole_is_never_the_best(tmp_path: Path) -> None:
    partly_failed = an_evaluation(tmp_path, 1, 1.0, failed=90)
    without_a_score = an_evaluation(tmp_path, 2, 0.9, tasks={"t": 0.9, "unscored": None})
    whole = an_evaluation(tmp_path, 3, 0.4)
    file = tmp_path / "evaluations.jsonl"
    file.write_text(f"{partly_failed}\n{without_a_score}\n")
    none_is_best = best_evaluation(tmp_path)
    file.write_text(f"{partly_failed}\n{without_a_score}\n{whole}\n")
    best = best_evaluation(tmp_path)

    assert none_is_best is None
    assert best is not None
    assert (best.update, best.failed) == (3, 0)


def test_evaluations_of_earlier_versions_are_read_as_whole(tmp_path: Path) -> None:
    line = json.loads(an_evaluation(tmp_path, 7, 0.5))
    del line["failed"]
    (tmp_path / "evaluations.jsonl").write_text(json.dumps(line) + "\n")

    (read,) = read_evaluations(tmp_path)
    assert read.is_whole
    assert best_evaluation(tmp_path) == read


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ("{tasks: phantom, limits: 2}", "limits"),
        ("{tasks: nope}", "nope"),
        ("{tasks: phantom, limit: many}", "many|int"),
        ("{tasks: phantom, model: another}", "model"),
        ("{tasks: phantom, set: generation.max_token=9}", "max_token"),
    ],
)
def test_a_flag_that_medix_eval_does_not_take_is_refused_before_anything_is_loaded(
    evaluation: str, said: str, tmp_path: Path
) -> None:
    recipe = load_recipe("phantom-grpo", overrides=[f"evaluation={evaluation}"])
    with pytest.raises(ConfigError, match=f"^evaluation: .*({said})") as error:
        check_evaluation(recipe, out=tmp_path)

    assert "its keys are flags of medix-eval" in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_of_equal_checkpoints_the_earliest_that_is_there_is_best(tmp_path: Path) -> None:
    lines = []
    for update, score in [(1, 0.9), (2, 0.5), (3, 0.7), (4, 0.7), (2, 0.6)]:
        folder = tmp_path / f"checkpoint-{update}"
        if update != 1:
            folder.mkdir(exist_ok=True)
        evaluation = Evaluation(
            update=update,
            checkpoint=str(folder),
            score=score,
            tasks={"t": score},
            protocol="rules",
            run="r",
        )
        lines.append(evaluation.model_dump_json() + "\n")
    (tmp_path / "evaluations.jsonl").write_text("".join(lines))
    best = best_evaluation(tmp_path)

    assert best is not None
    assert best.update == 3
    assert [one.score for one in read_evaluations(tmp_path)] == [0.9, 0.6, 0.7, 0.7]


def test_random_states_go_back_to_where_they_were() -> None:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    go_back = random_states()
    torch.rand(3)
    random.random()  # noqa: S311
    np.random.rand()  # noqa: NPY002
    go_back()
    after = (torch.rand(1).item(), random.random(), np.random.rand())  # noqa: NPY002, S311
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002

    assert after == (torch.rand(1).item(), random.random(), np.random.rand())  # noqa: NPY002, S311


@pytest.mark.slow
def test_a_dry_run_shows_what_would_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["phantom-grpo", *SMALL, "--dry-run"])
    shown = capsys.readouterr().out

    assert done.value.code == 0
    for part in ("0.4 M parameters", "rows 32, too long 0", "prompts 2 × completions 4",
                 "<|im_start|>user", "'2' 1.0"):  # fmt: skip
        assert part in shown
