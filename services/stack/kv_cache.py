"""How many tokens vLLM's KV cache holds, for each kind of attention.

vLLM divides the cache into blocks of one size that all layers share. Layers of one kind form groups, and each
group has blocks for every request: full attention for all of its tokens, a sliding window for the last ones,
Gated DeltaNet and Mamba for one state. The rules are those of vLLM 0.32: `_align_hybrid_block_size` in
vllm/platforms/interface.py, `unify_kv_cache_spec_page_size` and `_get_kv_cache_groups_uniform_page_size` in
vllm/v1/core/kv_cache_utils.py, and `max_memory_usage_bytes` in vllm/v1/kv_cache_interface.py.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from services.stack.data_types import size_of

Config = Mapping[str, Any]
Platform = Literal["cuda", "cpu"]
# Tokens in a block where nothing asks for more; hybrid models have a multiple of it.
BLOCK = {"cuda": 16, "cpu": 128}
# Steps that are in flight at the same time: on a GPU, vLLM schedules the next one before the last one ends.
_STEPS = {"cuda": 2, "cpu": 1}
# Models whose attention looks both ways. They have no cache, and vLLM reads a prompt of theirs in one step.
_ENCODERS = ("bert", "roberta", "xlm-roberta", "modernbert", "nomic_bert", "new", "gte")
_MTP_LAYERS = ("mtp_num_hidden_layers", "num_nextn_predict_layers")


@dataclass(frozen=True)
class Layer:
    """What one layer caches, on one GPU.

    Attributes:
        kind: `full` and `window` keep keys and values, `state` keeps one state for each request.
        size: bytes of a token's keys and values, or of a state.
        window: the tokens that a `window` layer keeps.
        checkpoints: the states of a request that a `state` layer keeps for the prefix cache.
        block: tokens in a block; 0 for a state.
        page: bytes of a block.
    """

    kind: Literal["full", "window", "state"]
    size: int
    window: int = 0
    checkpoints: int = 0
    block: int = 0
    page: int = 0


@dataclass(frozen=True)
class Cache:
    """How vLLM divides the KV cache of one engine.

    Attributes:
        block_bytes: bytes of a block, in all layers of its group; 0 if the model caches nothing.
        blocks: the blocks that a request of `context` tokens takes.
        context: the longest context, in tokens.
        state_blocks: the ones of them that hold states; a request needs those from its first token.
        window_blocks: the ones of them that hold windows.
    """

    block_bytes: int
    blocks: int
    context: int
    state_blocks: int = 0
    window_blocks: int = 0

    def contexts(self, size: int) -> float:
        """How many requests with the longest context fit into `size` bytes: vLLM's `Maximum concurrency`."""
        return size // self.block_bytes / self.blocks if self.blocks else math.inf

    def tokens(self, size: int) -> int:
        """What vLLM reports as `KV cache size` for `size` bytes."""
        return int(self.contexts(size) * self.context) if self.blocks else 0

    def bytes_for(self, contexts: int) -> int:
        """The bytes that hold so many of the longest contexts."""
        return contexts * self.blocks * self.block_bytes

    def context_for(self, size: int, requests: int) -> int:
        """The tokens that each of so many requests has when they share `size` bytes evenly."""
        if not self.blocks:
            return self.context
        fixed = self.state_blocks + self.window_blocks
        share = size // self.block_bytes // requests - fixed
        growing = self.blocks - fixed
        return max(0, min(self.context, share * self.context // growing)) if growing else self.context

    def states(self, size: int) -> float:
        """How many requests have their states in `size` bytes."""
        return size // self.block_bytes / self.state_blocks if self.state_blocks else math.inf


def cache(layers: list[Layer], values: Config, platform: Platform, batched: int, stages: int = 1) -> Cache:
    """How vLLM divides the cache of these layers.

    Args:
        layers: all that cache something, those of a draft model included.
        values: the engine's configuration file.
        platform: the kind of machine.
        batched: tokens of a step.
        stages: of the pipeline; each GPU holds the layers of one.
    """
    context = int(values["max-model-len"])
    if not layers:
        return Cache(0, 0, context)
    groups = list(_groups(_with_pages(layers, values.get("block-size", BLOCK[platform]))))
    prefix = values.get("enable-prefix-caching", True)
    drafted = speculative(values).get("num_speculative_tokens", 0)
    blocks = states = windows = 0
    for layer, _ in groups:
        if layer.kind == "state":
            # The running state, and one for each token that may be rejected.
            states += 1 + drafted + (layer.checkpoints if prefix else 0)
        elif layer.kind == "window":
            kept = min(layer.window - 1 + _STEPS[platform] * batched, context)
            windows += math.ceil(kept / layer.block) + 1
        else:
            blocks += math.ceil(context / layer.block)
    block_bytes = max(layer.page * math.ceil(count / stages) for layer, count in groups)
    return Cache(block_bytes, blocks + states + windows, context, states, windows)


def _with_pages(layers: list[Layer], block: int) -> list[Layer]:
    """The layers with their blocks: of at least `block` tokens, and of the same number of bytes in all."""
    state = max((layer.size for layer in layers if layer.kind == "state"), default=0)
    if state:
        token = max(layer.size for layer in layers if layer.kind == "full")
        block *= math.ceil(state / (block * token))
    page = max(layer.size * block for layer in layers if layer.kind != "state")
    paged = []
    for layer in layers:
        if layer.kind == "state":
            paged.append(replace(layer, page=page))
        else:
            # Smaller pages get more tokens, or padding where that does not come out even.
            ratio, rest = divmod(page, layer.size * block)
            paged.append(replace(layer, page=page, block=block * (1 if rest else ratio)))
    return paged


def _groups(layers: list[Layer]) -> Iterator[tuple[Layer, int]]:
    """The groups of layers that share their blocks: a layer of each, and how many they are."""
    kinds = Counter(layers)
    smallest, largest = min(kinds.values()), max(kinds.values())
    size = largest if largest < smallest * 1.5 else smallest
    for layer, count in kinds.items():
        for _ in range(math.ceil(count / size)):
            yield layer, size


def layers_of(config: Config, values: Config, dtype: str, platform: Platform, parts: int = 1) -> list[Layer]:
    """What the layers of a model cache on one of `parts` GPUs, and those of its MTP heads if they are used.

    Args:
        config: the model's config.json, or its part about text.
        values: the engine's configuration file.
        dtype: the type in which the model computes.
        platform: the kind of machine.
        parts: GPUs that share the heads.

    Raises:
        KeyError, ValueError: a value is missing, or this kind of attention is not known.
    """
    if config.get("model_type") in _ENCODERS:
        return []
    if "kv_lora_rank" in config or "ssm_cfg" in config:
        raise ValueError("the size of its kind of attention cache is not known here")
    wanted = values.get("kv-cache-dtype", "auto")
    width = size_of(dtype if wanted == "auto" else wanted)
    full = _full(config, width, parts)
    layers = []
    kinds = _kinds(config)
    for kind in kinds[: len(kinds) - config.get("num_kv_shared_layers", 0)]:
        if kind in ("full_attention", "attention"):
            layers.append(full)
        elif kind == "sliding_attention":
            heads, head = _heads(config)
            size = 2 * max(1, heads // parts) * head * width
            layers.append(Layer("window", size, window=config["sliding_window"]))
        elif kind in ("linear_attention", "mamba"):
            # Mamba 2 writes a second checkpoint inside of a prompt.
            checkpoints = 1 if kind == "linear_attention" else 2
            layers.append(
                Layer("state", _state(config, values, dtype, platform, parts), checkpoints=checkpoints)
            )
        else:
            raise ValueError(f"the size of its attention cache ({kind}) is not known here")
    if speculative(values).get("method") == "mtp":
        heads_of_mtp = next((config[name] for name in _MTP_LAYERS if name in config), 1)
        layers += [full] * heads_of_mtp
    return layers


def speculative(values: Config) -> Config:
    """The speculative-config of an engine's configuration file; empty if there is none."""
    return values.get("speculative-config") or {}


def _kinds(config: Config) -> list[str]:
    """The kind of attention of each layer, as `layer_types` would name it."""
    count = config["num_hidden_layers"]
    if types := config.get("layer_types"):
        return list(types)
    if every := config.get("full_attention_interval"):
        return ["full_attention" if (n + 1) % every == 0 else "linear_attention" for n in range(count)]
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        every = config.get("sliding_window_pattern", count + 1)
        return ["full_attention" if (n + 1) % every == 0 else "sliding_attention" for n in range(count)]
    return ["full_attention"] * count


def _heads(config: Config) -> tuple[int, int]:
    """Number and size of the heads of keys and values."""
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    return heads, config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def _full(config: Config, width: int, parts: int) -> Layer:
    heads, head = _heads(config)
    if "global_head_dim" in config:  # Gemma 4: fewer, but larger heads
        head = config["global_head_dim"]
        if config.get("attention_k_eq_v"):
            heads = config.get("num_global_key_value_heads") or heads
    return Layer("full", 2 * max(1, heads // parts) * head * width)


def _state(config: Config, values: Config, dtype: str, platform: Platform, parts: int) -> int:
    """Bytes of the state of a Gated DeltaNet or Mamba 2 layer: of its convolution, and the recurrent one."""
    drafted = speculative(values).get("num_speculative_tokens", 0)
    convolution = _type(values, "mamba-cache-dtype", dtype)
    default = "float32" if platform == "cpu" else config.get("mamba_ssm_dtype") or convolution
    recurrent = _type(values, "mamba-ssm-cache-dtype", default)
    if "linear_num_value_heads" in config:
        keys = config["linear_num_key_heads"] * config["linear_key_head_dim"]
        values_ = config["linear_num_value_heads"] * config["linear_value_head_dim"]
        channels, kernel = 2 * keys + values_, config["linear_conv_kernel_dim"]
        state = values_ * config["linear_key_head_dim"]
    elif "mamba_n_heads" not in config:
        raise ValueError("the size of its recurrent states is not known here")
    else:
        inner = config["mamba_n_heads"] * config["mamba_d_head"]
        groups = config["mamba_n_groups"] + (-config["mamba_n_groups"] % parts)
        channels, kernel = inner + 2 * groups * config["mamba_d_state"], config["mamba_d_conv"]
        state = inner * config["mamba_d_state"]
    tail = channels // parts * (kernel - 1 + drafted)
    return int(tail * size_of(convolution) + state // parts * size_of(recurrent))


def _type(values: Config, name: str, default: str) -> str:
    asked = values.get(name, "auto")
    return default if asked == "auto" else str(asked)
