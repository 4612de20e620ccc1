"""Whether both models fit into a GPU's memory, known before anything is downloaded or started.

What is exact: the weights (from their safetensors metadata) and the KV cache. What is reserved beside them
- runtime, activations, CUDA graphs - is estimated from vLLM's published figures; docs/gpu-sizing.md has the
sources.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml
from rich.console import Console
from rich.table import Table

from services.stack import gpus, models
from services.stack.failure import Failure
from services.stack.models import Model
from services.stack.settings import ALIASES, Settings

Kind = Literal["cpu", "cuda"]
GIB = 2**30
# Tokens in a block of the KV cache: vLLM allocates whole ones.
BLOCK = 16
# Bytes of one parameter or cached value by its type's name, in safetensors' and in vLLM's spelling.
_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32", "float32", "float"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16", "float16", "half", "bfloat16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 1),
    **dict.fromkeys(("fp8", "fp8_e4m3", "fp8_e5m2"), 1),
}
# Beside weights, cache and activations: CUDA context, NCCL and cuBLAS; on the CPU the three processes.
RUNTIME = {"cuda": int(0.75 * GIB), "cpu": int(2.5e9)}
GRAPHS = int(1.25 * GIB)
# vLLM's default of max-num-batched-tokens, on a GPU of at least 70 GiB and on others.
_BATCHED_LARGE, _BATCHED = 8192, 2048
_DEFAULT_UTILIZATION = 0.92
# What a suggested split leaves free: on a GPU for fragmentation, on a CPU for all else that runs.
_MARGIN = {"cuda": 0.04, "cpu": 0.5}
_STEP = GIB // 4
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)")
_console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Engine:
    """What one engine needs on each of its GPUs, in bytes, and what it offers for that."""

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
        """All but the KV cache."""
        return self.weights + self.activations + self.graphs + self.runtime

    @property
    def total(self) -> int:
        """All of it."""
        return self.fixed + self.kv_cache

    @property
    def tokens(self) -> int:
        """What vLLM reports as its KV cache size."""
        return max(0, self.kv_cache // (self.kv_per_token * BLOCK)) * BLOCK

    @property
    def contexts(self) -> float:
        """How many requests of the longest context are cached at once."""
        return self.tokens / self.window


@dataclass(frozen=True)
class Split:
    """A better share of the memory for one engine."""

    kv_cache: int
    utilization: float


class Plan:
    """Both engines on one memory of `memory` bytes, that of a GPU or of the machine."""

    def __init__(self, kind: Kind, memory: int, engines: Sequence[Engine]) -> None:
        self.kind = kind
        self.memory = memory
        self.engines = engines

    @property
    def used(self) -> int:
        """What both engines need, in bytes."""
        return sum(engine.total for engine in self.engines)

    def problems(self) -> list[str]:
        """Why the engines would not start, or would run out of memory; empty when all fits."""
        found = []
        for engine in self.engines:
            if engine.tokens < engine.window:
                found.append(
                    f"the KV cache of {engine.alias} holds {engine.tokens:,} tokens, less than one context "
                    f"of {engine.window:,}; raise kv-cache-memory-bytes or lower max-model-len"
                )
        if self.used > self.memory:
            found.append(
                f"both models need {_gib(self.used)}, {_gib(self.used - self.memory)} more than there is; "
                "lower kv-cache-memory-bytes, or take smaller models"
            )
        elif self.kind == "cuda":
            for engine in self.engines:
                others = self.used - engine.total
                # vLLM's request_memory(): at its start so much must be free, whatever it takes then.
                if others + engine.utilization * self.memory > self.memory:
                    found.append(
                        f"{engine.alias} does not start beside the other model: vLLM wants its "
                        f"gpu-memory-utilization {engine.utilization:g} of the memory to be free; set it to "
                        f"{_floor(1 - others / self.memory):g} or less"
                    )
        return found

    def suggestion(self) -> dict[str, Split]:
        """The largest KV caches that fit, shared by what full slots with full contexts would need."""
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


def of(settings: Settings, memory: int) -> Plan:
    """The plan of a profile's two engines on `memory` bytes.

    Raises:
        Failure: a model or a value of the profile is not known.
    """
    kind: Kind = "cpu" if settings.engine == "cpu" else "cuda"
    engines = []
    for alias in ALIASES:
        path = settings.profile / f"{alias}.yaml"
        values = yaml.safe_load(path.read_text())
        model = models.find(values["model"], values.get("revision"))
        try:
            engines.append(_engine(alias, values, model, kind, memory))
        except (KeyError, ValueError, TypeError) as error:
            raise Failure(f"{path.name} of {path.parent.name} cannot be planned for: {error}.") from None
    return Plan(kind, memory, engines)


def _engine(alias: str, values: Mapping[str, Any], model: Model, kind: Kind, memory: int) -> Engine:
    config = model.config.get("text_config", model.config)
    # Each GPU holds a part of every layer, and each stage of the pipeline a part of the layers.
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
    return Engine(
        alias=alias,
        model=model.name,
        weights=weights,
        activations=activations,
        graphs=graphs,
        runtime=RUNTIME[kind],
        kv_cache=int(utilization * memory) - fixed if asked is None else size(asked),
        kv_per_token=_kv_per_token(config, values.get("kv-cache-dtype", "auto"), dtype, parts) // stages,
        slots=slots,
        window=window,
        utilization=utilization,
    )


def _weights(model: Model, width: int) -> int:
    # vLLM loads a plain model in its own type, and a quantised one as it is.
    plain = "quantization_config" not in model.config and {"F32", "F16", "BF16"} >= set(model.parameters)
    return sum(count * (width if plain else _size_of(kind)) for kind, count in model.parameters.items())


def _kv_per_token(config: Mapping[str, Any], cache_dtype: str, dtype: str, parts: int) -> int:
    """Bytes of one token's keys and values in all layers, on one of `parts` GPUs that share its heads.

    Layers with a sliding window count in full, though their cache stops growing: an upper bound.

    Raises:
        ValueError: the model's attention keeps something else.
    """
    kinds = set(config.get("layer_types") or ())
    if kinds - {"full_attention", "sliding_attention"} or "kv_lora_rank" in config or "ssm_cfg" in config:
        raise ValueError("its attention is of a kind whose cache is not known here")
    heads: int = config.get("num_key_value_heads") or config["num_attention_heads"]
    head: int = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    layers: int = config["num_hidden_layers"]
    width = _size_of(dtype if cache_dtype == "auto" else cache_dtype)
    return 2 * layers * max(1, heads // parts) * head * width


def _activations(config: Mapping[str, Any], batched: int, slots: int) -> int:
    """Peak of a step: the widest layer for every token of the batch, and sampling for every slot.

    Fitted to vLLM's published figures, which it exceeds or meets within 5 %.
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


