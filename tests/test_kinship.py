from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from scripted_servers import Run, Serve, candidate, judge

from medix_eval.evaluation.kinship import Known, kinship_warnings
from medix_eval.models.checkpoint import checkpoint_identity
from medix_eval.phantom.dataset import model_folder

Saved = Callable[..., Path]
HUB = Known("org/base", {"kind": "hub", "repo": "org/base", "commit": "a" * 40})
SERVED = Known("openai:base", {"kind": "openai", "id": "base", "host": "gpu1:8000"})


@pytest.fixture
def save(tmp_path: Path) -> Saved:
    """Write a checkpoint whose weights are one tensor of this text."""

    def save(name: str, weights: str, *, file: str = "model.safetensors") -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "qwen3_vl"}')
        said = {"w": {"dtype": "U8", "shape": [len(weights)], "data_offsets": [0, len(weights)]}}
        header = json.dumps(said).encode()
        size = len(header).to_bytes(8, "little")
        (folder / file).write_bytes(size + header + weights.encode())
        return folder

    return save


def local(folder: Path | str) -> Known:
    return Known(str(folder), checkpoint_identity(str(folder)))


@pytest.mark.parametrize(
    ("candidate", "judge", "said"),
    [
        ("MBZUAI/MediX-R1-8B", "Qwen/Qwen3-14B", "both are of the Qwen family"),
        ("google/medgemma-4b-it", "openai:gemma-3-27b", "both are of the Gemma family"),
        ("openai:gpt-5-mini", "openai:gpt-4.1", "both are of the GPT family"),
        ("MBZUAI/MediX-R1-8B", "openai:qwen3-4b-instruct-2507", "trained to please this judge"),
        ("org/unknown-model", "Qwen/Qwen3-14B", None),
        ("google/medgemma-4b-it", "Qwen/Qwen3-14B", None),
        ("openai:scripted", "openai:scripted", "judges its own checkpoint"),
        ("openai:qwen3:14b", "openai:llama3:14b", None),
    ],
)
def test_a_judge_that_is_not_neutral_is_named(candidate: str, judge: str, said: str | None) -> None:
    found = kinship_warnings(Known(candidate), [Known(judge)])

    assert len(found) == (said is not None)
    assert all(said is not None and said in line for line in found)


def test_a_folder_is_known_by_its_config_and_by_the_recipe_that_made_it(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoint-5"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen3_vl"}')
    judges = [Known("Qwen/Qwen3-14B"), Known("org/teacher")]
    before = kinship_warnings(Known(str(folder)), judges)
    reward = {"protocol": "reward", "judge": {"model": "org/teacher"}}
    (folder.parent / "recipe.json").write_text(json.dumps({"recipe": {"reward": reward}}))

    after = kinship_warnings(Known(str(folder)), judges)

    assert len(before) == 1
    assert "Qwen family" in before[0]
    assert "trained to please" in after[1]


