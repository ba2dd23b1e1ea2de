#!/usr/bin/env python3
"""Writes a GGUF file of random weights at HoVLE-2.6B's sizes, for bench-peer.sh alone.

    peer_gguf.py mixed|attention|mamba2 bf16|q8_0|q4_0 OUT.gguf

mixed      Mamba-2 blocks with HoVLE's MLPs: 31 and one of attention (granitehybrid, which must have
           one); convolution 4 wide, groups, state and heads as ours
attention  InternLM2, 32 blocks
mamba2     Mamba-2 2.7B as published: width 2560, 64 blocks, state 128, no MLPs

Every large tensor repeats one tile of random blocks: for speed that is as good as any weights. Only
Python's own library is used.
"""
import random
import struct
import sys

F32, Q4_0, Q8_0, BF16 = 0, 2, 8, 30
TYPES = {"bf16": BF16, "q8_0": Q8_0, "q4_0": Q4_0}
U32, FLOAT, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
ALIGN = 32


def tile_of(kind):
    """About a MiB of blocks whose values lie in +-0.02."""
    r = random.Random(1)
    if kind == F32:
        return struct.pack("<1024f", *[1.0] * 1024)
    if kind == BF16:
        values = [struct.pack("<f", r.uniform(-0.02, 0.02))[2:] for _ in range(1 << 16)]
        return b"".join(values)
    codes, scale = (32, 0.02 / 127) if kind == Q8_0 else (16, 0.02 / 8)
    block = struct.pack("<e", scale)
    return b"".join(block + r.randbytes(codes) for _ in range(1 << 14))


def bytes_of(kind, n):
    return {F32: 4 * n, BF16: 2 * n, Q8_0: n // 32 * 34, Q4_0: n // 32 * 18}[kind]


def string(s):
    return struct.pack("<Q", len(s)) + s.encode()


def value(v):
    if isinstance(v, bool):
        return struct.pack("<I?", BOOL, v)
    if isinstance(v, int):
        return struct.pack("<II", U32, v)
    if isinstance(v, float):
        return struct.pack("<If", FLOAT, v)
    if isinstance(v, list):
        return struct.pack("<IIQ", ARRAY, U32, len(v)) + struct.pack(f"<{len(v)}I", *v)
    return struct.pack("<I", STRING) + string(v)


def ssm_block(i, big, d, inner, groups, state, heads, conv):
    b = f"blk.{i}."
    channels = inner + 2 * groups * state
    return [
        (b + "attn_norm.weight", [d], F32),
        (b + "ssm_in.weight", [d, inner + channels + heads], big),
        (b + "ssm_conv1d.weight", [conv, channels], F32),
        (b + "ssm_conv1d.bias", [channels], F32),
        (b + "ssm_dt.bias", [heads], F32),
        (b + "ssm_a", [1, heads], F32),
        (b + "ssm_d", [1, heads], F32),
        (b + "ssm_norm.weight", [inner // groups, groups], F32),
        (b + "ssm_out.weight", [inner, d], big),
    ]


def attention_block(i, big, d, kv):
    b = f"blk.{i}."
    return [
        (b + "attn_norm.weight", [d], F32),
        (b + "attn_q.weight", [d, d], big),
        (b + "attn_k.weight", [d, kv], big),
        (b + "attn_v.weight", [d, kv], big),
        (b + "attn_output.weight", [d, d], big),
    ]


def mlp(i, big, d, ff):
    b = f"blk.{i}."
    return [
        (b + "ffn_norm.weight", [d], F32),
        (b + "ffn_gate.weight", [d, ff], big),
        (b + "ffn_up.weight", [d, ff], big),
        (b + "ffn_down.weight", [ff, d], big),
    ]


def model(kind, big):
    arch = {"mixed": "granitehybrid", "attention": "internlm2", "mamba2": "mamba2"}[kind]
    d, blocks, vocab = (2560, 64, 50288) if kind == "mamba2" else (2048, 32, 92553)
    keys = {
        "general.architecture": arch,
        "tokenizer.ggml.model": "no_vocab",
        f"{arch}.vocab_size": vocab,
        f"{arch}.context_length": 131072,
        f"{arch}.embedding_length": d,
        f"{arch}.block_count": blocks,
        f"{arch}.feed_forward_length": 0 if kind == "mamba2" else 8192,
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
    }
    tensors = [("token_embd.weight", [d, vocab], big)]
    recurrent = {
        "mixed": dict(inner=2048, groups=8, state=128, heads=16, conv=4),
        "mamba2": dict(inner=5120, groups=1, state=128, heads=80, conv=4),
    }.get(kind)
    if recurrent:
        keys |= {
            f"{arch}.ssm.inner_size": recurrent["inner"],
            f"{arch}.ssm.group_count": recurrent["groups"],
            f"{arch}.ssm.state_size": recurrent["state"],
            f"{arch}.ssm.time_step_rank": recurrent["heads"],
            f"{arch}.ssm.conv_kernel": recurrent["conv"],
        }
    if kind == "mamba2":
        keys[f"{arch}.attention.head_count"] = 0
    else:
        keys |= {
            f"{arch}.attention.head_count": 16,
            f"{arch}.attention.head_count_kv": [0] * 31 + [8] if kind == "mixed" else 8,
            f"{arch}.rope.dimension_count": 128,
            f"{arch}.rope.freq_base": 1e6,
        }
    if kind == "mixed":
        keys |= {f"{arch}.attention.scale": 128**-0.5, f"{arch}.rope.scaling.finetuned": True}
        for name in ("logit_scale", "residual_scale", "embedding_scale"):
            keys[f"{arch}.{name}"] = 1.0
    for i in range(blocks):
        if recurrent and not (kind == "mixed" and i == 31):
            tensors += ssm_block(i, big, d, **recurrent)
        else:
            tensors += attention_block(i, big, d, 1024)
        if kind != "mamba2":
            tensors += mlp(i, big, d, 8192)
    tensors.append(("output_norm.weight", [d], F32))
    if kind != "mamba2":  # whose output is its table of embeddings
        tensors.append(("output.weight", [d, vocab], big))
    return keys, tensors


def main():
    if len(sys.argv) != 4 or sys.argv[2] not in TYPES:
        sys.exit(__doc__)
    kind, big, path = sys.argv[1], TYPES[sys.argv[2]], sys.argv[3]
    keys, tensors = model(kind, big)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for k, v in keys.items():
        head += string(k) + value(v)
    at = 0
    sizes = []
    for name, shape, t in tensors:
        n = 1
        for s in shape:
            n *= s
        head += string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", t, at)
        sizes.append(bytes_of(t, n))
        at += (sizes[-1] + ALIGN - 1) // ALIGN * ALIGN
    tiles = {t: tile_of(t) for t in {F32, big}}
    with open(path, "wb") as f:
        f.write(head + b"\0" * (-len(head) % ALIGN))
        for (name, _, t), n in zip(tensors, sizes):
            tile = tiles[t]
            if name.endswith("ssm_a"):
                tile = struct.pack("<f", -2.7) * 256
            elif name.endswith("ssm_dt.bias"):
                tile = struct.pack("<f", -4.0) * 256
            left = n
            while left > 0:
                left -= f.write(tile[: min(left, len(tile))])
            f.write(b"\0" * (-n % ALIGN))


main()
