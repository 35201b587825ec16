"""Which latent frames a method makes to the end, as far as that is known before the video."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType

from vidplat.methods.eco.budget import budgets, kept_frames
from vidplat.methods.language import parse, text


def kept_latents(method: str, frames: int) -> int:
    """Of `frames` latent frames those that a method makes to the end; all of them where that is up
    to the video."""
    for one in parse(method) if method else ():
        if one.kind.name == "eco":
            k = one.values["k"]
            return kept_frames(None if k is None else int(k), frames)
    return frames


@lru_cache(maxsize=4096)
def with_budgets(method: str, frames: int) -> tuple[str, ...]:
    """The texts, K rising, between which a plan chooses for a method's canonical text that leaves K
    open; else that text alone."""
    found = []
    for k in budgets(frames):
        chosen = parse(method)
        for i, one in enumerate(chosen):
            if one.kind.name == "eco" and one.values["k"] is None:
                told = replace(one, values=MappingProxyType({**one.values, "k": k}))
                found.append(text((*chosen[:i], told, *chosen[i + 1 :])))
    return tuple(found) or (method,)


def frames_problem(method: str, frames: int) -> str:
    """Why a method's text asks for more keyframes than a video of `frames` latent frames has; ""
    when it does not."""
    for one in parse(method):
        k = one.values.get("k") if one.kind.name == "eco" else None
        if k is not None and int(k) > frames:
            return (
                f"{int(k)} keyframes cannot be chosen from {frames} latent frames; take "
                f"K={frames} or less"
            )
    return ""
