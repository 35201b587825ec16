"""Three ways to compute attention under a tile mask without computing what it leaves out: `gather`
and `lse` (`frame_by_frame.py`), and `flex` (`flex.py`).

All take queries of some or all video rows, text tokens that attend and are attended by everything,
and a stock mask on top. `fault` compares a path with masked attention on a tiny shape, so that a
machine it fails on is told at once.
"""

from __future__ import annotations

import torch

from vidplat.methods.seams.attention import masked_attention
from vidplat.methods.vdit.flex import flex
from vidplat.methods.vdit.frame_by_frame import gather, lse
from vidplat.methods.vdit.tiling import Path, Tiling, tile_mask

PATHS: dict[str, Path] = {"gather": gather, "lse": lse, "flex": flex}


def fault(name: str, device: torch.device, dtype: torch.dtype, head_width: int) -> str:
    """What is wrong with a path on this device, as the end of a sentence; "" when it equals masked
    attention. Three frames of 48 tokens, one a reference, so that blocks of 128 are cut. Compiles
    the flex path (seconds)."""
    tiling = Tiling(3, 48, 1)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, tiling.tokens, 2, head_width, generator=generator).to(device, dtype)
        for _ in range(3)
    )
    try:
        with torch.no_grad():
            made = PATHS[name](q, k, v, tiling, None, None)
            due = masked_attention(q, k, v, tile_mask(tiling, device))
            error = float((made.float() - due.float()).abs().max())
    # compilers and kernels raise many kinds; all mean that the path cannot be used here
    except Exception as problem:
        lines = str(problem).strip().splitlines() or [type(problem).__name__]
        return f"fails on {device}: {lines[0]}"
    allowed = 1e-3 if dtype == torch.float32 else 5e-2
    if error <= allowed:
        return ""
    return f"is off by {error:.2g} on {device} in {dtype}, more than {allowed:g}"
