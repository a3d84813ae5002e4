# ruff: noqa: E501 (bodies stand as they are sent)
"""What servers are documented, or were seen, to answer; and what that means for a sample.

Bodies are as vendors' references, SDKs and public issues show them, in our own words where they
say anything about a patient.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripted_servers import Serve

from medix_eval.errors import (
    EndpointFault,
    MedixError,
    NoText,
    OtherModel,
    Overloaded,
    ReplyUnusable,
    RequestFailed,
    RequestRefused,
    RequestRejected,
    ServerError,
)
from medix_eval.models import requests
from medix_eval.models.chat import Completion, Prompt, Sampling
from medix_eval.models.openai_server import OpenAIServer
from medix_eval.models.requests import accepted, ending_of, refusal_kind
from medix_eval.storage.bundled import read_mapping
from medix_eval.testing import Reply


def openai(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


PYDANTIC = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted",
            "input": "the prompt is too long to repeat"}  # fmt: skip
GEMINI_UNKNOWN = 'Invalid JSON payload received. Unknown name "top_p": Cannot find field.'
MULTIMODAL = "m is not a multimodal model"
TOKENS_PER_MINUTE = (
    "Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 9000, "
    "please reduce your message size and try again."
)

REFUSALS: list[tuple[str, int, Any, str]] = [
    # The sample itself: its length.
    ("OpenAI", 400, openai("Input tokens exceed the configured limit of 272000 tokens. Your messages "
     "resulted in 300000 tokens.", code="context_length_exceeded", param="messages"), "too_long"),
    ("OpenAI, max_tokens in words", 400, openai("This model's maximum context length is 8192 tokens. "
     "However, you requested 10242 tokens (8194 in the messages, 2048 in the completion)."), "too_long"),
    ("vLLM", 400, {"error": {"message": "'max_tokens' or 'max_completion_tokens' is too large: 2048. "
     "This model's maximum context length is 4096 tokens and your request has 3900 input tokens.",
     "type": "BadRequestError", "param": "max_tokens", "code": 400}}, "too_long"),
    ("vLLM's engine", 400, {"error": {"message": "The decoder prompt (length 5000) is longer than the "
     "maximum model length of 4096.", "type": "BadRequestError", "code": 400}}, "too_long"),
    ("SGLang, flat", 400, {"object": "error", "message": "Requested token count exceeds the model's "
     "maximum context length of 4096 tokens.", "type": "BadRequestError", "code": 400}, "too_long"),
    ("Anthropic", 400, {"type": "error", "error": {"type": "invalid_request_error",
     "message": "prompt is too long: 210000 tokens > 200000 maximum"}}, "too_long"),
    ("Anthropic, with its limit", 400, openai("input length and `max_tokens` exceed context limit: "
     "199000 + 8192 > 200000, decrease input length or `max_tokens`"), "too_long"),
    ("llama.cpp", 400, {"error": {"code": 400, "type": "exceed_context_size_error", "message": "the "
     "request exceeds the available context size", "n_prompt_tokens": 9, "n_ctx": 8}}, "too_long"),
    ("llama.cpp, earlier", 500, {"error": {"code": 500, "type": "server_error",
     "message": "Context size has been exceeded."}}, "too_long"),
    ("Gemini", 400, [{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "The input token "
     "count (1200000) exceeds the maximum number of tokens allowed (1048576)."}}], "too_long"),
    ("Bedrock", 400, {"message": "Input is too long for requested model."}, "too_long"),
    ("Moonshot", 400, openai("Invalid request: Your request exceeded model token limit: 8192"),
     "too_long"),
    ("Together", 422, openai("Input validation error: `inputs` tokens + `max_new_tokens` must be <= "
     "8193. Given: 7000 `inputs` tokens and 2048 `max_new_tokens`"), "too_long"),
    ("LiteLLM", 400, openai("litellm.ContextWindowExceededError: too many", code="400"), "too_long"),
    ("a proxy", 413, "<html><h1>413 Request Entity Too Large</h1><hr>nginx</html>", "too_long"),
    # Its image.
    ("OpenAI", 400, openai("You uploaded an unsupported image. Please make sure your image is valid.",
     code="invalid_image_format"), "image"),
    ("vLLM", 400, {"error": {"message": "cannot identify image file <_io.BytesIO object>",
     "type": "BadRequestError", "code": 400}}, "image"),
    ("Anthropic", 400, {"type": "error", "error": {"type": "invalid_request_error", "message":
     "messages.0.content.0.image.source.base64.data: At least one of the image dimensions exceed max "
     "allowed size: 8000 pixels"}}, "image"),
    ("Anthropic", 400, openai("Could not process image"), "image"),
    ("Gemini", 400, [openai("Unable to process input image. Please retry.", code=400)], "image"),
    ("Alibaba", 400, openai("The image length and width do not meet the model restrictions. [height:5 "
     "or width:9 must be larger than 10] image is too small"), "image"),
    # A filter of its content.
    ("Azure", 400, {"error": {"message": "The response was filtered due to the prompt triggering "
     "Azure OpenAI's content management policy.", "code": "content_filter", "param": "prompt",
     "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, "content_filter"),
    ("OpenAI", 400, openai("Invalid prompt: your prompt was flagged as potentially violating our usage "
     "policy.", code="invalid_prompt"), "content_filter"),
    ("DeepSeek", 400, openai("Content Exists Risk"), "content_filter"),
    ("Alibaba", 400, openai("Input data may contain inappropriate content.",
     code="data_inspection_failed"), "content_filter"),
    ("OpenRouter", 403, {"error": {"code": 403, "message": "m requires moderation and your input was "
     "flagged", "metadata": {"reasons": ["violence"], "flagged_input": "..."}}}, "content_filter"),
    # A setting that every request has.
    ("OpenAI", 400, openai("Unsupported parameter: 'max_tokens' is not supported with this model. Use "
     "'max_completion_tokens' instead.", param="max_tokens", code="unsupported_parameter"), "stops"),
    ("OpenAI, a router", 400, openai("Unsupported value: 'temperature' does not support 0 with this "
     "model.", code="invalid_request_body"), "stops"),
    ("OpenAI, its limit", 400, openai("max_tokens is too large: 20000. This model supports at most "
     "16384 completion tokens.", param="max_tokens", code="invalid_value"), "stops"),
    ("Anthropic", 400, openai("temperature is deprecated for this model.", param=None), "stops"),
    ("Mistral", 422, {"object": "error", "message": {"detail": [PYDANTIC]}, "code": None}, "stops"),
    ("Mistral, bare", 422, {"detail": [PYDANTIC]}, "stops"),
    ("Mistral, as text", 422, {"object": "error", "code": "1000",
     "message": json.dumps({"detail": [PYDANTIC]})}, "stops"),
    ("Gemini", 400, [{"error": {"code": 400, "status": "INVALID_ARGUMENT",
     "message": GEMINI_UNKNOWN}}], "stops"),
    ("Groq", 400, openai("property 'seed' is unsupported"), "stops"),
    ("TGI", 422, {"error": "Input validation error: `temperature` must be strictly positive",
     "error_type": "validation"}, "stops"),
    # A key, a plan, money.
    ("Gemini", 400, [{"error": {"code": 400, "status": "INVALID_ARGUMENT",
     "message": "API key not valid. Please pass a valid API key."}}], "stops"),
    ("Anthropic", 400, openai("Your credit balance is too low to access the API."), "stops"),
    ("OpenAI", 429, openai("You exceeded your current quota, please check your plan and billing "
     "details.", type="insufficient_quota", code="insufficient_quota"), "stops"),
    ("DeepSeek", 402, openai("Insufficient Balance"), "stops"),
    ("OpenAI", 403, openai("Country, region, or territory not supported",
     code="unsupported_country_region_territory"), "stops"),
    ("OpenAI", 400, openai("Your organization must be verified to use the model `m`."), "stops"),
    # The model, its template, images as such.
    ("vLLM", 400, {"error": {"message": "As of transformers v4.44, default chat template is no longer "
     "allowed, so you must provide a chat template.", "code": 400}}, "stops"),
    ("vLLM", 400, {"error": {"message": MULTIMODAL, "type": "BadRequestError", "code": 400}}, "stops"),
    ("DeepSeek", 400, openai("Failed to deserialize the JSON body into the target type: messages[0]: "
     "unknown variant `image_url`, expected `text` at line 1 column 90"), "stops"),
    ("OpenRouter", 404, {"error": {"message": "No endpoints found that support image input",
     "code": 404}}, "stops"),
    ("Groq", 400, openai("messages[0].content must be a string: this model does not support images"),
     "stops"),
    ("OpenAI", 404, openai("The model `m` does not exist", code="model_not_found"), "stops"),
    ("vLLM", 400, {"error": {"message": "At most 0 image(s) may be provided in one prompt.",
     "code": 400}}, "stops"),
    ("a firewall", 403, "<html>Access denied: this request was blocked by the security rules</html>",
     "stops"),
    ("a firewall", 403, {"message": "Your IP address has been blocked due to abuse"}, "stops"),
    ("OpenAI", 403, openai("Your access was terminated due to violation of our usage policies."),
     "stops"),
    ("OpenAI", 400, openai("Your organization has been flagged for unusual activity."), "stops"),
    ("somebody", 400, openai("API key has been blocked due to abuse"), "stops"),
    ("LiteLLM", 400, openai("Budget has been exceeded! Current cost: 1.2"), "stops"),
    ("Gemini", 400, [openai("User location is not supported for the API use.")], "stops"),
    ("Zhipu", 429, {"error": {"code": "1113", "message": "您的账户已欠费"}}, "stops"),
    ("vLLM", 400, openai("Invalid image input: this model does not accept images"), "stops"),
    ("vLLM", 400, openai("Failed to process image: model m has no image processor"), "stops"),
    ("somebody", 400, openai("Cannot load image from data URL: only https URLs are allowed"), "stops"),
    # Words of a crash are no words about the sample.
    ("vLLM", 500, openai("CUDA error: no KV cache for the context window"), "passes"),
    ("vLLM", 503, openai("engine overloaded: prompt too long in queue"), "passes"),
    ("a gateway", 200, {"error": {"code": 500, "message": "trace: prompt is too long?"}}, "passes"),
    ("a gateway", 200, {"errors": [{"message": "upstream"}], "choices": []}, "passes"),
    ("SGLang", 200, {"object": "error", "message": "engine", "code": 500}, "passes"),
    ("a gateway", 200, {"choices": [{"message": {"content": "A", "error": {"code": 500}}}]}, "passes"),
    # What an error repeats of the prompt says nothing about it.
    ("somebody", 400, openai("cannot parse: 'A child with a temperature of 39, seed: 7'"), "refused"),
    ("somebody", 400, openai("cannot parse: 'beta receptors are blocked by propranolol'"), "refused"),
    ("somebody", 400, openai("cannot parse: 'which image aspect ratio has this scan'"), "refused"),
    # A judge can do without its schema, whatever the words.
    ("OpenAI", 400, openai("Unsupported parameter: 'response_format' is not supported with this "
     "model.", param="response_format", code="unsupported_parameter"), "refused"),
    ("Mistral", 422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "response_format",
     "json_schema"], "msg": "Extra inputs are not permitted"}]}, "refused"),
    ("Gemini", 400, [openai('Unknown name "response_format": Cannot find field.')], "refused"),
    ("somebody", 400, openai("json mode is not enabled for this model"), "refused"),
    # Not told: the sample has no answer, and no blame.
    ("vLLM, a second image", 400, {"error": {"message": "At most 1 image(s) may be provided in one "
     "prompt.", "code": 400}}, "refused"),
    ("somebody", 400, openai("something is odd about this"), "refused"),
    ("somebody", 422, "no", "refused"),
    ("a judge's server", 400, openai("This response_format type is unavailable now"), "refused"),
    # The moment.
    ("OpenAI", 429, openai("Rate limit reached for m", code="rate_limit_exceeded"), "passes"),
    ("Gemini", 429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded "
     "your current quota, please check your plan and billing details."}}], "passes"),
    ("Groq", 413, openai(TOKENS_PER_MINUTE, code="rate_limit_exceeded"), "passes"),
    ("Anthropic", 529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
     "passes"),
    ("vLLM", 500, {"error": {"message": "EngineCore encountered an issue.", "code": 500}}, "passes"),
    ("a proxy", 502, "<html>Bad gateway: blocked by policy</html>", "passes"),
    # The same with a status that says success.
    ("OpenRouter", 200, {"error": {"message": "Provider returned error", "code": 502}}, "passes"),
    ("OpenRouter", 200, {"error": {"message": "Rate limit exceeded", "code": 429}}, "passes"),
    ("OpenRouter, warming up", 200, {"id": "x", "choices": []}, "passes"),
    ("llama.cpp", 200, {"error": {"code": 400, "type": "exceed_context_size_error", "message": "the "
     "request exceeds the available context size"}}, "too_long"),
    ("a gateway", 200, {"choices": [{"message": {"content": "A"}, "error": {"code": 500}}]}, "passes"),
    ("a gateway", 200, {"error": "upstream timed out", "choices": [{"message": {"content": "A"}}]},
     "passes"),
]  # fmt: skip
MEANS: dict[str, type[MedixError]] = {
    "stops": ServerError,
    "passes": RequestFailed,
    "refused": RequestRefused,
}


@pytest.mark.parametrize(
    ("status", "body", "means"),
    [pytest.param(*row[1:], id=f"{row[0]}-{number}") for number, row in enumerate(REFUSALS)],
)
async def test_a_refusal_is_the_samples_the_servers_or_the_moments(
    serve: Serve, status: int, body: Any, means: str
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    server = serve(lambda _: Reply(status=status, body=text))
    prompt = Prompt(text=ASKED, schema={"type": "object"})

    kind: type[MedixError] = MEANS.get(means, RequestRejected)
    if means == "stops" and status in {401, 403, 404}:
        kind = EndpointFault  # which stops the run if it lasts
    with pytest.raises(kind) as caught:
        await asked(server.url, prompt)

    assert type(caught.value) is kind or (
        kind is RequestFailed and type(caught.value) is Overloaded
    )
    assert means == getattr(caught.value, "kind", means)


ASKED = """A child with a temperature of 39, seed: 7. Beta receptors are blocked by propranolol.
Which image aspect ratio has this scan?"""


def said(message: dict[str, Any], reason: Any = "stop", **more: Any) -> dict[str, Any]:
    return {"model": "scripted", "choices": [{"message": message, "finish_reason": reason}], **more}


THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "A?"}]}
ANSWERS: dict[str, tuple[dict[str, Any], str | None, str | None]] = {
    "text": (said({"content": "B"}), "B", "stop"),
    "no reason given": (said({"content": "B"}, None), "B", None),
    "Gemini's word for cut off": (said({"content": "B"}, "MAX_TOKENS"), "B", "length"),
    "Anthropic's": (said({"content": "B"}, "model_context_window_exceeded"), "B", "length"),
    "Mistral's": (said({"content": "B"}, "model_length"), "B", "length"),
    "xAI's": (said({"content": "B"}, "REASON_MAX_LEN"), "B", "length"),
    "cut while it thought": (said({"content": None}, "length"), None, "length"),
    "TGI's word for the end": (said({"content": "B"}, "eos_token"), "B", "stop"),
    "Gemini's filter": (said({"content": None}, "SAFETY"), None, "content_filter"),
    "Azure's filter, in the middle": (said({"content": "The"}, "content_filter"), "The", "content_filter"),
    "a refusal": (said({"content": None, "refusal": "I cannot."}), "I cannot.", "refusal"),
    "Anthropic's refusal": (said({"content": "No."}, "refusal"), "No.", "refusal"),
    "a refusal as a part": (
        said({"content": [{"type": "refusal", "refusal": "I cannot."}]}), "I cannot.", "refusal"),
    "parts": (said({"content": [{"type": "text", "text": "It is "}, {"type": "text", "text": "B"}]}),
              "It is B", "stop"),
    "Mistral's thinking": (said({"content": [THOUGHT, {"type": "text", "text": "B"}]}),
                           "<think>A?</think>B", "stop"),
    "DeepSeek's thinking": (said({"content": "B", "reasoning_content": "A?"}),
                            "<think>A?</think>B", "stop"),
    "vLLM's thinking": (said({"content": "B", "reasoning": "A?"}), "<think>A?</think>B", "stop"),
    "OpenRouter's thinking": (
        said({"content": "B", "reasoning_details": [{"type": "reasoning.text", "text": "A?"}]}),
        "<think>A?</think>B", "stop"),
    "cut thinking": (said({"content": None, "reasoning": "A?"}, "length"), "<think>A?</think>", "length"),
    "a dated release": (said({"content": "B"}, model="scripted-2024-08-06"), "B", "stop"),
    "a month": (said({"content": "B"}, model="scripted-2411"), "B", "stop"),
    "another case": (said({"content": "B"}, model="Scripted"), "B", "stop"),
    "no model": (said({"content": "B"}, model=None), "B", "stop"),
    "a word with blanks": (said({"content": "B"}, " length "), "B", "length"),
    "a reason in an object": (said({"content": "B"}, {"type": "length"}), "B", "length"),
    "a gateway's own word": (said({"content": "B"}, status="incomplete"), "B", "length"),
    "Gemini's thought": (
        said({"content": [{"text": "A?", "thought": True}, {"text": "B"}]}), "<think>A?</think>B", "stop"),
}  # fmt: skip
NONE: dict[str, tuple[dict[str, Any], type[MedixError]]] = {
    **{
        f"finish_reason {reason}": (said({"content": "A"}, reason), RequestFailed)
        for reason in ("error", "abort", "network_error", "failed", "cancelled", "CANCELLED",
                       "insufficient_system_resource", "OTHER", "MALFORMED_FUNCTION_CALL")
    },
    "a word that nobody knows": (said({"content": "A"}, "gave_up"), ReplyUnusable),
    "a call of a tool": (said({"content": None, "tool_calls": [{}]}, "tool_calls"), ReplyUnusable),
    "a reason in a list": (said({"content": "A"}, ["error"]), RequestFailed),
    "a reason that is a number": (said({"content": "A"}, 7), ReplyUnusable),
    "a status of failure": (said({"content": "A"}, status="failed"), RequestFailed),
    "calls of tools beside nothing": (said({"content": "", "tool_calls": [{}]}), NoText),
    "reasoning that is hidden": (
        said({"content": ""}, usage={"completion_tokens_details": {"reasoning_tokens": 500}}),
        ReplyUnusable),
    "nothing at all": (said({"content": None}), NoText),
    "all of it reasoning": (said({"content": None, "reasoning_content": "B"}), ReplyUnusable),
    "all but a blank": (said({"content": "\n", "reasoning": "\n\nB"}), ReplyUnusable),
    "all of it thinking": (said({"content": [THOUGHT]}), ReplyUnusable),
    "a number": (said({"content": 3}), NoText),
    "another model": (said({"content": "A"}, model="scripted-mini"), OtherModel),
    "another family": (said({"content": "A"}, model="script"), OtherModel),
    "a date of no calendar": (said({"content": "A"}, model="scripted-9999"), OtherModel),
}  # fmt: skip


@pytest.mark.parametrize(("reply", "text", "ending"), ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_is_read_wherever_a_server_puts_it(
    serve: Serve, reply: dict[str, Any], text: str | None, ending: str | None
) -> None:
    completion = await asked(serve(lambda _: Reply(body=json.dumps(reply))).url)

    assert (completion.text, completion.finish_reason) == (text, ending)
    named = reply["model"] if reply["model"] != "scripted" else None
    assert completion.served_model == named


@pytest.mark.parametrize(("reply", "error"), NONE.values(), ids=NONE)
async def test_what_is_no_answer_is_never_taken_for_one(
    serve: Serve, reply: dict[str, Any], error: type[MedixError]
) -> None:
    server = serve(lambda _: Reply(body=json.dumps(reply)))

    with pytest.raises(error) as caught:
        await asked(server.url)

    assert type(caught.value) is error


async def test_an_alias_is_taken_where_the_user_vouches_for_it(serve: Serve) -> None:
    server = serve(lambda _: Reply(body=json.dumps(said({"content": "B"}, model="other"))))
    source = OpenAIServer(model="scripted", base_url=server.url, aliases=("Other",))
    async with source.connect() as connected:
        completion = await connected.complete(Prompt(text="?"), Sampling(max_tokens=8))

    assert (completion.text, completion.served_model) == ("B", "other")
    assert source.identity()["aliases"] == ["Other"]


def test_no_vendor_uses_a_word_for_what_another_calls_otherwise() -> None:
    listed = read_mapping(Path(requests.__file__).with_name("vendors.yaml"), what="words")[
        "finish_reasons"
    ]
    words = [(word, end) for vendor in listed.values() for word, end in vendor.items()]

    assert len(dict(words)) == len(words)
    assert {end for _, end in words} == {"stop", "length", "content_filter", "refusal", "failed"}


@pytest.mark.parametrize("words", ["", "the image shows a left effusion", "please retry"])
def test_words_that_tell_nothing_have_no_kind(words: str) -> None:
    assert refusal_kind(words) == ""
    assert ending_of("") == "stop"


async def asked(url: str, prompt: Prompt | None = None) -> Completion:
    """Return the answer of a server, where it is one."""
    async with OpenAIServer(model="scripted", base_url=url).connect() as connected:
        return accepted(
            await connected.complete(prompt or Prompt(text="?"), Sampling(max_tokens=8))
        )
