"""What servers really send, and what it may be taken for: written down without our own code.

Shapes are those that vendors' clients, documents and issues show. Where a reply can fairly be read
in two ways, `means` holds both.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import aiohttp

ASKED = "acme-large"
"""The id of the model that is asked for, and of the judge."""
TIME_OUT_S = 600.0

ANSWER = "answer"
TRUNCATED = "truncated"
REFUSED = "refused"
EMPTY = "empty"
REJECTED = "rejected"
FAILED = "failed"
"""No answer, and asking again in this run is not expected."""
AGAIN = "again"
"""No answer, and it is asked for again in this run, up to the last try."""
STOP = "stop"
"""Nobody can go on: exit code 4."""
STRAY = f"{STOP} {FAILED} {AGAIN}"
"""The endpoint is to blame: it is tried again, and stops the run if it stays so."""
UNREADABLE = "unreadable"
"""A judge that answered, but gave no verdict."""
UNSTRUCTURED = "unstructured"
"""The judge's server takes no schema: it may be asked without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One reply of a server, and all that it may be taken for."""

    name: str
    means: frozenset[str]
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    error: Exception | None = None
    """Raised in place of an answer."""
    delay_s: float = 0.1
    said: str = ""
    """The answer that can be read in it, without thinking and tags."""
    is_right: bool = False
    is_garbled: bool = False
    """Whether a character is lost, so that a rule may be unable to decide."""
    points: int | None = None
    """The verdict in it, of a judge."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a model or a judge has to say: the plain text, and what it is."""

    text: str
    is_right: bool = False
    points: int | None = None
    most: int = 1
    """What can be given: 1, or 5 for a report."""


Maker = Callable[[random.Random, Said], Reply]
Makers = Mapping[str, tuple[float, Maker]]
"""Makers of replies by name, with how often they are drawn."""


