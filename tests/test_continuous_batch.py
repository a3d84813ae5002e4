"""Rows that join and leave a running batch answer as each prompt alone, on tiny random models."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from medix_eval.errors import RequestRefused, RequestRejected
from medix_eval.models.chat import Completion, Prompt, Sampling
from medix_eval.models.continuous_batch import BatchRow, ContinuousBatch, supports
from medix_eval.models.torch_cpu import declare_missing_operators
from medix_eval.models.transformers_model import TransformersModel

declare_missing_operators()

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

END, OTHER_ENDS = 3, (5, 8)
ENDS = frozenset({END, *OTHER_ENDS})
LENGTHS = (3, 17, 1, 9, 4, 30, 2, 8)
ROOMS = (6, 12, 1, 9, 20, 5, 7, 12)
WIDE = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
HEADS = {**WIDE, "num_attention_heads": 4, "max_position_embeddings": 4096, "pad_token_id": END}
GROUPED = {**HEADS, "num_key_value_heads": 2}
BART = {"vocab_size": 60, "d_model": 32, "decoder_layers": 1, "decoder_ffn_dim": 32}
BLOOM = {"vocab_size": 60, "hidden_size": 32, "n_layer": 2, "n_head": 4}
GPT2 = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_model(name: str, **sizes: Any) -> Any:
    """Return a model with weights so large that its answers differ from prompt to prompt."""
    torch.manual_seed(0)
    kind = {"GPT2": "GPT2LMHeadModel", "OpenAIGPT": "OpenAIGPTLMHeadModel"}.get(name)
    config = getattr(transformers, f"{name}Config")(**sizes)
    model = getattr(transformers, kind or f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.add_(torch.randn(weights.shape) * 0.15)
    return model


def llama(**settings: Any) -> Any:
    model = random_model("Llama", **GROUPED)
    for name, setting in settings.items():
        setattr(model.generation_config, name, setting)
    return model


def rows() -> list[BatchRow]:
    drawn = Random(1)  # noqa: S311
    return [
        BatchRow(job=number, prompt=[drawn.randrange(9, 60) for _ in range(length)], room=room)
        for number, (length, room) in enumerate(zip(LENGTHS, ROOMS, strict=True))
    ]


def alone(model: Any) -> list[list[int]]:
    return [answer_alone(model, row.prompt, room=row.room, ends=ENDS) for row in rows()]


def answer_alone(model: Any, prompt: list[int], *, room: int, ends: frozenset[int]) -> list[int]:
    """Return what `generate` answers to one prompt, up to its end."""
    with torch.inference_mode():
        tokens = model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=room,
            eos_token_id=sorted(ends),
            pad_token_id=END,
        )
    answer: list[int] = tokens[0, len(prompt) :].tolist()
    return answer


def together(model: Any, *, size: int, order: Sequence[int] | None = None) -> list[list[int]]:
    """Let rows join as soon as there is a place, and return their answers in the prompts' order."""
    batch = ContinuousBatch(model=model, ends=ENDS, pad=END)
    waiting = [rows()[number] for number in order or range(len(LENGTHS))]
    answers: dict[int, list[int]] = {}
    while waiting or batch.rows:
        free = size - len(batch.rows)
        joining, waiting = waiting[:free], waiting[free:]
        for row in batch.advance(joining, wanted=lambda: False):
            answers[row.job] = row.tokens
    return [answers[number] for number in range(len(LENGTHS))]


ARCHITECTURES = [
    pytest.param("Llama", GROUPED, id="grouped-query"),
    pytest.param("Qwen3", {**GROUPED, "head_dim": 8}, id="norm-of-queries"),
    pytest.param("GPT2", GPT2, id="learned-positions"),
    pytest.param("OPT", {**HEADS, "word_embed_proj_dim": 32, "ffn_dim": 32}, id="with-an-offset"),
    pytest.param("Bloom", BLOOM, id="alibi"),
    pytest.param("GPTNeoX", HEADS, id="partly-rotary"),
    pytest.param("Phi", HEADS, id="parallel-layers"),
    pytest.param(
        "DeepseekV2",
        {
            **HEADS,
            "num_key_value_heads": 4,
            "q_lora_rank": 8,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 4,
            "v_head_dim": 6,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 8,
        },
        id="latent-keys-and-experts",
    ),
]


@pytest.mark.parametrize(("name", "sizes"), ARCHITECTURES)
def test_a_row_answers_as_its_prompt_alone(name: str, sizes: dict[str, Any]) -> None:
    model = random_model(name, **sizes)

    expected = alone(model)

    assert supports(model)
    assert together(model, size=3) == expected
    assert len(expected[2]) == 1
    assert len({len(answer) for answer in expected}) > 2


