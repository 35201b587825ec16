"""Which latent frames a method makes to the end, as far as that is known before the video."""

from __future__ import annotations

from functools import lru_cache

from vidplat.methods.language import asked, parse, text


def kept_latents(method: str, frames: int) -> int:
    """Of `frames` latent frames those that a method finishes; all where the video decides."""
    chosen = asked(method).chosen
    return min((one.kind.kept(one.values, frames) for one in chosen), default=frames)


@lru_cache(maxsize=4096)
def texts_to_plan(method: str, frames: int) -> tuple[str, ...]:
    """The texts, rising, between which a plan chooses for a canonical text that leaves it a
    parameter; else that text alone."""
    chosen = parse(method)
    for i, one in enumerate(chosen):
        key = one.kind.left_to_plan
        if key and one.values[key] is None:
            told = (
                one.kind.chosen({**one.values, key: value})
                for value in one.kind.options(one.values, frames)
            )
            return tuple(text((*chosen[:i], each, *chosen[i + 1 :])) for each in told) or (method,)
    return (method,)


def is_planned(method: str) -> bool:
    """Whether a canonical text tells one method and of it only what plans choose, as `eco:k=5`."""
    told = parse(method)
    key = told[0].kind.left_to_plan
    if len(told) > 1 or not key or told[0].values[key] is None:
        return False
    return method == told[0].kind.chosen({key: told[0].values[key]}).text
