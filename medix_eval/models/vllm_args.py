"""The arguments that a user passes on to vLLM: which can affect a score, and which cannot."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass

from medix_eval.errors import ConfigError
from medix_eval.storage.digests import marked_name, without_folders

_SHORT = {
    "tp": "tensor-parallel-size",
    "pp": "pipeline-parallel-size",
    "dp": "data-parallel-size",
    "q": "quantization",
}
_OURS = {
    "model": "--model or --judge",
    "served-model-name": "nothing: medix-eval identifies its own server by it",
    "host": "nothing: the server listens on this machine only",
    "revision": "NAME@REV",
    "api-key": "nothing: the server listens on this machine only",
    "hf-token": "HF_TOKEN in the environment: everybody sees a command line",
}
_PLACEMENT = frozenset({
    "all2all-backend", "api-server-count", "block-size", "cpu-offload-gb", "data-parallel-size",
    "disable-log-stats", "distributed-executor-backend", "enable-expert-parallel",
    "gpu-memory-utilization", "kv-cache-memory-bytes", "load-format", "max-cpu-loras",
    "max-num-batched-tokens", "max-num-seqs", "max-parallel-loading-workers", "mm-encoder-tp-mode",
    "mm-processor-cache-gb", "pipeline-parallel-size", "port", "safetensors-load-strategy",
    "swap-space", "tensor-parallel-size", "uvicorn-log-level",
})  # fmt: skip
"""They say where and how fast the work is done. All others are in the digest."""
_PARALLEL = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMArgs:
    """Arguments for vLLM, as given and taken apart."""

    words: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    """Each option by its long name without dashes, with its values as one text."""

    def get(self, name: str) -> str | None:
        """Return the value given last, as vLLM would take it."""
        return dict(self.options).get(name)

    @property
    def moving_a_score(self) -> dict[str, str]:
        """What belongs into the digest."""
        return {
            name: without_folders(value, marked_name)
            for name, value in self.options
            if name not in _PLACEMENT
        }

    @property
    def num_gpus(self) -> int:
        """How many GPUs the server wants."""
        return math.prod(self._number(name) or 1 for name in _PARALLEL)

    @property
    def port(self) -> int | None:
        """The port asked for, if any."""
        return self._number("port")

    def _number(self, name: str) -> int | None:
        value = self.get(name)
        if value is None:
            return None
        if not value.isdecimal() or int(value) < 1:
            raise ConfigError(f"--{name} {value!r} is not a whole number above 0")
        return int(value)


def parse_vllm_args(text: str, *, flag: str) -> VLLMArgs:
    """Parse the value of `--vllm-args`. Raises `ConfigError`.

    >>> parse_vllm_args("-tp 2 --max_num_seqs=8 --quantization fp8", flag="--vllm-args").options
    (('tensor-parallel-size', '2'), ('max-num-seqs', '8'), ('quantization', 'fp8'))
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{flag}: {error}", hint="close every quote") from error
    options: list[tuple[str, str]] = []
    for word in words:
        if word.startswith("-") and not _is_number(word):
            name, _, value = word.partition("=")
            name = name.lstrip("-")
            plain = name.partition(".")[0].replace("_", "-")
            if plain in _OURS:
                raise ConfigError(f"{flag}: --{plain} is reserved", hint=f"instead: {_OURS[plain]}")
            options.append((_SHORT.get(name, name.replace("_", "-")), value))
        elif options:
            name, value = options[-1]
            options[-1] = (name, f"{value} {word}".strip())
        else:
            raise ConfigError(
                f"{flag} begins with {word!r}, not with an option",
                hint=f'such as {flag} "--tensor-parallel-size 2"',
            )
    args = VLLMArgs(words=tuple(words), options=tuple(options))
    _ = args.num_gpus, args.port  # fail now if not a number
    return args


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