@pytest.mark.parametrize("size", [1, 3, 16])
def test_size_and_order_of_arrival_change_no_answer(size: int) -> None:
    model = llama()
    numbers = range(len(LENGTHS))
    orders = [Random(seed).sample(numbers, len(numbers)) for seed in range(4)]  # noqa: S311

    expected = alone(model)

    assert all(together(model, size=size, order=order) == expected for order in orders)
    assert any(answer[-1] in ENDS for answer in expected)


def test_an_answer_may_end_at_its_first_token() -> None:
    model = llama()
    first = [answer[0] for answer in alone(model)]
    batch = ContinuousBatch(model=model, ends=frozenset(first[:2]), pad=first[0])

    done = batch.advance(rows(), wanted=lambda: False)

    assert {0, 1, 2} <= {row.job for row in done}  # 2 has room for one token
    assert all(len(row.tokens) == 1 for row in done)


def test_a_model_may_know_no_end() -> None:
    model = llama()
    batch = ContinuousBatch(model=model, ends=frozenset(), pad=0)
    done = batch.advance(rows(), wanted=lambda: False)
    while batch.rows:
        done += batch.advance([], wanted=lambda: False)

    assert {row.job: row.tokens for row in done} == {
        row.job: answer_alone(model, row.prompt, room=row.room, ends=frozenset()) for row in rows()
    }


UNSUPPORTED = [
    pytest.param("Mistral", {**GROUPED, "sliding_window": 4}, id="window"),
    pytest.param("Gemma3", {}, id="windows-and-none"),
    pytest.param("Lfm2", {**GROUPED, "layer_types": ["conv", "full_attention"]}, id="convolution"),
    pytest.param("Mamba", {**WIDE, "state_size": 4}, id="state"),
    pytest.param("Bart", {**BART, "decoder_attention_heads": 4}, id="positions-of-places"),
    pytest.param("OpenAIGPT", GPT2, id="no-keys"),
]


def gemma() -> Any:
    """Return a model whose first layer sees four tokens and whose second sees all."""
    kinds = ["sliding_attention", "full_attention"]
    config = transformers.Gemma3TextConfig(
        **GROUPED, head_dim=8, sliding_window=4, layer_types=kinds, eos_token_id=END
    )
    torch.manual_seed(0)
    return transformers.Gemma3ForCausalLM(config).eval()


@pytest.mark.parametrize(("name", "sizes"), UNSUPPORTED)
def test_what_cannot_be_padded_is_not_supported(name: str, sizes: dict[str, Any]) -> None:
    model = gemma() if name == "Gemma3" else random_model(name, **sizes)

    assert not supports(model)


@pytest.mark.parametrize("kind", ["T5", "Bart"])
def test_an_encoder_is_not_supported(kind: str) -> None:
    config = getattr(transformers, f"{kind}Config")(vocab_size=60, d_model=16, num_layers=1)

    class Known:
        generation_config = transformers.GenerationConfig()

        def forward(self, position_ids: Any, past_key_values: Any) -> None: ...

    known = Known()
    known.config = config  # type: ignore[attr-defined]

    assert not supports(known)
    known.config = llama().config  # type: ignore[attr-defined]
    assert supports(known)


def test_what_is_not_known_is_not_supported() -> None:
    assert not supports(object())


SETTINGS_THAT_SHIP: list[dict[str, Any]] = [
    {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.1},
    {"repetition_penalty": 1.3},
    {"suppress_tokens": [9, 30, END]},
    {"max_length": 50},
    {"max_new_tokens": 7},
    {"num_beams": 1, "use_cache": True, "min_length": 0, "no_repeat_ngram_size": 0},
]


@pytest.mark.parametrize("settings", SETTINGS_THAT_SHIP, ids="-".join)
def test_settings_of_a_checkpoint_hold_in_pieces(settings: dict[str, Any]) -> None:
    model = llama(**settings)

    assert supports(model)
    assert together(model, size=3) == alone(model)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("num_beams", 3),
        ("no_repeat_ngram_size", 2),
        ("min_new_tokens", 4),
        ("min_length", 12),
        ("forced_bos_token_id", 7),
        ("forced_bos_token_id", 1),
        ("forced_eos_token_id", END),
        ("begin_suppress_tokens", [END, 40]),
        ("exponential_decay_length_penalty", (2, 1.5)),
        ("bad_words_ids", [[8, 9]]),
        ("cache_implementation", "static"),
        ("use_cache", False),
        ("stop_strings", ["."]),
        ("max_time", 60.0),
        ("output_logits", True),
        ("invented_by_a_checkpoint", 1),
    ],
)
def test_a_setting_that_counts_from_the_begin_is_not_supported(name: str, setting: Any) -> None:
    assert not supports(llama(**{name: setting}))


