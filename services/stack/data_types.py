"""The sizes of numbers, by the names that safetensors and vLLM give to their types."""

_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32", "float32", "float"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16", "float16", "half", "bfloat16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 1),
    **dict.fromkeys(("fp8", "fp8_e4m3", "fp8_e5m2"), 1),
}


def size_of(kind: str) -> int:
    """The bytes of one parameter or cached value of the type `kind`.

    Raises:
        ValueError: its name is not known.
    """
    try:
        return _BYTES[kind]
    except KeyError:
        raise ValueError(f"the size of the type {kind} is not known here") from None
