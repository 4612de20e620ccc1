"""LiteLLM's configuration: config/litellm.yaml, with a pass-through endpoint for every engine."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from router.engines import Replica


def endpoint(replica: Replica) -> str:
    """The path at which LiteLLM passes requests through to an engine."""
    return f"/to/{replica.alias}/{replica.number}"


@contextmanager
def written(template: Path, replicas: Iterable[Replica]) -> Iterator[Path]:
    """The configuration as a file, which is gone afterwards. It holds no secrets.

    The one endpoint in `template` says how each engine's is; LiteLLM takes a fixed list only.
    """
    config = yaml.safe_load(template.read_text())
    general = config["general_settings"]
    (common,) = general["pass_through_endpoints"]
    general["pass_through_endpoints"] = [
        {**common, "path": endpoint(replica), "target": replica.url} for replica in replicas
    ]
    with tempfile.NamedTemporaryFile("w", prefix="duoserve-litellm-", suffix=".yaml") as file:
        yaml.safe_dump(config, file)
        file.flush()
        yield Path(file.name)