def seen(model: Any, look: Callable[[dict[str, Any]], None]) -> list[weakref.ref[Any]]:
    """Let `look` see the arguments of every call of `generate`; return its keys' references."""
    plain = model.generate
    keys: list[weakref.ref[Any]] = []

    def generate(**how: Any) -> Any:
        look(how)
        out = plain(**how)
        keys[:] = [weakref.ref(layer.keys) for layer in out.past_key_values.layers]
        return out

    model.generate = generate
    return keys


def test_keys_are_in_memory_once_and_leave_with_their_rows() -> None:
    model = llama(suppress_tokens=sorted(ENDS))
    alive: list[int] = []
    shapes: list[tuple[int, ...]] = []

    def look(how: dict[str, Any]) -> None:
        alive.append(sum(key() is not None for key in keys))
        if how["past_key_values"] is not None:
            shapes.append(tuple(how["past_key_values"].layers[0].keys.shape))

    keys = seen(model, look)
    batch = ContinuousBatch(model=model, ends=ENDS, pad=END)
    long, short = BatchRow(job=0, prompt=[9] * 40, room=3), BatchRow(job=1, prompt=[10] * 5, room=9)
    batch.advance([long, short], wanted=lambda: True)
    batch.advance([], wanted=lambda: False)
    batch.advance([], wanted=lambda: False)

    assert long.is_done
    assert short.is_done
    assert shapes == [(2, 2, 40, 8), (2, 2, 41, 8), (1, 2, 7, 8)]
    assert not any(alive[2:])  # of the piece before, while the next is generated
    assert not batch.rows
    assert all(key() is None for key in keys)


def test_a_waiting_prompt_stops_the_piece_at_its_next_token() -> None:
    batch = ContinuousBatch(model=llama(suppress_tokens=sorted(ENDS)), ends=ENDS, pad=END)
    row = BatchRow(job=0, prompt=[9, 10], room=50)

    assert batch.advance([row], wanted=lambda: True) == []
    assert len(row.tokens) == 2  # one of the prompt's reading, one of the piece


# From here on through the adapter: a folder with a tokenizer of letters.

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWX!"
TEMPLATE = (
    "{% if '!' in messages[0]['content'] %}{{ raise_exception('no shouting') }}{% endif %}"
    "{{ messages[0]['content'] }}"
)


def saved(model: Any, folder: Path) -> Path:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers  # noqa: PLC0415

    vocabulary = {f"<{number}>": number for number in range(9)}
    vocabulary |= {letter: 9 + number for number, letter in enumerate(LETTERS)}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="<0>"))  # noqa: S106
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=letters,
        chat_template=TEMPLATE,
        eos_token="<3>",  # noqa: S106
    )
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    model.generation_config.eos_token_id = sorted(ENDS)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(llama(), tmp_path_factory.mktemp("llama"))


def source(folder: Path, size: int = 3) -> TransformersModel:
    return TransformersModel(name="tiny", location=str(folder), concurrency=size)


Asked = tuple[str, Sampling]


def answers(folder: Path, asked: list[Asked], *, size: int = 3) -> list[Any]:
    async def ask() -> list[Any]:
        async with source(folder, size).open(folder) as model:
            all_asked = [model.complete(Prompt(text=text), how) for text, how in asked]
            return await asyncio.gather(*all_asked, return_exceptions=True)

    return asyncio.run(asyncio.wait_for(ask(), 60))


def texts(num: int = 12) -> list[Asked]:
    drawn = Random(2)  # noqa: S311
    return [
        (
            "".join(drawn.choices(LETTERS[:-1], k=drawn.choice((1, 3, 9, 40)))),
            Sampling(max_tokens=drawn.choice((1, 4, 16))),
        )
        for _ in range(num)
    ]


def plain(model: Any, asked: list[Asked]) -> list[str]:
    """Return what `generate` answers to each prompt alone, as text."""
    found = []
    for text, how in asked:
        ids = [9 + LETTERS.index(letter) for letter in text]
        tokens = answer_alone(model, ids, room=how.max_tokens, ends=ENDS)
        kept = [token for token in tokens if token not in ENDS]
        found.append(" ".join(f"<{one}>" if one < 9 else LETTERS[one - 9] for one in kept))
    return found


