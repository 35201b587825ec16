"""Models that make a video block by block: their settings, and the arithmetic on them.

Such a model's directory has a `causal.json` beside `model_index.json`:

    {"block": 3, "steps": [1000, 750, 500], "shift": 5.0, "sink": 1, "recent": 6, "trained": 21}

Its fields are those of `model_shape.Blocks`, `block` being `frames`. A block is made in `steps` and
one pass more that remembers it (`workers/blocks`). Neither torch nor files are needed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from vidplat.methods.model_shape import Blocks

_COUNTS = ("block", "sink", "recent", "trained")


def read(document: Mapping[str, Any]) -> Blocks:
    """The settings of a `causal.json`. Raises `ValueError` that names what is wrong."""
    if absent := [name for name in (*_COUNTS, "steps", "shift") if name not in document]:
        raise ValueError(f"it lacks {', '.join(absent)}")
    block, sink, recent, trained = (document[name] for name in _COUNTS)
    for name in _COUNTS:
        if type(document[name]) is not int:
            raise ValueError(f"{name} must be a whole number")
    steps, shift = document["steps"], document["shift"]
    if not isinstance(steps, list) or not all(type(step) in (int, float) for step in steps):
        raise ValueError("steps must be a list of numbers")
    if not steps or steps[0] != 1000 or steps[-1] <= 0 or any(b >= a for a, b in pairwise(steps)):
        raise ValueError("steps must fall from 1000 and stay above 0")
    if type(shift) not in (int, float) or not 0 < shift <= 100:
        raise ValueError("shift must be above 0 and at most 100")
    if block < 1 or sink < 0 or recent < block or sink + recent > trained:
        raise ValueError(
            "the window must hold a block, and sink + recent must not be more than trained"
        )
    return Blocks(block, tuple(float(step) for step in steps), float(shift), sink, recent, trained)


def document(blocks: Blocks) -> dict[str, Any]:
    """What `read` reads, ready for JSON."""
    return {
        "block": blocks.frames,
        "steps": [int(step) if float(step).is_integer() else step for step in blocks.steps],
        "shift": blocks.shift,
        "sink": blocks.sink,
        "recent": blocks.recent,
        "trained": blocks.trained,
    }


def spans(blocks: Blocks, frames: int) -> list[tuple[int, int]]:
    """(first latent frame, how many) of each block of a video."""
    return [
        (start, min(blocks.frames, frames - start)) for start in range(0, frames, blocks.frames)
    ]


def attended(blocks: Blocks, start: int, frames: int) -> int:
    """How many latent frames a block of `frames` from `start` on attends to, its own included."""
    first = max(start + frames - blocks.recent, 0)  # of the recent ones
    return min(blocks.sink, start) + max(start - max(blocks.sink, first), 0) + frames


def passes(blocks: Blocks, frames: int, steps: int) -> int:
    """Passes through the network, per branch: each block's steps, and one that remembers it."""
    return len(spans(blocks, frames)) * (steps + 1)


def chosen_steps(blocks: Blocks, count: int, strength: float = 1.0) -> tuple[float, ...]:
    """`count` of the model's steps, the first always, evenly spread over them, times `strength`.

    So an edit of strength s begins at s on the schedule, as it does on other models, and takes as
    many steps as a video from noise. Raises `ValueError` for more steps than the model has.
    """
    known = len(blocks.steps)
    if not 1 <= count <= known:
        raise ValueError(f"this model makes a block in 1 to {known} steps, not {count}")
    return tuple(strength * step for step in spread(blocks.steps, count))


def spread(steps: tuple[float, ...], count: int) -> tuple[float, ...]:
    """`count` of these steps: the first, others evenly spread to the end, halves rounded up."""
    return tuple(steps[int(place * len(steps) / count + 0.5)] for place in range(count))