def completion(
    message: Mapping[str, Any],
    finish: Any = "stop",
    *,
    model: str | None = ASKED,
    usage: Any = None,
    **more: Any,
) -> bytes:
    """Return the body of a chat completion."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}
    body: dict[str, Any] = {"id": "x", "object": "chat.completion", "choices": [choice | more]}
    if model is not None:
        body["model"] = model
    body["usage"] = {"prompt_tokens": 9, "completion_tokens": 3} if usage is None else usage
    return json.dumps(body).encode()


def _refusal(message: str, *, code: Any = None, kind: str = "invalid_request_error") -> Any:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _error(status: int, body: Any, means: str, **headers: str) -> Maker:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = Reply(name="", means=frozenset(means.split()), status=status, body=raw, headers=named)
    return lambda _, __: reply


def _broken(error: Exception, *, delay_s: float = 0.1) -> Maker:
    return lambda _, __: Reply(name="", means=frozenset({AGAIN}), error=error, delay_s=delay_s)


def _without_answer(
    means: str, message: Mapping[str, Any], finish: Any = "stop", **m: Any
) -> Maker:
    reply = Reply(name="", means=frozenset(means.split()), body=completion(message, finish, **m))
    return lambda _, __: reply


def _answered(
    shape: Callable[[str], Mapping[str, Any]],
    finish: Any = "stop",
    *,
    means: str = "",
    **m: Any,
) -> Maker:
    """Return a maker whose reply holds what is to be said, in some shape."""

    def make(_: random.Random, said: Said) -> Reply:
        own = ANSWER if said.points is None else str(said.points)
        taken = {own if one == "own" else one for one in (means or "own").split()}
        return Reply(
            name="",
            means=frozenset(taken),
            body=completion(shape(said.text), finish, **m),
            said=said.text,
            is_right=said.is_right,
            points=said.points,
        )

    return make


def _plain(text: str) -> dict[str, Any]:
    return {"content": text}


def _half(text: str) -> dict[str, Any]:
    """Return the beginning of a longer text."""
    return {"content": f"The answer is {text}, or rather"}


_SHAPES: dict[str, Callable[[str], dict[str, Any]]] = {
    "content": _plain,
    "one text part": lambda text: {"content": [{"type": "text", "text": text}]},
    "thinking and text parts": lambda text: {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "A or C? yes, no"}]},
            {"type": "text", "text": text},
        ]
    },
    "reasoning_content": lambda text: {"content": text, "reasoning_content": "A? C? yes, no"},
    "reasoning": lambda text: {"content": text, "reasoning": "\nA? C? yes, no"},
    "reasoning null": lambda text: {"content": text, "reasoning_content": None, "refusal": None},
    "think tag": lambda text: {"content": f"<think>A? C? yes, no</think>\n{text}"},
}

ANSWERS: Makers = {
    **{f"answer: {name}": (4.0, _answered(shape)) for name, shape in _SHAPES.items()},
    **{
        f"answer: finish {finish}": (1.0, _answered(_plain, finish))
        for finish in (None, "STOP", "eos", "end_turn", "stop_sequence", "COMPLETE")
    },
    "answer: unknown finish": (1.0, _answered(_plain, "banana", means="own failed again")),
    "answer: dated id": (1.0, _answered(_plain, model=f"{ASKED}-2026-08-06")),
    "answer: no id": (1.0, _answered(_plain, model=None)),
    "answer: odd usage": (1.0, _answered(_plain, usage=[1])),
    "answer: no usage": (1.0, _answered(_plain, usage={})),
    "answer: empty error": (0.5, _answered(_plain, error=None)),
}
"""All of them hold the whole answer."""

_FAILING = (
    "error", "ERROR", "abort", "network_error", "failed", "cancelled",
    "insufficient_system_resource",
)  # fmt: skip
_UPSTREAM = {"code": 502, "message": "Upstream error from the provider"}
_ANYHOW = f"{FAILED} {AGAIN} {EMPTY}"

_PASSING: Makers = {
    **{
        f"{status}": (1.0, _error(status, _refusal("Try again"), AGAIN))
        for status in (408, 409, 425, 500, 502, 503, 504, 520, 529)
    },
    "500 engine dead": (0.5, _error(500, _refusal("EngineCore encountered an issue."), AGAIN)),
    "502 html": (0.5, _error(502, "<html>Bad gateway</html>", AGAIN)),
    "503 empty": (0.5, _error(503, "", AGAIN)),
    "429": (1.0, _error(429, _refusal("Rate limit", code="rate_limit_exceeded"), AGAIN)),
    **{
        f"429 Retry-After {value}": (
            0.4,
            _error(429, _refusal("Rate limit"), AGAIN, Retry_After=value),
        )
        for value in (
            "0",
            "2",
            "0.05",
            "-5",
            "nan",
            "inf",
            "5s",
            "1e9",
            "",
            "Wed, 21 Oct 2015 07:28:00 GMT",
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "soon",
            "\u0665",
        )
    },
    "disconnected": (1.0, _broken(aiohttp.ServerDisconnectedError())),
    "reset": (0.5, _broken(aiohttp.ClientOSError(104, "Connection reset by peer"))),
    "half a body": (0.5, _broken(aiohttp.ClientPayloadError("Response payload is not completed"))),
    "time-out": (0.3, _broken(TimeoutError(), delay_s=TIME_OUT_S)),
    "no connection": (0.5, _broken(aiohttp.ConnectionTimeoutError("no route"), delay_s=10.0)),
    **{
        f"200 error {name}": (0.7, _error(200, {"error": error}, AGAIN))
        for name, error in {
            "502": _UPSTREAM,
            "429": {"code": 429, "message": "Rate limit exceeded"},
            "in words": {"message": "Provider returned error", "type": "server_error"},
            "as text": "Internal error",
            "500 as text": {"code": "500", "message": "Internal server error"},
        }.items()
    },
    "200 error beside choices": (
        0.5,
        _error(200, {"model": ASKED, "choices": [], "error": _UPSTREAM}, AGAIN),
    ),
    "choice error": (
        0.7,
        _without_answer(AGAIN, {"content": ""}, "error", error=_UPSTREAM),
    ),
    "choice error, finish stop": (
        0.5,
        _without_answer(AGAIN, {"content": "The answer is"}, "stop", error=_UPSTREAM),
    ),
    **{
        f"finish {finish}, nothing": (0.7, _without_answer(AGAIN, {"content": ""}, finish))
        for finish in _FAILING
    },
    **{
        f"finish {finish}, null": (0.3, _without_answer(AGAIN, {"content": None}, finish))
        for finish in _FAILING
    },
    **{
        f"finish {finish}, half": (0.7, _answered(_half, finish, means=AGAIN))
        for finish in _FAILING
    },
    **{
        f"finish {finish}, whole": (0.4, _answered(_plain, finish, means=AGAIN))
        for finish in _FAILING
    },
    "another model": (2.0, _answered(_plain, model="acme-small", means=AGAIN)),
    "another maker's model": (1.0, _answered(_plain, model="other-7b-chat", means=AGAIN)),
    "choices empty": (0.7, _error(200, {"model": ASKED, "choices": []}, f"{FAILED} {AGAIN}")),
    "choices null": (0.7, _error(200, {"model": ASKED, "choices": None}, f"{FAILED} {AGAIN}")),
    "no choices": (0.7, _error(200, {"model": ASKED, "usage": {}}, f"{FAILED} {AGAIN}")),
    "message null": (
        0.4,
        _error(200, {"model": ASKED, "choices": [{"message": None}]}, f"{FAILED} {AGAIN}"),
    ),
    "a list": (0.3, _error(200, [], f"{FAILED} {AGAIN}")),
}
"""No answer; the next try may bring one."""

_TOO_LONG = (
    ("openai", 400, _refusal(
        "This model's maximum context length is 128000 tokens. However, your messages resulted in "
        "130012 tokens. Please reduce the length of the messages.",
        code="context_length_exceeded")),
    ("vllm", 400, _refusal(
        "This model's maximum context length is 4096 tokens. However, you requested 6144 tokens "
        "(4096 in the messages, 2048 in the completion). Please reduce the length of the messages "
        "or completion.", code=400, kind="BadRequestError")),
    ("vllm engine", 400, _refusal(
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
        code=400, kind="BadRequestError")),
    ("sglang", 400, {
        "object": "error", "type": "BadRequestError", "param": None, "code": 400,
        "message": "Requested token count exceeds the model's maximum context length of 4096 "
        "tokens."}),
    ("llama.cpp", 400, {"error": {
        "code": 400, "message": "the request exceeds the available context size",
        "type": "exceed_context_size_error", "n_prompt_tokens": 9000, "n_ctx": 4096}}),
    ("anthropic", 400, {"type": "error", "error": {
        "type": "invalid_request_error",
        "message": "prompt is too long: 212837 tokens > 200000 maximum"}}),
    ("gemini", 400, [{"error": {
        "code": 400, "status": "INVALID_ARGUMENT", "message":
        "The input token count (1200000) exceeds the maximum number of tokens allowed "
        "(1048576)."}}]),
    ("litellm", 400, _refusal(
        "litellm.ContextWindowExceededError: prompt is too long", code="400")),
    ("422", 422, _refusal("Input is too long for requested model.")),
    ("413", 413, {"error": {
        "type": "request_too_large", "message": "Request exceeds the maximum size"}}),
)  # fmt: skip
_FILTERED = (
    ("azure", 400, _refusal(
        "The response was filtered due to the prompt triggering Azure OpenAI's content management "
        "policy. Please modify your prompt and retry.", code="content_filter")),
    ("openai", 400, _refusal(
        "Your input image may contain content that is not allowed by our safety system.",
        code="content_policy_violation")),
    ("invalid_prompt", 400, _refusal(
        "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
        code="invalid_prompt")),
)  # fmt: skip

_OF_THIS_SAMPLE: Makers = {
    **{
        f"too long: {name}": (0.5, _error(status, body, REJECTED))
        for name, status, body in _TOO_LONG
    },
    **{
        f"filtered: {name}": (0.5, _error(status, body, REJECTED))
        for name, status, body in _FILTERED
    },
    "413 nginx": (
        0.3,
        _error(413, "<html><h1>413 Request Entity Too Large</h1></html>", f"{REJECTED} {FAILED}"),
    ),
    "500 too long": (
        0.3,
        _error(500, _refusal("Context size has been exceeded."), f"{AGAIN} {REJECTED}"),
    ),
}

_UNCLEAR: Makers = {
    "400 in few words": (0.5, _error(400, _refusal("Bad request"), FAILED)),
    "400 text": (0.3, _error(400, "Bad Request", FAILED)),
    "400 empty": (0.3, _error(400, "", FAILED)),
    "400 internal": (
        0.4,
        _error(400, _refusal("Something went wrong, request id 8f31"), FAILED),
    ),
    "418": (0.2, _error(418, {"detail": "?"}, FAILED)),
    "424": (0.2, _error(424, _refusal("Dependency failed"), f"{FAILED} {AGAIN}")),
    "498": (0.2, _error(498, _refusal("Flex tier capacity exceeded"), f"{FAILED} {AGAIN} {STOP}")),
    "200 html": (0.15, _error(200, "<html>hello</html>", STRAY)),
    "200 half JSON": (0.15, _error(200, '{"choices": [{"mess', STRAY)),
    "200 nothing": (0.15, _error(200, "", STRAY)),
}

STOPS: Makers = {
    "401": (1.0, _error(401, _refusal("Incorrect API key", code="invalid_api_key"), STRAY)),
    "402": (1.0, _error(402, _refusal("Insufficient credits"), STOP)),
    "403": (1.0, _error(403, _refusal("Your organization may not use this model"), STRAY)),
    "404": (1.0, _error(404, _refusal("model not found", code="model_not_found"), STRAY)),
    "307": (0.5, _error(307, "", STRAY, Location="https://elsewhere.test/v1")),
    "max_tokens unsupported": (1.0, _error(400, {"error": {
        "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        "'max_completion_tokens' instead.", "type": "invalid_request_error",
        "param": "max_tokens", "code": "unsupported_parameter"}}, STOP)),
    "temperature unsupported": (1.0, _error(400, {"error": {
        "message": "Unsupported value: 'temperature' does not support 0.0 with this model. Only "
        "the default (1) value is supported.", "type": "invalid_request_error",
        "param": "temperature", "code": "unsupported_value"}}, STOP)),
    "temperature deprecated": (1.0, _error(400, {"type": "error", "error": {
        "type": "invalid_request_error",
        "message": "`temperature` is deprecated for this model."}}, STOP)),
    "seed extra, mistral": (1.0, _error(422, {
        "object": "error", "type": "invalid_request_error", "param": None, "code": None,
        "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"],
                                "msg": "Extra inputs are not permitted", "input": 0}]}}, STOP)),
    "seed extra, bare": (1.0, _error(422, {"detail": [{
        "type": "extra_forbidden", "loc": ["body", "seed"],
        "msg": "Extra inputs are not permitted", "input": 0}]}, STOP)),
    "seed unknown, gemini": (1.0, _error(400, [{"error": {
        "code": 400, "status": "INVALID_ARGUMENT",
        "message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'}}],
        STOP)),
    "no chat template": (1.0, _error(400, _refusal(
        "As of transformers v4.44, default chat template is no longer allowed, so you must provide "
        "a chat template if the tokenizer does not define one.", code=400), STOP)),
    "no images": (1.0, _error(400, _refusal("acme-large is not a multimodal model"), STOP)),
    "400 key": (1.0, _error(400, {"error": {
        "code": 400, "status": "INVALID_ARGUMENT",
        "message": "API key not valid. Please pass a valid API key."}}, STOP)),
    "400 credit": (1.0, _error(400, _refusal(
        "Your credit balance is too low to access the API."), STOP)),
    "429 quota": (1.0, _error(429, _refusal(
        "You exceeded your current quota, please check your plan and billing details.",
        code="insufficient_quota", kind="insufficient_quota"), STOP)),
}  # fmt: skip

_CUT = (
    "length", "LENGTH", "max_tokens", "MAX_TOKENS", "model_length", "model_context_window_exceeded",
)  # fmt: skip
_BLOCKED = (
    "content_filter", "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "refusal",
)  # fmt: skip


def _tagged(text: str) -> dict[str, Any]:
    return {"content": f"<answer>{text}</answer> I say so beca"}


def _reasoned(rng: random.Random, said: Said) -> Reply:
    """Answer, and be cut in the reasons behind it."""
    text = f"The answer is {said.text}.\n\nReasons: the"
    reply = _answered(lambda _: {"content": text}, "length")(rng, said)
    # Of an open question no rule is certain of more than the words of the reference.
    return replace(reply, said=text, is_garbled=said.text == "pneumothorax")


def _garbled(_: random.Random, said: Said) -> Reply:
    reply = _answered(lambda text: {"content": f"{text} \ud83d"})(_, said)
    return replace(reply, is_garbled=True)


CANDIDATE: Makers = {
    **_PASSING,
    **_OF_THIS_SAMPLE,
    **_UNCLEAR,
    **{f"cut {finish}": (1.0, _answered(_half, finish, means=TRUNCATED)) for finish in _CUT},
    **{
        f"cut {finish}, short": (0.5, _answered(_plain, finish, means=TRUNCATED)) for finish in _CUT
    },
    **{f"cut {finish}, tagged": (0.7, _answered(_tagged, finish)) for finish in _CUT},
    "cut while thinking": (
        0.7,
        _without_answer(TRUNCATED, {"content": "<think>A? yes,"}, "length"),
    ),
    "cut while reasoning": (
        0.7,
        _without_answer(TRUNCATED, {"content": None, "reasoning_content": "A? yes,"}, "length"),
    ),
    "cut after thinking": (0.5, _answered(_SHAPES["think tag"], "length", means=TRUNCATED)),
    "cut after reasoning": (0.5, _answered(_SHAPES["reasoning"], "length", means=TRUNCATED)),
    "cut behind an answer": (0.7, _reasoned),
    "cut, nothing": (
        0.4,
        _without_answer(f"{TRUNCATED} {_ANYHOW}", {"content": ""}, "length"),
    ),
    **{
        f"blocked {finish}": (0.5, _without_answer(f"{REFUSED}", {"content": None}, finish))
        for finish in _BLOCKED
    },
    **{
        f"blocked {finish}, half": (0.5, _answered(_half, finish, means=f"{REFUSED}"))
        for finish in _BLOCKED
    },
    "refusal field": (
        1.0,
        _without_answer(REFUSED, {"content": None, "refusal": "I cannot help with that."}),
    ),
    "refusal in words": (
        0.7,
        _without_answer(REFUSED, {"content": "I'm sorry, but I can't help with that."}),
    ),
    "null": (0.7, _without_answer(_ANYHOW, {"content": None})),
    "no content": (0.4, _without_answer(_ANYHOW, {})),
    "empty": (0.7, _without_answer(_ANYHOW, {"content": ""})),
    "blank": (0.4, _without_answer(_ANYHOW, {"content": " \n"})),
    "empty list": (0.4, _without_answer(_ANYHOW, {"content": []})),
    "tool call": (
        0.4,
        _without_answer(_ANYHOW, {"content": None, "tool_calls": [{"id": "1"}]}, "tool_calls"),
    ),
    "all reasoning": (
        1.0,
        _answered(lambda t: {"content": None, "reasoning_content": t}, means=f"{FAILED} {AGAIN}"),
    ),
    "all reasoning, empty": (
        1.0,
        _answered(lambda t: {"content": "", "reasoning": f"\n\n{t}"}, means=f"{FAILED} {AGAIN}"),
    ),
    "a number": (0.3, _without_answer(f"{FAILED} {AGAIN}", {"content": 7})),
    "half a character": (1.0, _garbled),
}
"""What may come from a model in place of a plain answer."""


def _verdict(form: str, means: str = "own") -> Maker:
    """Return a maker of a verdict in words.

    `#` stands for the points, `~` for the others, `@` and `%` for what they say of the answer.
    """

    def make(rng: random.Random, said: Said) -> Reply:
        text = _filled(form, said)
        return _answered(lambda _: {"content": text}, means=means)(rng, said)

    return make


def _filled(form: str, said: Said) -> str:
    relations = ("same", "opposite") if said.points else ("opposite", "same")
    error = _ERROR if (said.points or 0) <= _SERIOUS else _ERROR.replace('"urgent"', '"soon"')
    errors = "" if said.points == said.most else f"{error}, {error}"
    words = (errors, said.points, 0 if said.points else 1, *relations)
    for mark, word in zip("$#~@%", words, strict=True):
        form = form.replace(mark, str(word))
    return form


def _cut_verdict(rng: random.Random, said: Said) -> Reply:
    """Cut a verdict anywhere, which its server does not tell."""
    text = _filled(rng.choice((_WITH_RELATION, _WITH_FINDINGS, _PLAIN_VERDICT)), said)
    text = text[: rng.randrange(len(text))]
    return _answered(lambda _: {"content": text}, means=UNREADABLE)(rng, said)


_SERIOUS = 2
"""The most points of a report with an urgent finding that is missing."""
_MAYBE = f"own {UNREADABLE}"
_PLAIN_VERDICT = '{"score": #}'
_WITH_RELATION = (
    r'{"reason": "It claims \"score\": ~, and {that} is all.", "relation": "@", "score": #}'
)
_ERROR = '{"finding": "mass", "site": "", "side": "left", "certainty": "sure", "urgency": "urgent"}'
_WITH_FINDINGS = '{"reason": "", "missing": [$], "contradicted": [], "invented": [], "score": #}'
"""With errors for `$`, but not where the score says that there is none."""

VERDICTS: Makers = {
    "verdict": (10.0, _verdict(_PLAIN_VERDICT)),
    "verdict with relation": (6.0, _verdict(_WITH_RELATION)),
    "verdict with findings": (4.0, _verdict(_WITH_FINDINGS)),
    "verdict with both": (0.5, _verdict('{"relation": "%", "score": #}', _MAYBE)),
    "verdict, fenced": (2.0, _verdict('```json\n{"score": #}\n```')),
    "verdict, spaced": (1.0, _verdict('\n{ "score" : # }\n')),
    "verdict refused": (1.0, _verdict('{"score": "refused"}', REFUSED)),
    "verdict after thinking": (2.0, _verdict('<think>Perhaps {"score": ~}?</think>{"score": #}')),
    "verdict beside reasoning": (1.0, _answered(
        lambda text: {"content": text, "reasoning_content": "Perhaps."})),
    "verdict in parts": (1.0, _answered(_SHAPES["one text part"])),
    "verdict, finish null": (0.5, _answered(_plain, None)),
    "verdict, dated id": (0.5, _answered(_plain, model=f"{ASKED}-20260806")),
    "verdict after words": (1.0, _verdict(
        'The two differ in nothing that matters. {"score": #}', _MAYBE)),
    "verdict 1.0": (0.5, _verdict('{"score": #.0}', _MAYBE)),
    "verdict in quotes": (0.5, _verdict('{"score": "#"}', _MAYBE)),
    "verdict Score": (0.5, _verdict('{"Score": #}', _MAYBE)),
    "verdict with braces": (0.5, _verdict('{"score": #, "reason": "set {a, b} it is"}', _MAYBE)),
    "verdict with comma": (0.3, _verdict('{"score": #,}', _MAYBE)),
}  # fmt: skip
"""A judge that says what it thinks."""

JUDGE: Makers = {
    **{name: (0.5 * weight, make) for name, (weight, make) in _PASSING.items()},
    "judge: 400": (0.3, _error(400, _refusal("Bad request"), FAILED)),
    "judge: too long": (0.3, _error(400, _TOO_LONG[0][2], FAILED)),
    "judge: no schema": (0.3, _error(400, _refusal(
        "This response_format type is unavailable now"), f"{UNSTRUCTURED} {FAILED} {STOP}")),
    **{
        f"judge cut {finish}": (1.0, _answered(_plain, finish, means=UNREADABLE))
        for finish in _CUT
    },
    "judge cut in words": (2.0, _answered(
        lambda text: {"content": f'I shall answer either {{"score": 1}} or {text}'},
        "length", means=UNREADABLE)),
    "judge cut while thinking": (1.0, _answered(
        lambda text: {"content": f"<think>Tentative {text}, but"}, "length", means=UNREADABLE)),
    **{
        f"judge blocked {finish}": (
            0.4,
            _answered(_plain, finish, means=f"{UNREADABLE} {FAILED} {AGAIN}"),
        )
        for finish in _BLOCKED
    },
    **{
        f"judge: {form}": (0.6, _verdict(form, UNREADABLE))
        for form in (
            "", "I cannot say.", "Score: #",
            '{"reason": "", "missing": [{"score": ~}], "score": #}',
            '{"reason": "so {"score": ~}", "relation": "@", "score": #}',
            '{"score": #, "relation": "@", "score": ~}',
            '{"score": null}', '{"score": true}', '{"score": 7}',
            '{"score": -1}', "[]", '{"points": #}',
            'Return {"score": 1} when it matches and {"score": 0} when it does not.',
            'Reply with one line of JSON and nothing else: {"score": 1} or {"score": 0}',
            '{"score": 1} or {"score": 0}? I cannot decide.',
            '{"score": #}\n{"score": ~}',
            '{"score": #}\n\nNote: {"score": ~} would apply if the side were wrong.',
            '{"score": #}. If it had said left, I would give {"score": ~}.',
            'I would not give {"score": #} here.',
            'The previous grader wrote {"score": #}; I have not decided.',
            '<think>perhaps {"score": #}',
            '[THINK]It looks so, {"score": #}. But wait',
            '<THINK>x {"score": #}',
            '◁think▷ tentative {"score": #} however',
            '<|channel|>analysis<|message|>First guess {"score": #}. Hmm, but',
        )
    },
    **{
        f"judge: {form}": (0.4, _verdict(form, _MAYBE))
        for form in (
            '{"analysis": {"score": ~}, "score": #}', '{"score": #, "sub": [{"score": ~}]}',
        )
    },
    "judge cut anywhere": (3.0, _cut_verdict),
    "judge: null": (0.6, _without_answer(f"{UNREADABLE} {FAILED} {AGAIN}", {"content": None})),
    "judge: refusal": (0.6, _without_answer(
        f"{UNREADABLE} {FAILED} {AGAIN}", {"content": None, "refusal": "I cannot."})),
    "judge: all reasoning": (0.6, _answered(
        lambda text: {"content": None, "reasoning_content": text},
        means=f"{UNREADABLE} {FAILED} {AGAIN}")),
}  # fmt: skip
"""What may come from a judge in place of a verdict."""


def draw(makers: Makers, said: Said, rng: random.Random) -> Reply:
    """Draw a maker by weight, and return its reply, named."""
    return made(_drawn(makers, rng), makers, said, rng)


def made(name: str, makers: Makers, said: Said, rng: random.Random) -> Reply:
    """Return the reply of this name."""
    reply = makers[name][1](rng, said)
    delay_s = reply.delay_s if reply.delay_s > 1 else rng.choice((0.01, 0.1, 0.4, 2.0))
    return replace(reply, name=name, delay_s=delay_s)


_SUMS: dict[int, tuple[list[str], list[float]]] = {}


def _drawn(makers: Makers, rng: random.Random) -> str:
    if id(makers) not in _SUMS:
        _SUMS[id(makers)] = [*makers], [*accumulate(weight for weight, _ in makers.values())]
    names, up_to = _SUMS[id(makers)]
    return rng.choices(names, cum_weights=up_to)[0]
