"""How much memory the models need, known before anything is downloaded or started.

The weights (from their safetensors metadata) and the KV cache are exact. Runtime, activations and CUDA graphs
are estimated from vLLM's published figures; docs/gpu-sizing.md has the sources.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from services.stack import models
from services.stack.failure import Failure
from services.stack.models import Model
from services.stack.settings import Settings

Kind = Literal["cpu", "cuda"]
GIB = 2**30
BLOCK = 16  # tokens in a block of the KV cache; vLLM allocates whole blocks
# Bytes of one parameter or cached value by the name of its type, as safetensors and vLLM spell it.
_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32", "float32", "float"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16", "float16", "half", "bfloat16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 1),
    **dict.fromkeys(("fp8", "fp8_e4m3", "fp8_e5m2"), 1),
}
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
    kv_per_token: int
    slots: int
    window: int
    utilization: float

    @property
    def fixed(self) -> int:
        """Everything but the KV cache."""
        return self.weights + self.activations + self.graphs + self.runtime

    @property
    def total(self) -> int:
        return self.fixed + self.kv_cache

    @property
    def tokens(self) -> int:
        """What vLLM reports as `GPU KV cache size`."""
        return max(0, self.kv_cache // (self.kv_per_token * BLOCK)) * BLOCK

    @property
    def contexts(self) -> float:
        """How many requests with the longest context fit into the KV cache."""
        return self.tokens / self.window


@dataclass(frozen=True)
class Split:
    """A suggested KV cache for one engine, in bytes, and the gpu-memory-utilization that goes with it."""

    kv_cache: int
    utilization: float


class Plan:
    """The engines in `memory` bytes of a GPU, or of the machine for the CPU profile."""

    def __init__(self, kind: Kind, memory: int, engines: Sequence[EngineMemory]) -> None:
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
            if engine.tokens < engine.window:
                found.append(
                    f"the KV cache of {engine.alias} holds {engine.tokens:,} tokens, less than one context "
                    f"of {engine.window:,}; raise kv-cache-memory-bytes or lower max-model-len"
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
        wanted = {e.alias: e.slots * e.window * e.kv_per_token for e in self.engines}
        share = max(0, free) / sum(wanted.values())
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
    kind: Kind = "cpu" if settings.engine == "cpu" else "cuda"
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
    alias: str, values: Mapping[str, Any], model: Model, kind: Kind, memory: int
) -> EngineMemory:
    """What an engine needs that serves `model` with `values`, the content of its configuration file.

    Raises:
        KeyError, ValueError, TypeError: a value is missing or not known.
    """
    config = model.config.get("text_config", model.config)
    # Each GPU holds a part of every layer, each stage of the pipeline some of the layers.
    parts, stages = values.get("tensor-parallel-size", 1), values.get("pipeline-parallel-size", 1)
    dtype = values.get("dtype", "auto")
    if dtype == "auto":
        dtype = config.get("torch_dtype") or config.get("dtype") or "bfloat16"
    weights = _weights(model, _size_of(dtype)) // (parts * stages)
    slots, window = values["max-num-seqs"], values["max-model-len"]
    default = _BATCHED_LARGE if kind == "cuda" and memory >= 70 * GIB else _BATCHED
    activations = _activations(config, values.get("max-num-batched-tokens", default), slots)
    graphs = 0 if kind == "cpu" or values.get("enforce-eager") else GRAPHS
    utilization = float(values.get("gpu-memory-utilization", _DEFAULT_UTILIZATION))
    fixed = weights + activations + graphs + RUNTIME[kind]
    asked = values.get("kv-cache-memory-bytes")
    return EngineMemory(
        alias=alias,
        model=model.name,
        weights=weights,
        activations=activations,
        graphs=graphs,
        runtime=RUNTIME[kind],
        kv_cache=int(utilization * memory) - fixed if asked is None else parse_size(asked),
        kv_per_token=_kv_per_token(config, values.get("kv-cache-dtype", "auto"), dtype, parts) // stages,
        slots=slots,
        window=window,
        utilization=utilization,
    )


def _weights(model: Model, width: int) -> int:
    # vLLM converts a plain model to `dtype`, and loads a quantized one as it is.
    plain = "quantization_config" not in model.config and {"F32", "F16", "BF16"} >= set(model.parameters)
    return sum(count * (width if plain else _size_of(kind)) for kind, count in model.parameters.items())


def _kv_per_token(config: Mapping[str, Any], cache_dtype: str, dtype: str, parts: int) -> int:
    """Bytes of one token's keys and values in all layers, on one of `parts` GPUs that share the heads.

    An upper bound: layers with a sliding window are counted in full, although their cache stops growing.

    Raises:
        ValueError: the model has another kind of attention, which caches something else.
    """
    kinds = set(config.get("layer_types") or ())
    if kinds - {"full_attention", "sliding_attention"} or "kv_lora_rank" in config or "ssm_cfg" in config:
        raise ValueError("the size of its kind of attention cache is not known here")
    heads: int = config.get("num_key_value_heads") or config["num_attention_heads"]
    head: int = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    layers: int = config["num_hidden_layers"]
    width = _size_of(dtype if cache_dtype == "auto" else cache_dtype)
    return 2 * layers * max(1, heads // parts) * head * width


def _activations(config: Mapping[str, Any], batched: int, slots: int) -> int:
    """Peak of one step: the widest layer for every token in the batch, and sampling for every slot.

    Fitted to vLLM's published figures: within 5 % of them, or above.
    """
    hidden = config["hidden_size"]
    if "moe_intermediate_size" in config:
        wide = config["num_experts_per_tok"] * (config["moe_intermediate_size"] + hidden)
    else:
        wide = config["intermediate_size"]
    return int(batched * (8 * hidden + 3 * wide) * 2 + slots * config["vocab_size"] * 20)


def _size_of(kind: str) -> int:
    try:
        return _BYTES[kind]
    except KeyError:
        raise ValueError(f"the size of the type {kind} is not known here") from None


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
