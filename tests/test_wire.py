"""The wire format, held against the types that the `openai` package publishes.

A field that is misspelt is a field that a server silently ignores: a seed that is none, a schema
that nobody keeps to.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.shared import ErrorObject
from pydantic import TypeAdapter, ValidationError
from scripted_run import says
from scripted_servers import HUB, Run, Serve, candidate, judge

from medix_eval.models.chat import Prompt, Sampling
from medix_eval.models.openai_server import OpenAIServer
from medix_eval.testing import Reply

REQUEST: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsNonStreaming)
PNG = b"\x89PNG\r\n\x1a\n"
SAMPLING = Sampling(max_tokens=8, temperature=0.7, top_p=0.9, seed=3)
PROMPTS = {
    "text": Prompt(text="Is it there?"),
    "images": Prompt(text="<image>and <image>: the same?", images=(PNG, PNG)),
    "only an image": Prompt(text="<image>", images=(PNG,)),
    "dialogue": Prompt(text="And now?", before=(("Is it there?", "Yes."),)),
    "schema": Prompt(text="Grade.", schema={"type": "object", "properties": {"score": {}}}),
    "everything": Prompt(
        text="<image>Grade.", images=(PNG,), before=(("a", "b"),), schema={"type": "object"}
    ),
}
REPLIES = {
    "text": Reply(text="Yes."),
    "cut off": Reply(text="Ye", finish_reason="length"),
    "filtered": Reply(text="", finish_reason="content_filter"),
    "no content": Reply(text=None),
}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
async def test_a_request_holds_nothing_but_fields_of_the_api(serve: Serve, prompt: Prompt) -> None:
    body = await sent(serve, prompt)

    assert as_read(body) == body
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["seed"]) == (
        8,
        0.7,
        0.9,
        3,
    )
    assert ("response_format" in body) == (prompt.schema is not None)


async def test_no_misspelt_field_of_a_request_would_pass(serve: Serve) -> None:
    """Else the test above would show nothing."""
    body = await sent(serve, PROMPTS["everything"])
    free = ("response_format", "json_schema", "schema")  # any JSON schema may stand there
    fields = [path for path in fields_of(body) if path[:3] != free or path == free]

    assert len(fields) > 20
    assert [path for path in fields if passes(misspelt(body, path))] == []


@pytest.mark.parametrize("protocol", ["medix", "medix-compat", "cascade", "reward"])
def test_every_request_of_a_run_holds_nothing_but_fields_of_the_api(
    run: Run, serve: Serve, tmp_path: Path, protocol: str
) -> None:
    servers = [serve(lambda _: "<answer>A lesion.</answer>"), serve(says)]
    code, _, err = run(
        *(*candidate(servers[0]), *judge(servers[1]), "--protocol", protocol, "--limit", "3"),
        *("--tasks", "medqa,rad_vqa", "--data-root", HUB, "--out", tmp_path / "out"),
    )
    bodies = [body for server in servers for body in server.requests]

    assert code in {0, 1}, err
    assert min(len(server.requests) for server in servers) > 0
    assert [body for body in bodies if as_read(body) != body] == []


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
async def test_a_scripted_reply_is_a_completion_of_the_api(serve: Serve, reply: Reply) -> None:
    status, said = await asked(serve(lambda _: reply).url, "/chat/completions")
    read = ChatCompletion.model_validate(said, extra="forbid")

    assert status == 200
    assert read.choices[0].message.content == reply.text


async def test_a_scripted_error_is_an_error_of_the_api(serve: Serve) -> None:
    server = serve(lambda _: Reply(status=400, text="too long"))
    status, said = await asked(server.url, "/chat/completions")
    read = ErrorObject.model_validate(said["error"], extra="forbid")

    assert (status, [*said], read.message) == (400, ["error"], "too long")


async def test_a_scripted_list_of_models_is_one_of_the_api(serve: Serve) -> None:
    _, said = await asked(serve(lambda _: "").url, "/models")
    _, refused = await asked(serve(lambda _: "", models_status=401).url, "/models")

    (one,) = said.pop("data")
    assert said == {"object": "list"}
    assert Model.model_validate(one, extra="forbid").id == "scripted"
    assert ErrorObject.model_validate(refused["error"], extra="forbid").message == "scripted"


async def sent(serve: Serve, prompt: Prompt) -> dict[str, Any]:
    """Return the body of the request that our client makes of a prompt."""
    server = serve(lambda _: "Yes.")
    async with OpenAIServer(model="scripted", base_url=server.url).connect() as connected:
        await connected.complete(prompt, SAMPLING)
    (body,) = server.requests
    return body


async def asked(url: str, path: str) -> tuple[int, Any]:
    """Return what a server answers to a request that is none of our client's."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": "?"}]}
    method = "GET" if path == "/models" else "POST"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url + path, json=body) as response,
    ):
        return response.status, await response.json()


def as_read(body: dict[str, Any]) -> Any:
    """Return what a reader of the API finds in a request; what it does not know is left out."""
    return drawn(REQUEST.validate_python(body))


def drawn(value: Any) -> Any:
    """Draw every iterator: pydantic checks an `Iterable` only when it is read."""
    if isinstance(value, dict):
        return {key: drawn(one) for key, one in value.items()}
    return [drawn(one) for one in value] if hasattr(value, "__next__") else value


def passes(body: dict[str, Any]) -> bool:
    try:
        return bool(as_read(body) == body)
    except ValidationError:
        return False


def fields_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every field, however deep."""
    inside = value.items() if isinstance(value, dict) else ()
    for key, below in enumerate(value) if isinstance(value, list) else inside:
        if isinstance(key, str):
            yield (*path, key)
        yield from fields_of(below, (*path, key))


def misspelt(body: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    spoilt = copy.deepcopy(body)
    holder: Any = spoilt
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1] + "s"] = holder.pop(path[-1])
    return spoilt
