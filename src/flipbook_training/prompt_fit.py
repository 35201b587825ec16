"""Prompt fit: does a video show what its caption says? Exact arithmetic on pixels, no network.

It works because of two facts of `world`: object colours have a channel of at least 0.9 and
backgrounds none above 0.5, and the mean of a textured background is the middle of its two tones. A
video is split where its caption cuts; in each shot bright pixels are the things, the rest is the
ground.

Attributes checked, once per thing or shot: colour, size, shape, background (tone), texture,
direction (left/right/up/down, sense of an orbit, axis of a bounce, sense of a pan) and speed
(still, slow or fast; for things that rest or drift). What the caption leaves open is not checked.

Axes: F frames, H rows, W columns. Positions and lengths are in world units (the picture's side is
1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flipbook_training import world

Floats = NDArray[np.float64]

STILL_BELOW = 0.04  # world units per second
SLOW_BELOW = math.sqrt(world.SPEEDS["slowly"] * world.SPEEDS["fast"])
SMALL_BELOW = math.sqrt(world.SIZES["small"] * world.SIZES["large"])
TEXTURE_ABOVE = 0.35  # share of the full wave


@dataclass(frozen=True)
class Check:
    attribute: str
    expected: str
    found: str

    @property
    def ok(self) -> bool:
        return self.expected == self.found


@dataclass(frozen=True)
class Fit:
    checks: tuple[Check, ...]

    @property
    def share(self) -> float:
        """Share of the caption's attributes that the video shows, in [0, 1]."""
        return sum(check.ok for check in self.checks) / len(self.checks)


def prompt_fit(video: NDArray[np.uint8], caption: str, fps: float = 16.0) -> Fit:
    """Check `video` (F, H, W, 3) uint8 against `caption`; raises `world.NotInGrammar` for other
    captions."""
    scene = world.parse(caption)
    pixels = video.astype(np.float64) / 255.0
    if len(scene.shots) == 1:
        return Fit(tuple(_check_shot(pixels, scene.shots[0], fps)))
    half = (len(pixels) + 1) // 2
    parts = (pixels[: half - 1], pixels[half + 1 :])  # the frames beside the cut may blend
    return Fit(
        tuple(
            c
            for part, shot in zip(parts, scene.shots, strict=True)
            for c in _check_shot(part, shot, fps)
        )
    )


def by_attribute(fits: Iterable[Fit]) -> dict[str, tuple[float, int]]:
    """Share right and number of checks of each attribute, over many videos."""
    found: dict[str, list[bool]] = {}
    for fit in fits:
        for check in fit.checks:
            found.setdefault(check.attribute, []).append(check.ok)
    return {name: (float(np.mean(oks)), len(oks)) for name, oks in sorted(found.items())}


# --- one shot ----------------------------------------------------------------------------------


def _check_shot(pixels: Floats, shot: world.Shot, fps: float) -> Iterable[Check]:
    brightness = pixels.max(-1)  # (F, H, W)
    things = np.clip((brightness - 0.58) / 0.24, 0.0, 1.0)
    yield from _check_ground(pixels, brightness < 0.54, shot, fps)
    if len(shot.things) == 1:
        colour = _nearest_colour(pixels, things)
        yield from _check_thing(things, colour, shot.things[0], fps, move=not shot.pan)
        return
    # Two things: every bright pixel goes to the nearest palette colour; the two largest are what is
    # there.
    names = tuple(world.COLOURS)
    palette = np.array([world.COLOURS[name] for name in names])
    nearest = ((pixels[..., None, :] - palette) ** 2).sum(-1).argmin(-1)
    areas = {name: float(things[nearest == k].sum()) for k, name in enumerate(names)}
    present = sorted(areas, key=lambda name: -areas[name])[:2]
    wanted = [thing.colour for thing in shot.things]
    spare = [name for name in present if name not in wanted]
    for thing in shot.things:
        colour = thing.colour if thing.colour in present else (spare.pop() if spare else "none")
        mask = (
            things * (nearest == names.index(colour)) if colour in names else np.zeros_like(things)
        )
        yield from _check_thing(mask, colour, thing, fps, move=True)