@pytest.mark.parametrize("size", [1, 3, 16])
def test_the_adapter_answers_as_each_prompt_alone(checkpoint: Path, size: int) -> None:
    asked = texts()
    shuffled = Random(size).sample(asked, len(asked))  # noqa: S311

    found = dict(zip(shuffled, answers(checkpoint, shuffled, size=size), strict=True))

    assert [found[one].text for one in asked] == plain(llama(), asked)
    assert {found[one].finish_reason for one in asked} == {"stop", "length"}
    assert all(found[one].prompt_tokens == len(one[0]) for one in asked)


def test_a_model_that_is_not_supported_answers_in_whole_batches(tmp_path: Path) -> None:
    asked = [(text, Sampling(max_tokens=8)) for text, _ in texts(6)]

    found = answers(saved(gemma(), tmp_path), asked)

    assert [one.text for one in found] == plain(gemma(), asked)


def test_the_same_prompt_twice_is_answered_twice(checkpoint: Path) -> None:
    first, second, third = answers(checkpoint, [("abc", Sampling(max_tokens=8))] * 3)

    assert first == second == third
    assert isinstance(first, Completion)


def test_a_template_that_refuses_and_a_prompt_too_long_fail_alone(checkpoint: Path) -> None:
    asked = texts()
    asked[1:1] = [("so!", Sampling(max_tokens=4)), ("a" * 5000, Sampling(max_tokens=4))]

    found = answers(checkpoint, asked)

    assert isinstance(found[1], RequestRefused)
    assert "no shouting" in str(found[1])
    assert isinstance(found[2], RequestRejected)
    assert "the prompt has 5000 tokens, the model takes 4096" in str(found[2])
    assert [one.text for one in (found[0], *found[3:])] == plain(llama(), [asked[0], *asked[3:]])


def test_sampled_prompts_among_greedy_ones_keep_their_seeds(checkpoint: Path) -> None:
    sampled = [("abc", Sampling(max_tokens=12, temperature=1.0, seed=seed)) for seed in range(1, 5)]
    greedy = texts()
    mixed = [one for pair in zip(sampled, greedy, strict=False) for one in pair] + greedy[4:]

    apart = [answers(checkpoint, [one])[0].text for one in sampled]
    found = answers(checkpoint, mixed)

    assert [found[2 * number].text for number in range(4)] == apart
    assert len(set(apart)) > 1
    assert [found[1].text, found[3].text] == plain(llama(), greedy[:2])


def broken(
    monkeypatch: pytest.MonkeyPatch, fail: Callable[[dict[str, Any]], None]
) -> list[weakref.ref[Any]]:
    """Let `fail` raise in `generate`, once memory is filled; return what was filled.

    At every call, what earlier ones filled is free, without the garbage collector.
    """
    plain_generate = transformers.LlamaForCausalLM.generate
    filled: list[weakref.ref[Any]] = []

    def generate(model: Any, **how: Any) -> Any:
        waited_until = time.monotonic() + 2  # the thread that failed lets go a moment later
        while any(one() is not None for one in filled):
            assert time.monotonic() < waited_until
            time.sleep(0.001)
        much = torch.zeros(10)
        filled.append(weakref.ref(much))
        fail(how)
        return plain_generate(model, **how)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "generate", generate)
    return filled


def test_an_error_in_the_middle_is_found_by_halving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = 9 + LETTERS.index("X")
    model = llama(suppress_tokens=[poison])
    folder = saved(model, tmp_path)
    asked = [(text.replace("X", "a"), how) for text, how in texts()]
    expected = plain(model, asked)
    asked.insert(6, ("X", Sampling(max_tokens=4)))

    def fail(how: dict[str, Any]) -> None:
        if ((how["input_ids"] == poison) & (how["attention_mask"] == 1)).any():
            raise ValueError("a token that hurts")

    broken(monkeypatch, fail)
    found = answers(folder, asked, size=4)

    assert "a token that hurts" in str(found.pop(6))
    assert [one.text for one in found] == expected


