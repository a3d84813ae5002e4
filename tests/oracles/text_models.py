"""Small random language models that know no images, with the phantom's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medix_eval.models.torch_cpu import declare_missing_operators
from medix_eval.phantom.dataset import model_folder


def plain_tokenizer() -> Any:
    """Return the phantom's tokenizer, whose chat template is the message alone."""
    declare_missing_operators()
    from transformers import AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    tokenizer.chat_template = "{{ messages[0]['content'] }}\n"
    return tokenizer


def write_text_model(folder: Path, tokenizer: Any, **settings: Any) -> Path:
    """Write a random Qwen3 of one layer; it is the same at every call."""
    declare_missing_operators()
    import torch  # noqa: PLC0415
    from transformers import Qwen3Config, Qwen3ForCausalLM  # noqa: PLC0415

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
