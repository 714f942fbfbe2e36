"""A language model with random weights, in llama.cpp's file format (GGUF, version 3).

It reads any text byte by byte, and says `word7 word81 …`: the bytes' rows of the last matrix are
zero, so that they are chosen only where a grammar leaves nothing else.
"""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

WINDOW = 4096
_WIDTH, _HEADS, _INNER, _WORDS = 32, 2, 64, 200
_SEED = 7
_ALIGNED = 32
_MAGIC, _VERSION = b"GGUF", 3
# The format's numbers for types of values, and of tokens.
_UINT, _INT, _FLOAT, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_FORMATS = {_UINT: "<I", _INT: "<i", _FLOAT: "<f", _BOOL: "<?"}
_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
Tensor = tuple[tuple[int, ...], "array[float]"]


def write(path: Path) -> None:
    """Make the file; it is the same each time."""
    tensors = _tensors(random.Random(_SEED))
    entries = _entries()
    head = _MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(entries)) + b"".join(entries)
    offset = 0
    for name, (shape, data) in tensors.items():
        head += _string(name)
        head += struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)
        offset += len(_padded(data.tobytes()))
    path.write_bytes(
        _padded(head) + b"".join(_padded(each.tobytes()) for _, each in tensors.values())
    )


def _vocabulary() -> tuple[list[str], list[int]]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256]
    words = [f"▁word{number}" for number in range(_WORDS)]
    return tokens + words, kinds + [_NORMAL] * _WORDS


def _entries() -> list[bytes]:
    tokens, kinds = _vocabulary()
    return [
        _entry("general.architecture", _STRING, "llama"),
        _entry("llama.context_length", _UINT, WINDOW),
        _entry("llama.embedding_length", _UINT, _WIDTH),
        _entry("llama.block_count", _UINT, 1),
        _entry("llama.feed_forward_length", _UINT, _INNER),
        _entry("llama.attention.head_count", _UINT, _HEADS),
        _entry("llama.attention.layer_norm_rms_epsilon", _FLOAT, 1e-5),
        _entry("llama.vocab_size", _UINT, len(tokens)),
        _entry("tokenizer.ggml.model", _STRING, "llama"),
        _array("tokenizer.ggml.tokens", _STRING, tokens),
        _array("tokenizer.ggml.scores", _FLOAT, [0.0] * len(tokens)),
        _array("tokenizer.ggml.token_type", _INT, kinds),
        _entry("tokenizer.ggml.unknown_token_id", _UINT, 0),
        _entry("tokenizer.ggml.bos_token_id", _UINT, 1),
        _entry("tokenizer.ggml.eos_token_id", _UINT, 2),
        # Or a grammar could not begin where the template ends.
        _entry("tokenizer.ggml.add_space_prefix", _BOOL, False),
        _entry("tokenizer.chat_template", _STRING, _TEMPLATE),
    ]


def _tensors(dice: random.Random) -> Mapping[str, Tensor]:
    size = len(_vocabulary()[0])

    def normal(rows: int, columns: int, spread: float = 0.5) -> array[float]:
        return array("f", (dice.gauss(0, spread) for _ in range(rows * columns)))

    def zeros(rows: int) -> array[float]:
        return array("f", [0.0] * (rows * _WIDTH))

    ones = array("f", [1.0] * _WIDTH)
    square = (_WIDTH, _WIDTH)
    return {
        "token_embd.weight": ((_WIDTH, size), normal(size, _WIDTH)),
        "output_norm.weight": ((_WIDTH,), ones),
        "output.weight": ((_WIDTH, size), zeros(size - _WORDS) + normal(_WORDS, _WIDTH, 2.0)),
        "blk.0.attn_norm.weight": ((_WIDTH,), ones),
        "blk.0.attn_q.weight": (square, normal(*square)),
        "blk.0.attn_k.weight": (square, normal(*square)),
        "blk.0.attn_v.weight": (square, normal(*square)),
        "blk.0.attn_output.weight": (square, normal(*square)),
        "blk.0.ffn_norm.weight": ((_WIDTH,), ones),
        "blk.0.ffn_gate.weight": ((_WIDTH, _INNER), normal(_INNER, _WIDTH)),
        "blk.0.ffn_up.weight": ((_WIDTH, _INNER), normal(_INNER, _WIDTH)),
        "blk.0.ffn_down.weight": ((_INNER, _WIDTH), normal(_WIDTH, _INNER)),
    }


def _entry(key: str, kind: int, value: str | float) -> bytes:
    return _string(key) + struct.pack("<I", kind) + _value(kind, value)


def _array(key: str, kind: int, values: Sequence[str | float]) -> bytes:
    head = _string(key) + struct.pack("<IIQ", _ARRAY, kind, len(values))
    return head + b"".join(_value(kind, each) for each in values)


def _value(kind: int, value: str | float) -> bytes:
    return _string(value) if isinstance(value, str) else struct.pack(_FORMATS[kind], value)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNED)