def test_an_error_once_rows_have_left_loses_none(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = plain(llama(), texts())
    leave = ContinuousBatch._leave  # noqa: SLF001
    calls: list[int] = []

    def fails_after(batch: ContinuousBatch) -> list[BatchRow]:
        done = leave(batch)
        calls.append(len(done))
        if len(calls) in (2, 5):
            raise RuntimeError("no memory to copy what stays")
        return done

    monkeypatch.setattr(ContinuousBatch, "_leave", fails_after)
    found = answers(checkpoint, texts(), size=4)

    assert [one.text for one in found] == expected
    assert max(calls) > 0


def test_out_of_memory_makes_batches_smaller_and_frees_what_was_filled(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = plain(llama(), texts())

    def fail(how: dict[str, Any]) -> None:
        if how.get("past_key_values") is not None and len(how["input_ids"]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    broken(monkeypatch, fail)
    with caplog.at_level(logging.WARNING, logger="medix_eval"):
        found = answers(checkpoint, texts(), size=8)

    assert [one.text for one in found] == expected
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory: from now on 4 prompts a batch"
    ]


def test_an_error_of_a_whole_batch_frees_what_was_filled(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled = [("abc", Sampling(max_tokens=4, temperature=1.0))] * 4

    def fail(how: dict[str, Any]) -> None:
        if len(how["input_ids"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    filled = broken(monkeypatch, fail)
    found = answers(checkpoint, sampled, size=4)

    assert all(isinstance(one, Completion) for one in found)
    assert len(filled) == 7  # of 4, of 2 and 2, and each alone


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_an_interrupted_run_does_not_wait_for_long_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    folder = saved(llama(suppress_tokens=sorted(ENDS)), tmp_path)
    forward = transformers.LlamaForCausalLM.forward
    begun, tokens = threading.Event(), [0]

    def slow(*args: Any, **how: Any) -> Any:
        time.sleep(0.01)
        tokens[0] += 1
        begun.set()
        return forward(*args, **how)

    async def interrupted() -> float:
        asked = Sampling(max_tokens=4000, temperature=temperature)
        async with source(folder).open(folder) as model, asyncio.timeout(30):
            answer = asyncio.create_task(model.complete(Prompt(text="abc"), asked))
            await asyncio.to_thread(begun.wait)
            answer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await answer
            return time.monotonic()

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", slow)
    began = asyncio.run(interrupted())

    assert time.monotonic() - began < 5  # of 40 s; `run` has waited for the thread
    assert tokens[0] < 400


def test_a_prompt_that_is_given_up_leaves_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(llama(suppress_tokens=sorted(ENDS)), tmp_path)
    sizes: list[int] = []

    def look(how: dict[str, Any]) -> None:
        sizes.append(len(how["input_ids"]))

    async def ask() -> Any:
        async with source(folder).open(folder) as model:
            long = asyncio.create_task(
                model.complete(Prompt(text="abc"), Sampling(max_tokens=4000))
            )
            await asyncio.sleep(0.1)
            long.cancel()
            return await model.complete(Prompt(text="abcd"), Sampling(max_tokens=40))

    broken(monkeypatch, look)
    found = asyncio.run(asyncio.wait_for(ask(), 20))

    assert found.completion_tokens == 40
    assert sizes[-1] == 1


def test_two_models_answer_at_once(checkpoint: Path, tmp_path: Path) -> None:
    sizes = {**HEADS, "word_embed_proj_dim": 32, "ffn_dim": 32}
    other = saved(random_model("OPT", **sizes), tmp_path)
    asked = texts()

    async def ask() -> tuple[list[Completion], list[Completion]]:
        async with source(checkpoint).open(other) as one, source(other).open(other) as two:
            first, second = (
                asyncio.gather(*(model.complete(Prompt(text=text), how) for text, how in asked))
                for model in (one, two)
            )
            return await first, await second

    first, second = asyncio.run(asyncio.wait_for(ask(), 60))

    assert [one.text for one in first] == plain(llama(), asked)
    assert [one.text for one in second] == plain(random_model("OPT", **sizes), asked)


def test_prompts_that_keep_coming_do_not_keep_an_earlier_one_waiting(checkpoint: Path) -> None:
    """More in flight than places: the order of answers stays near the order of arrival."""
    asked = [("abc"[: 1 + number % 3] * 3, Sampling(max_tokens=6)) for number in range(60)]
    order: list[int] = []

    async def ask() -> None:
        async with source(checkpoint, 4).open(checkpoint) as model:

            async def one(number: int) -> None:
                await asyncio.sleep(0.002 * number)
                text, how = asked[number]
                await model.complete(Prompt(text=text), how)
                order.append(number)

            await asyncio.gather(*(one(number) for number in range(len(asked))))

    asyncio.run(asyncio.wait_for(ask(), 60))

    assert sorted(order) == list(range(60))
    assert all(abs(place - number) <= 8 for place, number in enumerate(order))