def size(value: str | int) -> int:
    """Bytes of a size as vLLM writes it: 12G is 12 x 2^30, 12g is 12 x 10^9.

    Raises:
        ValueError: it is no size.
    """
    found = _SIZE.fullmatch(str(value).strip())
    if not found:
        raise ValueError(f"{value} is no size such as 12G")
    number, unit = found.groups()
    power = " kmgt".index(unit.lower() or " ")
    return int(float(number) * (1024 if unit.isupper() else 1000) ** power)


def memory_for(settings: Settings, vram: float | None) -> tuple[int, str]:
    """The memory to plan for in bytes, and its name: `vram` GiB, this machine's, or as the profile is named.

    Raises:
        Failure: none of them is known.
    """
    if vram is not None:
        return int(vram * GIB), f"{vram:g} GiB"
    if settings.engine == "cpu":
        return psutil.virtual_memory().total, "this machine's memory"
    if found := gpus.found():
        least = min(found, key=lambda gpu: gpu.total)
        return least.total, least.name
    if named := re.search(r"(\d+)gb", settings.profile.name):
        return int(named[1]) * GIB, f"a GPU of {named[1]} GB, as the profile's name says"
    raise Failure("no GPU is found here; say how much memory it has, as in --vram 96.")


def report(settings: Settings, vram: float | None, write: bool) -> int:
    """Print the plan of the settings' profile, and with `write` put the suggested split into the profile.

    Returns the exit status: 0 when all fits.

    Raises:
        Failure: a model or the memory is not known.
    """
    memory, what = memory_for(settings, vram)
    plan = of(settings, memory)
    if write:
        _write(settings.profile, plan)
        plan = of(settings, memory)
    _console.print(f"{settings.profile.name} on {what} ({_gib(memory)})\n", markup=False)
    _console.print(_table(plan))
    problems = plan.problems()
    for problem in problems:
        _console.print(f"\nDoes not fit: {problem}.", markup=False)
    if not problems:
        left = plan.memory - plan.used
        _console.print(f"\nFits: {_gib(plan.used)} used, {_gib(left)} ({left / plan.memory:.0%}) left.")
    _print_suggestion(settings, plan, vram)
    return 1 if problems else 0