@pytest.mark.parametrize("spelling", ["{}", "{}/", "{}/../qwen", "link"])
def test_a_folder_that_judges_itself_is_its_own_checkpoint(
    save: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    folder = save("qwen", "weights")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    judging = spelling.format(folder)

    (said,) = kinship_warnings(local(folder), [local(judging)])
    (unread,) = kinship_warnings(Known(str(folder)), [Known(judging)])

    assert said.startswith(f"{judging} judges its own checkpoint")
    assert "as far as the name" in unread


def test_a_copy_under_another_name_is_known_by_its_weights(save: Saved) -> None:
    first = save("qwen", "weights")
    copy = save("x/best", "weights", file="model-00001-of-00001.safetensors")
    (copy / "config.json").write_text('{"model_type": "qwen3_vl", "dtype": "bfloat16"}')

    said = kinship_warnings(local(first), [local(copy)])

    assert said == [f"{copy} judges its own checkpoint: {first} has the same weights"]


def test_the_phantom_and_its_folder_are_one_checkpoint() -> None:
    folder = model_folder()

    said = kinship_warnings(Known("phantom", local(folder).identity), [local(folder)])

    assert said == [f"{folder} judges its own checkpoint: phantom has the same weights"]


def test_a_fine_tune_of_the_same_base_stays_of_one_family(save: Saved) -> None:
    said = kinship_warnings(local(save("a/best", "tuned")), [local(save("b/best", "base"))])

    assert len(said) == 1
    assert "both are of the Qwen family" in said[0]


def test_a_folder_that_was_trained_again_in_place_is_another_checkpoint(save: Saved) -> None:
    folder = save("qwen", "weights")
    before = local(folder)
    (folder / "model.safetensors").unlink()
    save("more", "others").joinpath("model.safetensors").rename(folder / "model.safetensors")

    said = kinship_warnings(before, [local(folder)])

    assert said == [f"{folder} judges {folder}, and both are of the Qwen family"]


@pytest.mark.parametrize(
    ("candidate", "judge", "said"),
    [
        (HUB, HUB, "org/base judges its own checkpoint"),
        (
            HUB,
            Known("org/base@v1", HUB.identity),
            "org/base@v1 judges its own checkpoint: org/base has the same weights",
        ),
        (
            HUB,
            Known("org/base@v0", {**HUB.identity, "commit": "b" * 40}),
            "org/base@v0 judges org/base, another revision of the same model",
        ),
        (SERVED, SERVED, "openai:base judges its own checkpoint"),
        (
            SERVED,
            Known("openai:base", {**SERVED.identity, "host": ["gpu1:8000", "gpu2:8000"]}),
            "openai:base judges its own checkpoint",
        ),
        (
            SERVED,
            Known("openai:base#2", {**SERVED.identity, "host": "gpu2:8000"}),
            "openai:base#2 judges its own checkpoint, as far as the name openai:base tells",
        ),
        (
            HUB,
            SERVED,
            "openai:base judges its own checkpoint, as far as the name org/base tells",
        ),
        (
            Known("replay:Base", {"kind": "replay", "sha256": "c" * 64}),
            HUB,
            "org/base judges its own checkpoint, as far as the name replay:Base tells",
        ),
        (HUB, Known("elsewhere/base"), None),
        (HUB, Known("base", {"kind": "hub", "repo": "base", "commit": "b" * 40}), None),
        (HUB, Known("openai:base-awq"), None),
        (Known("plain:a", {"kind": "plain"}), Known("plain:b", {"kind": "plain"}), None),
    ],
)
def test_one_checkpoint_is_known_wherever_it_is_served(
    candidate: Known, judge: Known, said: str | None
) -> None:
    found = kinship_warnings(candidate, [judge])

    assert found == ([said] if said else [])


def test_a_download_is_known_as_the_hubs_model_where_its_cache_has_the_weights(
    save: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = f"models--org--base/snapshots/{'a' * 40}"
    save(snapshot, "weights")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    (own,) = kinship_warnings(local(save("best", "weights")), [HUB])
    others = kinship_warnings(local(save("tuned", "other")), [HUB])

    assert own.startswith("org/base judges its own checkpoint: ")
    assert others == []


def test_one_of_several_jurors_is_named_in_an_evaluation_and_judging_again(
    evaluate: Run, run: Run, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    answering = serve(lambda _: "A")
    jury = [answering, *(serve(lambda _: '{"score": 1}') for _ in range(2))]
    plain = [*candidate(answering), "--tasks", "medmcqa", "--limit", "1"]
    own = "openai:scripted judges its own checkpoint"

    _, out, _ = evaluate(*plain, *judge(*jury))
    logged = [one for one in caplog.messages if own[15:] in one]
    _, again, _ = run("judge", json.loads(out)["run"], *judge(answering), "--json")

    assert logged[0] == own
    assert "#2 judges its own checkpoint, as far as the name" in logged[1]
    assert json.loads(again)["warnings"] == [f"{own}, as far as the name openai:scripted tells"]