def _nearest_colour(pixels: Floats, things: Floats) -> str:
    sure = things > 0.95
    if not sure.any():
        return "none"
    seen = np.median(pixels[sure], axis=0)
    return min(
        world.COLOURS, key=lambda name: float(((seen - np.array(world.COLOURS[name])) ** 2).sum())
    )


# --- ground ------------------------------------------------------------------------------------


def _check_ground(
    pixels: Floats, ground: NDArray[np.bool_], shot: world.Shot, fps: float
) -> Iterable[Check]:
    seen = pixels[ground].mean(0) if ground.any() else np.ones(3)
    middle = {
        name: (np.array(light) + np.array(dark)) / 2
        for name, (light, dark) in world.BACKGROUNDS.items()
    }
    tone = min(middle, key=lambda name: float(((seen - middle[name]) ** 2).sum()))
    yield Check("background", shot.background, tone)
    light, dark = (np.array(x) for x in world.BACKGROUNDS[tone])
    along = (light - dark) / 2
    some = slice(None, None, 4)  # a pan turns a wave by less than a fifth in four frames
    waves = _waves(((pixels[some] - middle[tone]) @ along) / (along @ along), ground[some])
    striped = float(np.median(np.abs(waves[0])))
    checkered = float(np.median(np.abs(waves[1]) + np.abs(waves[2])))
    texture = (
        "plain"
        if max(striped, checkered) < TEXTURE_ABOVE
        else "striped"
        if striped > checkered
        else "checkered"
    )
    yield Check("texture", shot.texture, texture)
    if shot.pan:
        # sin(2 pi n (x + camera)): the phase of the x wave grows when the camera turns right.
        wave = waves[0] if striped > checkered else waves[1]
        turned = np.unwrap(np.angle(wave)) / (2 * math.pi * world.TEXTURE_WAVES)
        shift = float(turned[-1] - turned[0])
        enough = STILL_BELOW * len(pixels) / fps
        yield Check(
            "direction",
            shot.pan,
            "none" if abs(shift) < enough else "right" if shift > 0 else "left",
        )


def _waves(field: Floats, ground: NDArray[np.bool_]) -> NDArray[np.complex128]:
    """Complex amplitudes (3, F) of e^{ikx}, e^{ikx} cos ky and e^{ikx} sin ky: least squares on
    ground pixels."""
    frames, height, width = field.shape
    angle = 2 * math.pi * world.TEXTURE_WAVES
    x = angle * (np.arange(width) + 0.5) / width
    y = angle * (np.arange(height) + 0.5) / height
    one = np.ones((height, width))
    cx, sx = np.cos(x)[None, :] * one, np.sin(x)[None, :] * one
    cy, sy = np.cos(y)[:, None], np.sin(y)[:, None]
    basis = np.stack([one, cx, sx, cx * cy, sx * cy, cx * sy, sx * sy], axis=-1).reshape(-1, 7)
    found = np.zeros((3, frames), np.complex128)
    for f in range(frames):
        inside = ground[f].ravel()
        if inside.sum() < 50:
            continue
        seen = basis[inside]
        fitted = np.linalg.solve(
            seen.T @ seen + 1e-6 * np.eye(7), seen.T @ field[f].ravel()[inside]
        )
        # a cos + b sin = amplitude * cos(kx - phase) with amplitude e^{i phase} = a + i b; minus:
        # phase of x + camera
        found[:, f] = [complex(fitted[1 + 2 * k], -fitted[2 + 2 * k]) for k in range(3)]
    # The stronger one leads, so that its phase can be followed.
    if np.abs(found[2]).sum() > np.abs(found[1]).sum():
        found[[1, 2]] = found[[2, 1]]
    return found


# --- things ------------------------------------------------------------------------------------


