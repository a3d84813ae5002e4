"""16 real rows through stock lm-eval and through us: the same prompts, requests and answers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from side_by_side import NUM_ROWS, TASKS, Answered, compared, ours, picked_rows, stock, texts

from medix_eval.testing import ScriptedServer, prompt_text

MAX_TOKENS = 32


@pytest.mark.slow
def test_transformers_is_asked_and_answers_as_in_stock_lm_eval(
    real_model: Path, real_rows: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer  # noqa: PLC0415

    argv = ["--model", str(real_model), "--backend", "hf"]
    found = ours(tmp_path / "ours", rows=real_rows, argv=argv, max_tokens=MAX_TOKENS)
    expected = stock(
        tmp_path / "stock",
        rows=real_rows,
        picked=picked_rows(tmp_path / "ours"),
        argv=(
            *("--model", "hf", "--model_args", f"pretrained={real_model},dtype=float32"),
            *("--batch_size", "8"),
        ),
        cut=MAX_TOKENS,
    )

    tokenizer = AutoTokenizer.from_pretrained(real_model)
    templated = [
        Answered(
            task=one.task,
            prompt=str(
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": one.prompt}],
                    add_generation_prompt=True,
                    tokenize=False,
                )
            ),
            completion=one.completion,
        )
        for one in found
    ]
    assert len(found) == 2 * NUM_ROWS
    assert sorted(templated) == expected
    assert len({one.completion for one in found}) > NUM_ROWS


@pytest.mark.slow
def test_a_server_is_asked_the_same_as_by_stock_lm_eval(real_rows: Path, tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> str:
        """Answer with a mark of everything that was said."""
        said = json.dumps([texts(message) for message in body["messages"]])
        return f"The answer is B. ({hashlib.sha256(said.encode()).hexdigest()})"

    with ScriptedServer(answer) as server:
        argv = ["--model", "openai:scripted", "--base-url", server.url]
        found = ours(tmp_path / "ours", rows=real_rows, argv=argv, max_tokens=MAX_TOKENS)
        sent = {prompt_text(body): body for body in server.requests}
        server.requests.clear()
        args = f"model=scripted,base_url={server.url}/chat/completions,seed=0"
        theirs = stock(
            tmp_path / "stock",
            rows=real_rows,
            picked=picked_rows(tmp_path / "ours"),
            argv=("--model", "local-chat-completions", "--model_args", args),
            cut=MAX_TOKENS,
        )
        by_stock = {prompt_text(body): body for body in server.requests}

    assert TASKS.split(",") == sorted({one.task for one in found})
    assert completions(found) == completions(theirs)
    assert len(sent) == 2 * NUM_ROWS
    assert sent.keys() == by_stock.keys()
    for said, body in sent.items():
        mine, other = compared(body, by_stock[said])
        assert {"model", "messages", "max_tokens", "temperature", "seed"} <= mine.keys()
        assert mine == other


def completions(answered: list[Answered]) -> list[tuple[str, str]]:
    return sorted((one.task, one.completion) for one in answered)