def _table(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for engine in plan.engines:
        table.add_column(engine.alias, justify="right", overflow="fold")

    def row(name: str, values: list[str]) -> None:
        table.add_row(name, *values)

    engines = plan.engines
    row("model", [e.model.rpartition("/")[2] for e in engines])
    row("weights", [_gib(e.weights) for e in engines])
    row("runtime", [_gib(e.runtime) for e in engines])
    row("activations", [_gib(e.activations) for e in engines])
    if plan.kind == "cuda":
        row("CUDA graphs", [_gib(e.graphs) for e in engines])
    row("KV cache", [_gib(e.kv_cache) for e in engines])
    row("total", [_gib(e.total) for e in engines])
    row("KV cache per token", [f"{e.kv_per_token / 1024:g} KiB" for e in engines])
    row("tokens in the KV cache", [f"{e.tokens:,}" for e in engines])
    row("full contexts", [f"{e.contexts:.1f} x {e.window:,}" for e in engines])
    row(
        "users at once x context",
        [f"{e.slots} x {min(e.window, e.tokens // e.slots):,}" for e in engines],
    )
    if plan.kind == "cuda":
        row("gpu-memory-utilization", [f"{e.utilization:g}" for e in engines])
    return table


def _print_suggestion(settings: Settings, plan: Plan, vram: float | None) -> None:
    split = plan.suggestion()
    if any(s.kv_cache < e.window * e.kv_per_token for e, s in zip(plan.engines, split.values(), strict=True)):
        _console.print("No split of this memory gives both models a full context.")
        return
    caches = ", ".join(f"{alias} {_written(s.kv_cache)}" for alias, s in split.items())
    command = f"./run plan --profile {settings.profile.name}{f' --vram {vram:g}' if vram else ''} --write"
    _console.print(f"The largest KV caches that fit well: {caches}. {command} sets them.")


def _write(profile: Path, plan: Plan) -> None:
    from ruamel.yaml import YAML

    for engine, split in zip(plan.engines, plan.suggestion().values(), strict=True):
        if split.kv_cache < engine.window * engine.kv_per_token:
            raise Failure(
                f"nothing was written: no split gives {engine.alias} a full context in this memory."
            )
    yaml_files = YAML()  # keeps comments and order
    yaml_files.width = 10_000
    for alias, split in plan.suggestion().items():
        path = profile / f"{alias}.yaml"
        values = yaml_files.load(path)
        values["kv-cache-memory-bytes"] = _written(split.kv_cache)
        if plan.kind == "cuda":
            values["gpu-memory-utilization"] = split.utilization
        with path.open("w") as file:
            yaml_files.dump(values, file)
        _console.print(f"Wrote {path}", markup=False)


def _written(size: int) -> str:
    return f"{size // GIB}G" if size % GIB == 0 else f"{size // 2**20}M"


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def _floor(share: float) -> float:
    return math.floor(share * 100) / 100