def _check_thing(
    mask: Floats, colour: str, thing: world.Thing, fps: float, *, move: bool
) -> Iterable[Check]:
    """`mask` (F, H, W) in [0, 1] covers the thing."""
    yield Check("colour", thing.colour, colour)
    areas = mask.mean((1, 2))
    radius = math.sqrt(float(np.median(areas)) / math.pi)
    if radius < 0.02:
        yield Check("size", thing.size, "none")
        yield Check("shape", thing.shape, "none")
        if move:
            yield from _check_motion(np.zeros((len(mask), 2)), thing.motion, fps)
        return
    yield Check("size", thing.size, "small" if radius < SMALL_BELOW else "large")
    track = _track(mask)
    yield Check("shape", thing.shape, _shape(mask, track, radius))
    if move:
        yield from _check_motion(track, thing.motion, fps)


def _track(mask: Floats) -> Floats:
    """Centres (F, 2) in world units by circular mean on the torus, unwrapped over time."""
    _, height, width = mask.shape
    turns = []
    for axis, count in ((1, width), (2, height)):
        circle = np.exp(2j * math.pi * (np.arange(count) + 0.5) / count)
        turns.append(np.angle(mask.sum(axis) @ circle))
    return np.unwrap(np.stack(turns, axis=-1), axis=0) / (2 * math.pi)


def _shape(mask: Floats, track: Floats, radius: float) -> str:
    """The shape whose exact picture overlaps best (soft intersection over union), over nine frames
    and three sizes."""
    frames, height, width = mask.shape
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    pixel = 1.0 / min(height, width)
    scores = dict.fromkeys(world.SHAPES, 0.0)
    for f in np.unique(np.linspace(0, frames - 1, 9).astype(int)):
        dx = (np.mod(x - track[f, 0] + 0.5, 1.0) - 0.5)[None, :].astype(np.float32)
        dy = (np.mod(y - track[f, 1] + 0.5, 1.0) - 0.5)[:, None].astype(np.float32)
        for shape in world.SHAPES:
            overlaps = []
            for scale in (0.93, 1.0, 1.07):
                ideal = world.coverage(shape, radius * scale, dx, dy, pixel)
                overlaps.append(np.minimum(ideal, mask[f]).sum() / np.maximum(ideal, mask[f]).sum())
            scores[shape] += float(max(overlaps))
    return max(scores, key=lambda shape: scores[shape])


def _check_motion(track: Floats, motion: world.Motion, fps: float) -> Iterable[Check]:
    seconds = (len(track) - 1) / fps
    gone = track[-1] - track[0]
    speed = float(np.hypot(*gone)) / seconds
    if motion.kind in ("still", "drift"):
        found = "still" if speed < STILL_BELOW else "slowly" if speed < SLOW_BELOW else "fast"
        yield Check("speed", motion.speed or "still", found)
    if motion.kind in ("drift", "dash"):
        yield Check("direction", motion.way, _way(gone) if speed >= STILL_BELOW else "none")
    elif motion.kind == "orbit":
        arm = track - track.mean(0)
        twice = (arm[:-1, 0] * arm[1:, 1] - arm[:-1, 1] * arm[1:, 0]).sum()
        turning = float(twice)  # twice the swept area
        # One full turn sweeps 2 pi r^2 of it; y points down, so positive is clockwise.
        enough = (
            0.25 * 2 * math.pi * world.ORBIT_RADIUS**2 * min(1.0, world.ORBIT_TURNS_PER_S * seconds)
        )
        way = "clockwise" if turning > 0 else "counterclockwise"
        yield Check("direction", motion.way, way if abs(turning) >= enough else "none")
    elif motion.kind == "bounce":
        spread = track.std(0)
        axis = "vertical" if spread[1] > spread[0] else "horizontal"
        yield Check("direction", motion.way, axis if spread.max() > 0.05 else "none")


def _way(gone: Floats) -> str:
    if abs(gone[0]) > abs(gone[1]):
        return "right" if gone[0] > 0 else "left"
    return "down" if gone[1] > 0 else "up"
