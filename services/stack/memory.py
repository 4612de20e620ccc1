"""How much memory the models need, known before anything is downloaded or started.

The weights (from their safetensors metadata) and the KV cache (kv_cache.py) are exact. Runtime, activations
and CUDA graphs are estimated from vLLM's published figures; docs/gpu-sizing.md has the sources.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.stack import kv_cache, models
from services.stack.data_types import size_of
from services.stack.failure import Failure
from services.stack.kv_cache import Cache, Platform
from services.stack.models import Model
from services.stack.settings import Settings

GIB = 2**30
# On the GPU: CUDA context, NCCL and cuBLAS. On the CPU: an engine's three processes.
RUNTIME = {"cuda": int(0.75 * GIB), "cpu": int(2.5e9)}
GRAPHS = int(1.25 * GIB)
# vLLM's default for max-num-batched-tokens, on GPUs with at least 70 GiB and on others.
_BATCHED_LARGE, _BATCHED = 8192, 2048
_DEFAULT_UTILIZATION = 0.92
# What a suggested split leaves free: on a GPU for fragmentation, on a CPU for everything else that runs.
_MARGIN = {"cuda": 0.04, "cpu": 0.5}
_STEP = GIB // 4
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)")


@dataclass(frozen=True)
class EngineMemory:
    """What one engine needs on each of its GPUs, in bytes, and how much context it offers for that."""

    alias: str
    model: str
    weights: int
    activations: int
    graphs: int
    runtime: int
    kv_cache: int
    cache: Cache
    slots: int
    utilization: float
    offloaded: int = 0  # of the KV cache, in the machine's memory

    @property
    def fixed(self) -> int:
        """Everything but the KV cache."""
        return self.weights + self.activations + self.graphs + self.runtime

    @property
    def total(self) -> int:
        return self.fixed + self.kv_cache

    @property
    def window(self) -> int:
        """The longest context, in tokens."""
        return self.cache.context

    @property
    def tokens(self) -> int:
        """What vLLM reports as `GPU KV cache size`."""
        return self.cache.tokens(self.kv_cache)

    @property
    def contexts(self) -> float:
        """How many requests with the longest context fit into the KV cache."""
        return self.cache.contexts(self.kv_cache)


@dataclass(frozen=True)
class Split:
    """A suggested KV cache for one engine, in bytes, and the gpu-memory-utilization that goes with it."""

    kv_cache: int
    utilization: float


class Plan:
    """The engines in `memory` bytes of a GPU, or of the machine for the CPU profile."""

    def __init__(self, kind: Platform, memory: int, engines: Sequence[EngineMemory]) -> None:
        self.kind = kind
        self.memory = memory
        self.engines = engines

    @property
    def used(self) -> int:
        return sum(engine.total for engine in self.engines)

    def problems(self) -> list[str]:
        """Why the engines would not start, or would run out of memory; empty when all fit."""
        found = []
        for engine in self.engines:
            if engine.contexts < 1:
                found.append(
                    f"the KV cache of {engine.alias} holds {engine.tokens:,} tokens, less than one context "
                    f"of {engine.window:,}; raise kv-cache-memory-bytes or lower max-model-len"
                )
            elif (states := engine.cache.states(engine.kv_cache)) < engine.slots:
                found.append(
                    f"the KV cache of {engine.alias} holds the states of {int(states)} requests, fewer than "
                    f"its {engine.slots} slots; raise kv-cache-memory-bytes or lower max-num-seqs"
                )
        if self.used > self.memory:
            found.append(
                f"the models need {gib(self.used)}, {gib(self.used - self.memory)} more than there is; "
                "lower kv-cache-memory-bytes, or choose smaller models"
            )
        elif self.kind == "cuda":
            for engine in self.engines:
                others = self.used - engine.total
                # vLLM's request_memory(): this much must be free at its start, however much it then uses.
                if others + engine.utilization * self.memory > self.memory:
                    found.append(
                        f"{engine.alias} does not start beside the other model: vLLM requires the share "
                        f"gpu-memory-utilization {engine.utilization:g} of the memory to be free; set it to "
                        f"{_floor(1 - others / self.memory):g} or less"
                    )
        return found

    def suggestion(self) -> dict[str, Split]:
        """The largest KV caches that fit, in proportion to what full slots with full contexts need."""
        free = int(self.memory * (1 - _MARGIN[self.kind])) - sum(engine.fixed for engine in self.engines)
        wanted = {e.alias: e.cache.bytes_for(e.slots) for e in self.engines}
        share = max(0, free) / max(1, sum(wanted.values()))
        sizes = {
            alias: (math.ceil(size / _STEP) if share > 1 else math.floor(size * share / _STEP)) * _STEP
            for alias, size in wanted.items()
        }
        return {
            engine.alias: Split(
                sizes[engine.alias],
                _floor((engine.fixed + sizes[engine.alias]) / self.memory + 0.01),
            )
            for engine in self.engines
        }


def plan(settings: Settings, memory: int) -> Plan:
    """The plan for one engine of each kind in the settings in `memory` bytes.

    Raises:
        Failure: a model, or a value in the profile, is not known.
    """
    kind: Platform = "cpu" if settings.engine == "cpu" else "cuda"
    engines = []
    for name in settings.kinds:
        values = settings.values(name)
        model = models.find(values["model"], values.get("revision"))
        try:
            engines.append(engine_memory(name, values, model, kind, memory))
        except (KeyError, ValueError, TypeError) as error:
            where = f"{name}.yaml of {settings.profile.name}"
            raise Failure(f"{where} cannot be planned for: {error}.") from None
    return Plan(kind, memory, engines)


def engine_memory(
    alias: str, values: Mapping[str, Any], model: Model, kind: Platform, memory: int
) -> EngineMemory:
    """What an engine needs that serves `model` with `values`, the content of its configuration file.

    Raises:
        KeyError, ValueError, TypeError: a value is missing or not known.
    """
    config = models.text_config(model)
    # Each GPU holds a part of every layer, each stage of the pipeline some of the layers.
    parts, stages = values.get("tensor-parallel-size", 1), values.get("pipeline-parallel-size", 1)
    dtype = values.get("dtype", "auto")
    if dtype == "auto":
        dtype = config.get("torch_dtype") or config.get("dtype") or "bfloat16"
    layers = kv_cache.layers_of(config, values, dtype, kind, parts)
    weights = _weights(model, size_of(dtype), values)
    if name := kv_cache.speculative(values).get("model"):
        draft = models.find(name, kv_cache.speculative(values).get("revision"))
        layers += kv_cache.layers_of(
            models.text_config(draft), {**values, "speculative-config": None}, dtype, parts
        )
        weights += _weights(draft, size_of(dtype), values)
    weights //= parts * stages
    slots = values["max-num-seqs"]
    default = _BATCHED_LARGE if kind == "cuda" and memory >= 70 * GIB else _BATCHED
    batched = values.get("max-num-batched-tokens", default)
    activations = _activations(config, batched, slots)
    graphs = 0 if kind == "cpu" or values.get("enforce-eager") else GRAPHS
    utilization = float(values.get("gpu-memory-utilization", _DEFAULT_UTILIZATION))
    fixed = weights + activations + graphs + RUNTIME[kind]
    asked = values.get("kv-cache-memory-bytes")
    kept = int(utilization * memory) - fixed if asked is None else parse_size(asked)
    cache = kv_cache.cache(layers, values, kind, batched, stages)
    return EngineMemory(
        alias=alias,
        model=model.name,
        weights=weights,
        activations=activations,
        graphs=graphs,
        runtime=RUNTIME[kind],
        kv_cache=kept if cache.blocks else 0,
        cache=cache,
        slots=slots,
        utilization=utilization,
        offloaded=int(values.get("kv-offloading-size", 0) * GIB),
    )


def _weights(model: Model, width: int, values: Mapping[str, Any]) -> int:
    """Bytes of what vLLM loads: without MTP heads and an image encoder that are not used, if known."""
    parameters = Counter(model.parameters)
    if kv_cache.speculative(values).get("method") == "mtp":
        parameters.update(model.optional.get("mtp", {}))
    if not values.get("language-model-only"):
        parameters.update(model.optional.get("vision", {}))
    # vLLM converts a plain model to `dtype`, and loads a quantized one as it is.
    plain = "quantization_config" not in model.config and {"F32", "F16", "BF16"} >= set(parameters)
    return sum(count * (width if plain else size_of(kind)) for kind, count in parameters.items())


def _activations(config: Mapping[str, Any], batched: int, slots: int) -> int:
    """Peak of one step: the widest layer for every token in the batch, and sampling for every slot.

    Fitted to vLLM's published figures: within 5 % of them, or above.
    """
    hidden = config["hidden_size"]
    chosen = config.get("num_experts_per_tok") or config.get("top_k_experts")
    if chosen and config.get("moe_intermediate_size"):
        wide = chosen * (config["moe_intermediate_size"] + hidden)
    else:
        wide = config["intermediate_size"]
    return int(batched * (8 * hidden + 3 * wide) * 2 + slots * config["vocab_size"] * 20)


def parse_size(value: str | int) -> int:
    """The bytes of a size as vLLM writes it: 12G is 12 x 2^30, 12g is 12 x 10^9.

    Raises:
        ValueError: it is not a size.
    """
    found = _SIZE.fullmatch(str(value).strip())
    if not found:
        raise ValueError(f"{value} is not a size such as 12G")
    number, unit = found.groups()
    power = " kmgt".index(unit.lower() or " ")
    return int(float(number) * (1024 if unit.isupper() else 1000) ** power)


def gib(size: float) -> str:
    """`size` bytes in words."""
    return f"{size / GIB:.1f} GiB"


def _floor(share: float) -> float:
    return math.floor(share * 100) / 100
