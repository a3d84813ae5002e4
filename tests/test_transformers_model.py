"""The adapter for checkpoints in this process, on the phantom model and on a tiny text model."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest
from text_models import plain_tokenizer, write_text_model

from medix_eval.errors import ConfigError, RequestRefused, RequestRejected, ServerError
from medix_eval.judging.replies import verdict_schema
from medix_eval.models.chat import Completion, Prompt, Sampling
from medix_eval.models.checkpoint import folder_identity, split_revision
from medix_eval.models.held_to_schema import held
from medix_eval.models.transformers_model import TransformersModel
from medix_eval.phantom.dataset import model_folder, png, questions
from medix_eval.phantom.dataset import prompt as prompt_of
from medix_eval.records import Kind


def phantom_prompts(num: int) -> list[Prompt]:
    drawn = questions(Kind.OPEN, num_samples=num, seed=5)
    return [Prompt(text=f"<image>{prompt_of(one)}", images=(png(one.pixels),)) for one in drawn]


def answers(
    location: Path, prompts: list[Prompt], *, batch: int, max_tokens: int = 48
) -> list[Completion | BaseException]:
    source = TransformersModel(name="tiny", location=str(location), concurrency=batch)
    sampling = Sampling(max_tokens=max_tokens)

    async def ask() -> list[Completion | BaseException]:
        async with source.open(location) as model:
            asked = [model.complete(prompt, sampling) for prompt in prompts]
            return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(ask())


def completions(found: list[Completion | BaseException]) -> list[Completion]:
    return [one for one in found if isinstance(one, Completion)]


@pytest.mark.slow
def test_a_batch_answers_as_each_prompt_alone() -> None:
    prompts = phantom_prompts(8)

    together = completions(answers(model_folder(), prompts, batch=8))
    alone = completions(answers(model_folder(), prompts, batch=1))

    assert together == alone
    assert len(alone) == 8
    assert {one.finish_reason for one in alone} == {"stop"}
    assert all("<answer>" in (one.text or "") for one in alone)


@pytest.mark.slow
def test_a_prompt_that_is_too_long_fails_alone() -> None:
    prompts = [*phantom_prompts(3), Prompt(text="a lesion " * 2000)]

    found = answers(model_folder(), prompts, batch=4)

    assert len(completions(found)) == 3
    assert isinstance(found[-1], RequestRejected)
    assert "the model takes 1024" in str(found[-1])


@pytest.mark.slow
def test_several_images_and_none_are_taken() -> None:
    image = phantom_prompts(1)[0].images[0]
    prompts = [
        Prompt(text="<image><image>How many lesions?", images=(image, image)),
        Prompt(text="How many lesions?"),
    ]

    assert len(completions(answers(model_folder(), prompts, batch=2))) == 2


@pytest.mark.slow
def test_an_answer_cut_off_says_so() -> None:
    (cut,) = completions(answers(model_folder(), phantom_prompts(1), batch=1, max_tokens=4))

    assert cut.finish_reason == "length"
    assert cut.completion_tokens == 4


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 that knows no images, with the phantom's tokenizer."""
    folder = tmp_path_factory.mktemp("text-model")
    return write_text_model(folder, plain_tokenizer(), max_position_embeddings=256)


@pytest.mark.slow
def test_a_text_model_answers_text_and_refuses_images(text_model: Path) -> None:
    prompts = [Prompt(text="Which side?"), phantom_prompts(1)[0]]

    text, image = answers(text_model, prompts, batch=2, max_tokens=3)

    assert isinstance(text, Completion)
    assert isinstance(image, ServerError)
    assert "does not accept images" in str(image)


@pytest.mark.slow
def test_a_model_without_a_chat_template_is_refused(text_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(text_model, tmp_path / "model")
    (folder / "chat_template.jinja").unlink()

    with pytest.raises(ConfigError, match="has no chat template"):
        answers(folder, [Prompt(text="?")], batch=1)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return shutil.copytree(model_folder(), tmp_path / "model")


def test_a_copy_of_a_folder_is_the_same_model(checkpoint: Path) -> None:
    assert folder_identity(checkpoint) == folder_identity(model_folder())


def test_a_folder_trained_again_in_place_is_another_model(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    before = folder_identity(checkpoint)
    content = bytearray(weights.read_bytes())
    header = int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8 : 8 + header])
    start = max(one["data_offsets"][0] for name, one in tensors.items() if name != "__metadata__")
    content[8 + header + start] ^= 1
    weights.write_bytes(content)

    assert folder_identity(checkpoint) != before


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "config.json"])
def test_another_tokenizer_template_or_config_is_another_model(checkpoint: Path, name: str) -> None:
    before = folder_identity(checkpoint)
    path = checkpoint / name
    path.write_text(path.read_text() + "\n")

    assert folder_identity(checkpoint) != before


@pytest.mark.parametrize(
    ("missing", "said"), [("config.json", "no config.json"), ("model.safetensors", "no weights")]
)
def test_a_folder_without_a_model_is_named(checkpoint: Path, missing: str, said: str) -> None:
    (checkpoint / missing).unlink()

    with pytest.raises(ConfigError, match=said):
        folder_identity(checkpoint)


def test_a_revision_stands_behind_the_at_sign() -> None:
    assert split_revision("Qwen/Qwen3-14B@0a1b") == ("Qwen/Qwen3-14B", "0a1b")
    assert split_revision("Qwen/Qwen3-14B") == ("Qwen/Qwen3-14B", None)


@pytest.mark.slow
def test_the_turns_before_are_part_of_what_is_answered() -> None:
    (asked,) = phantom_prompts(1)
    later = Prompt(text=asked.text, images=asked.images, before=(("Good day", "Good day"),))

    (first,) = completions(answers(model_folder(), [asked], batch=1))
    (second,) = completions(answers(model_folder(), [later], batch=1))

    assert first.prompt_tokens is not None
    assert second.prompt_tokens is not None
    assert second.prompt_tokens > first.prompt_tokens


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("continuous", [True, False])
def test_a_schema_holds_its_own_row_and_no_other(
    real_model: Path, monkeypatch: pytest.MonkeyPatch, *, temperature: float, continuous: bool
) -> None:
    """The oracle of the rows without a schema is the model asked without any."""
    monkeypatch.setattr("medix_eval.models.continuous_batch.supports", lambda _: continuous)
    source = TransformersModel(name="real", location=str(real_model), concurrency=4)
    sampling = Sampling(max_tokens=12, temperature=temperature)
    texts = [f"Grade the answer number {number} as JSON." for number in range(6)]
    schema = verdict_schema((2, 5))

    async def ask(held: list[bool]) -> list[Completion]:
        async with source.open(real_model) as model:
            return await asyncio.gather(
                *(
                    model.complete(Prompt(text=text, schema=schema if one else None), sampling)
                    for text, one in zip(texts, held, strict=True)
                )
            )

    mixed = asyncio.run(ask([True, False] * 3))
    free = asyncio.run(ask([False] * 6))

    for one in mixed[::2]:
        assert json.loads(one.text or "")["score"] in {2, 3, 4, 5, "refused"}
        assert one.finish_reason == "stop"
    assert not any((one.text or "").startswith('{"score": ') for one in free)
    if not temperature:
        assert [one.text for one in mixed[1::2]] == [one.text for one in free[1::2]]


def test_without_the_library_a_prompt_with_a_schema_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)

    with pytest.raises(RequestRefused, match="no JSON schema") as error:
        held([verdict_schema((0, 1))], [()], object())

    assert error.value.is_schema
    assert "`hf`" in error.value.hint
