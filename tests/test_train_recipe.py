"""A recipe says everything of a training, and a mistake in it is one line before anything loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from medix_eval.errors import ConfigError
from medix_eval.storage.bundled import bundled
from medix_train.cli import main
from medix_train.recipe import load_recipe, recipe_names

PUBLISHED = [name for name in recipe_names() if name.startswith("medix-r1")]


def test_the_published_sizes_and_algorithms_are_bundled() -> None:
    assert set(recipe_names()) == {
        "phantom-grpo",
        "medix-r1-2b-dapo",
        "medix-r1-7b-gspo",
        "medix-r1-8b-dapo",
        "medix-r1-8b-grpo",
        "medix-r1-8b-dr-grpo",
        "medix-r1-30b-dapo",
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_has_the_published_numbers(name: str) -> None:
    recipe = load_recipe(name)
    trl = recipe.trl
    sizes = recipe.batch_sizes(
        group=trl["num_generations"],
        per_device=trl["per_device_train_batch_size"],
        processes=8,
    )

    assert recipe.name == name
    assert (recipe.prompts_per_rollout, trl["num_generations"]) == (512, 5)
    assert (recipe.data.max_prompt_tokens, trl["max_completion_length"]) == (4352, 4096)
    assert trl["vllm_max_model_length"] == 4352 + 4096
    assert (trl["learning_rate"], trl["weight_decay"]) == (1e-6, 0.01)
    assert (trl["num_train_epochs"], trl["save_steps"], trl["seed"]) == (2, 5 * 4, 1)
    assert sizes == {"generation_batch_size": 2560, "gradient_accumulation_steps": 40}
    assert recipe.updates_per_rollout == 4
    assert recipe.reward.weights.judge == 0.5175


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("medix-r1-8b-grpo", ("token", "dapo", 0.2, 0.3, 0.01, False)),
        ("medix-r1-8b-dapo", ("token", "dapo", 0.2, 0.28, 0.0, True)),
        ("medix-r1-7b-gspo", ("sequence", "grpo", 3e-4, 4e-4, 0.0, False)),
        ("medix-r1-8b-dr-grpo", ("token", "dr_grpo", 0.2, 0.2, 0.0, False)),
    ],
)
def test_the_algorithms_differ_where_they_should(name: str, algorithm: tuple[object, ...]) -> None:
    recipe = load_recipe(name)
    found = recipe.trl

    assert algorithm == (
        found.get("importance_sampling_level", "token"),
        found["loss_type"],
        found["epsilon"],
        found["epsilon_high"],
        found["beta"],
        recipe.dynamic_sampling is not None,
    )


def test_a_key_changes_one_value_and_a_section_can_be_given_whole() -> None:
    recipe = load_recipe(
        "medix-r1-8b-dapo",
        overrides=["dynamic_sampling.keep=published_mean", "trl.beta=0.1"],
    )

    assert recipe.dynamic_sampling is not None
    assert recipe.dynamic_sampling.keep == "published_mean"
    assert (recipe.trl["beta"], recipe.trl["epsilon_high"]) == (0.1, 0.28)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prompts_per_rollouts=8", "unknown key 'prompts_per_rollouts'"),
        ("prompts_per_rollout=many", "prompts_per_rollout: Input should be a valid integer"),
        ("prompts_per_update=100", "512 does not divide into updates of 100"),
        ("reward.weights.judge=0.6", "reward.weights: weights sum to 1.0825, not to 1"),
        ("data.streaming=true", "dynamic_sampling draws rows by number"),
        ("trl.beta", "is not key=value"),
        ("monitor.limits.kll=2", "monitor.limits: 'kll' is not a sign; choose from yes_unlike,"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("medix-r1-8b-dapo", overrides=[override])

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("processes", "per_device", "message"),
    [
        (8, 3, "an update of 640 completions does not divide into 8 processes with 3 each"),
        (8, 128, "an update of 640 completions does not divide into 8 processes with 128 each"),
        (320, 2, "512 prompts (prompts_per_rollout) do not divide into 320 processes"),
    ],
)
def test_batches_that_do_not_divide_are_refused(
    processes: int, per_device: int, message: str
) -> None:
    recipe = load_recipe("medix-r1-8b-dapo")

    with pytest.raises(ConfigError) as caught:
        recipe.batch_sizes(group=5, per_device=per_device, processes=processes)

    assert message in str(caught.value)


def test_a_recipe_of_ones_own_finds_what_stands_beside_it(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "mine.yaml").write_text(
        "include: base.yaml\nname: mine\nsummary: s\ndata: {path: rows}\n"
    )
    (tmp_path / "base.yaml").write_text(
        "model: {path: some/model}\ndata: {split: test}\n"
        "prompts_per_rollout: 4\nprompts_per_update: 4\n"
    )
    recipe = load_recipe(str(tmp_path / "mine.yaml"))

    assert recipe.data.path == str(tmp_path / "rows")
    assert recipe.data.split == "test"
    assert recipe.model.path == "some/model"


@pytest.mark.parametrize(
    ("name", "processes", "kind"),
    [
        ("gpu-1", 1, "NO"),
        ("gpu-8-fsdp", 8, "FSDP"),
        ("gpu-8-zero3", 8, "DEEPSPEED"),
        ("nodes-fsdp", 16, "FSDP"),
    ],
)
def test_accelerate_reads_its_configurations(name: str, processes: int, kind: str) -> None:
    read = pytest.importorskip("accelerate.commands.config.config_args").load_config_from_file
    config = read(str(bundled("recipes") / "accelerate" / f"{name}.yaml"))

    assert (config.num_processes, config.distributed_type) == (processes, kind)
    assert config.mixed_precision == "bf16"


def test_the_command_lists_recipes_and_names_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as listed:
        main(["--list"])
    shown = capsys.readouterr().out
    with pytest.raises(SystemExit) as unknown:
        main(["medix-r1-8b-dap"])

    assert (listed.value.code, unknown.value.code) == (0, 2)
    assert all(name in shown for name in recipe_names())
    assert "did you mean 'medix-r1-8b-dapo'" in capsys.readouterr().err


def test_a_recipe_is_checked_without_anything_heavy() -> None:
    listed = (
        "import sys; from medix_train.cli import app; from medix_train.recipe import load_recipe;"
        "load_recipe('phantom-grpo');"
        "print(sorted({'torch', 'transformers', 'datasets', 'trl', 'lm_eval'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", listed], capture_output=True, text=True, check=True
    )

    assert found.stdout.strip() == "[]"


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from medix_train.cli import main
main({argv})
"""


def without(blocked: set[str], *argv: str) -> subprocess.CompletedProcess[str]:
    """Run `medix-train` where these packages are not installed."""
    code = WITHOUT.format(blocked=blocked, argv=list(argv))
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("missing", ["torch", "trl", "peft"])
@pytest.mark.parametrize("flag", ["--dry-run", "trl.max_steps=1"])
def test_a_package_that_is_not_installed_is_named_with_the_extra_that_brings_it(
    missing: str, flag: str, tmp_path: Path
) -> None:
    done = without({missing}, "phantom-grpo", flag, f"--out={tmp_path}")
    said, hint = done.stderr.splitlines()

    assert done.returncode == 2
    assert said == f"error: medix-train needs {missing}, which is not installed"
    assert "extra `train`" in hint
    assert "pip install '.[train]'" in hint


@pytest.mark.parametrize("flag", ["--list", "--help"])
def test_recipes_and_flags_are_shown_without_torch(flag: str) -> None:
    done = without({"torch", "transformers", "trl", "peft", "datasets"}, flag)

    assert (done.returncode, done.stderr) == (0, "")
    assert ("phantom-grpo" if flag == "--list" else "--dry-run") in done.stdout
