"""Build the phantom's untrained Qwen3-VL from a configuration: nothing is downloaded.

The architecture, the processor and the token layout are those of Qwen3-VL; only the sizes are
tiny. Heads of 32 channels and one deepstack level keep the checkpoint loadable in vLLM.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from medix_eval.models.torch_cpu import declare_missing_operators
from medix_eval.phantom.dataset import SIDE

declare_missing_operators()

from transformers import (  # needs the operators
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
)

PATCH = 8
MERGE = 2
GRID = SIDE // PATCH
NUM_VISION_TOKENS = (GRID // MERGE) ** 2
START_OF_TURN, END_OF_TURN = "<|im_start|>", "<|im_end|>"
PADDING = "<|endoftext|>"

_CHANNELS = 64
_HEAD_CHANNELS = 32
_INITIAL_RANGE = 0.05
_CONTROL = (
    PADDING,
    START_OF_TURN,
    END_OF_TURN,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_MODALITIES = (
    "X_RAY MICROSCOPY CLINICAL_PHOTOGRAPHY CT_SCAN GRAPHICS ANGIOGRAPHY PET_SCAN ULTRASOUND"
    " MRI_SCAN FUNDUS_PHOTOGRAPHY OCT_SCAN ENDOSCOPY MAMMOGRAPHY FLUOROSCOPY OTHER SPECT"
)
_TAGS = (
    "<thinking>",
    "</thinking>",
    "<answer>",
    "</answer>",
    *(f"<{modality}>" for modality in _MODALITIES.split()),
)

_CHAT_TEMPLATE = """\
{%- macro render(content) -%}
{%- if content is string -%}
{{ content }}
{%- else -%}
{%- for part in content -%}
{%- if part['type'] in ('image', 'image_url') -%}
<|vision_start|><|image_pad|><|vision_end|>
{%- elif part['type'] == 'video' -%}
<|vision_start|><|video_pad|><|vision_end|>
{%- elif part['type'] == 'text' -%}
{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{{- render(message['content']) }}
{{- '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


def build_processor(texts: Iterable[str]) -> Qwen3VLProcessor:
    """Return the processor, its tokenizer's words learnt from these texts.

    The tokenizer works on bytes, so that any text can be encoded. The tags are ordinary tokens:
    a special one would vanish from a decoded completion.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=list(_CONTROL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in _TAGS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END_OF_TURN,
        pad_token=PADDING,
        padding_side="left",
        model_max_length=1024,
    )
    patches: dict[str, Any] = {
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE},
    }
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(**patches),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**patches),
        chat_template=_CHAT_TEMPLATE,
    )


def build_model(processor: Qwen3VLProcessor, *, seed: int) -> Qwen3VLForConditionalGeneration:
    """Return the untrained model for this processor's vocabulary."""
    tokenizer = processor.tokenizer
    token = tokenizer.convert_tokens_to_ids
    text = {
        "initializer_range": _INITIAL_RANGE,
        "vocab_size": len(tokenizer),
        "hidden_size": _CHANNELS,
        "intermediate_size": 2 * _CHANNELS,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": _HEAD_CHANNELS,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        },
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    vision = {
        "initializer_range": _INITIAL_RANGE,
        "depth": 2,
        "hidden_size": _CHANNELS,
        "intermediate_size": 2 * _CHANNELS,
        "num_heads": _CHANNELS // _HEAD_CHANNELS,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "out_hidden_size": _CHANNELS,
        "num_position_embeddings": GRID**2,
        "deepstack_visual_indexes": [0],
    }
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def save(model: Qwen3VLForConditionalGeneration, processor: Qwen3VLProcessor, *, to: Path) -> None:
    """Write a folder that `from_pretrained` takes."""
    model.save_pretrained(to)
    processor.save_pretrained(to)
