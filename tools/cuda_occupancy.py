"""How many blocks of a kernel a multiprocessor holds, and how many the design counts on.

The limits are those of the table "Technical Specifications per Compute Capability" in NVIDIA's CUDA
C++ Programming Guide; the rounding is that of cuda_occupancy.h, which every CUDA toolkit brings.
"""

from __future__ import annotations

from dataclasses import dataclass

WARP = 32  # threads
# A warp takes registers by the 256, from one of the four parts of a multiprocessor.
REGISTER_UNIT, PARTS = 256, 4
# A block takes shared memory by the 128 bytes, and the driver another 1024 bytes of each block's.
SHARED_UNIT, SHARED_RESERVED = 128, 1024


@dataclass(frozen=True)
class Multiprocessor:
    """What one multiprocessor of an architecture has."""

    warps: int
    blocks: int
    registers: int
    shared_bytes: int


MULTIPROCESSORS = {
    "80": Multiprocessor(64, 32, 65536, 164 * 1024),  # A100
    "90": Multiprocessor(64, 32, 65536, 228 * 1024),  # H100, H200
    "100": Multiprocessor(64, 32, 65536, 228 * 1024),  # B200
    "120": Multiprocessor(48, 24, 65536, 100 * 1024),  # RTX 50, RTX PRO
}


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def resident_blocks(
    processor: Multiprocessor, threads: int, registers: int, shared_bytes: int
) -> int:
    """Blocks of a kernel that one multiprocessor holds at once; 0 for a kernel that cannot run.

    Args:
        processor: The limits.
        threads: Threads of a block.
        registers: Registers of a thread.
        shared_bytes: Shared memory of a block, static and dynamic together.
    """
    warps = -(-threads // WARP)
    per_warp = _round_up(max(registers, 1) * WARP, REGISTER_UNIT)
    warps_by_registers = processor.registers // PARTS // per_warp * PARTS
    shared = _round_up(shared_bytes + SHARED_RESERVED, SHARED_UNIT)
    return min(
        processor.blocks,
        processor.warps // warps,
        warps_by_registers // warps,
        processor.shared_bytes // shared,
    )


# ------------------------------------------------------------------------------ the design's table

# Shared memory is counted for what it is largest for in practice: the finest map of an image of
# 800x1344 pixels (336 columns), pooled to 14x14 bins.
_CAPACITY = 336 + 2 * 14  # tap_capacity()
_ENTRIES = _CAPACITY * (4 + 2 * 4) + 2 * 4
_TILE_CELLS = (4 + 8) * 14


@dataclass(frozen=True)
class Design:
    """What the design counts on for one kernel with sums in float32."""

    threads: int
    blocks: int  # per multiprocessor, at least; with sums in float64 one is enough
    shared_bytes: int  # asked for at the launch
    reason: str


DESIGN = {
    # BlockTables::bytes() without and with the transposed tables.
    "pool_kernel": Design(
        256, 3, 16 + 2 * _ENTRIES, "24 warps with a 16-byte load each hide the latency of memory"
    ),
    "scatter_kernel": Design(
        256, 3, 16 + 4 * _ENTRIES, "the table of one RoI is built while two others are summed"
    ),
    "pool_maximum_kernel": Design(
        256, 2, 0, "the arithmetic of the sampling points is the limit, not the memory"
    ),
    "scatter_maximum_kernel": Design(256, 3, 0, "four atomics per value: warps hide their latency"),
    # tile_bytes(): dense weights, lists, their lengths and the flags of 256 RoIs.
    "gather_kernel": Design(
        256, 2, _TILE_CELLS * 12 + (12 + 256) * 4,
        "a tile's sums are kept in registers; a second tile works while one waits at a barrier",
    ),
    "gather_maximum_kernel": Design(
        256, 2, 0, "a grid of few blocks: one thread per channel of a map"
    ),
    "bucket_kernel": Design(1024, 1, 0, "it is a single block"),
}  # fmt: skip
