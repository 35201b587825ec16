"""The synthetic world that flipbook learns: scenes, captions, and an exact renderer.

A scene is a handful of words from a closed grammar (shape, colour, size, motion, background,
camera), so every caption has a true video, and `parse` can read back any caption that `describe`
wrote. Free choices that the caption does not tell (start positions, phases, texture offsets) live
in a `Layout`.

The world is a torus of side 1: whatever leaves on the left enters on the right, for objects and
background alike. Positions are (x, y) in world units, x to the right, y downwards; time is in
seconds. Object colours have one channel of at least 0.9, backgrounds none above 0.5: that gap is
what lets `prompt_fit` separate them without a network.

Axis letters: F frames, H rows, W columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

SHAPES = ("circle", "square", "triangle", "cross")
SIZES = {"small": 0.11, "large": 0.185}  # radius of the circle of equal area, world units
COLOURS = {
    "red": (0.95, 0.13, 0.12),
    "yellow": (0.96, 0.88, 0.10),
    "green": (0.12, 0.90, 0.18),
    "cyan": (0.10, 0.85, 0.96),
    "blue": (0.18, 0.36, 1.00),
    "magenta": (0.95, 0.18, 0.85),
    "white": (0.97, 0.97, 0.97),
}
# Each background has a light and a dark tone; plain shows their middle, textures wave between them.
BACKGROUNDS = {
    "black": ((0.16, 0.16, 0.16), (0.03, 0.03, 0.03)),
    "gray": ((0.49, 0.49, 0.49), (0.35, 0.35, 0.35)),
    "navy": ((0.10, 0.14, 0.44), (0.05, 0.07, 0.28)),
    "maroon": ((0.44, 0.09, 0.13), (0.28, 0.05, 0.07)),
    "forest": ((0.09, 0.38, 0.14), (0.04, 0.23, 0.07)),
}
TEXTURES = ("plain", "striped", "checkered")
TEXTURE_WAVES = 3  # periods of the texture across the world, in x (and in y when checkered)
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
SPEEDS = {"slowly": 0.10, "fast": 0.34}  # world units per second
PAN_SPEED = 0.25
ORBIT_RADIUS, ORBIT_TURNS_PER_S = 0.24, 0.5
# Turns from the right-hand end, clockwise: where an orbit begins, and how nearly.
ORBIT_TOP, ORBIT_SPREAD = 0.75, 0.25
BOUNCE_AMPLITUDE, BOUNCE_PERIOD_S = 0.26, 1.4
DASH_SPEED, DASH_LENGTH = 0.80, 0.48

#: Groups for reporting quality by kind of movement.
MOTION_CLASSES = ("still", "slow", "fast", "orbit", "bounce", "dash", "pan", "cut")


@dataclass(frozen=True)
class Motion:
    kind: str  # still, drift, orbit, bounce or dash
    # drift, dash: a direction; orbit: clockwise or counterclockwise; bounce: vertical or horizontal
    way: str = ""
    speed: str = ""  # drift only: slowly or fast


STILL = Motion("still")


@dataclass(frozen=True)
class Thing:
    size: str
    colour: str
    shape: str
    motion: Motion = STILL


@dataclass(frozen=True)
class Shot:
    """What one camera sees: one or two things before a background."""

    things: tuple[Thing, ...]
    texture: str
    background: str
    pan: str = ""  # "", left or right: where the camera turns; the picture moves the other way


@dataclass(frozen=True)
class Scene:
    """One shot, or two with a cut at half time."""

    shots: tuple[Shot, ...]

    @property
    def motion_class(self) -> str:
        """The scene's group among MOTION_CLASSES: its camera first, then its first moving thing."""
        if len(self.shots) > 1:
            return "cut"
        shot = self.shots[0]
        if shot.pan:
            return "pan"
        moving = [thing.motion for thing in shot.things if thing.motion != STILL]
        if not moving:
            return "still"
        if moving[0].kind == "drift":
            return {"slowly": "slow", "fast": "fast"}[moving[0].speed]
        return moving[0].kind


@dataclass(frozen=True)
class Layout:
    """What the caption leaves open, drawn from a seed."""

    centres: tuple[tuple[tuple[float, float], ...], ...]  # per shot and thing: middle of the path
    phases: tuple[tuple[float, ...], ...]  # per shot and thing: in [0, 1), for orbits and bounces
    offsets: tuple[tuple[float, float], ...]  # per shot: texture offset


class NotInGrammar(ValueError):
    """A caption that the world's grammar does not know."""


# --- captions ---------------------------------------------------------------------------------


def _motion_phrases(motion: Motion) -> tuple[str, ...]:
    if motion.kind == "still":
        return ("stays still", "rests")
    if motion.kind == "drift":
        if motion.speed == "fast":
            return (f"moves fast {motion.way}", f"moves quickly {motion.way}")
        return (f"moves slowly {motion.way}", f"drifts slowly {motion.way}")
    if motion.kind == "orbit":
        return (f"orbits {motion.way}", f"circles {motion.way}")
    if motion.kind == "bounce":
        return ("bounces up and down",) if motion.way == "vertical" else ("bounces left and right",)
    return (f"waits then dashes {motion.way}", f"pauses then dashes {motion.way}")


_PHRASES = {
    phrase: motion
    for motion in (
        STILL,
        *(Motion("drift", way, speed) for way in DIRECTIONS for speed in SPEEDS),
        *(Motion("orbit", way) for way in ("clockwise", "counterclockwise")),
        *(Motion("bounce", way) for way in ("vertical", "horizontal")),
        *(Motion("dash", way) for way in DIRECTIONS),
    )
    for phrase in _motion_phrases(motion)
}


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def describe(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """The scene's caption; with `rng`, one of its several wordings."""

    def pick(phrases: tuple[str, ...]) -> str:
        return phrases[0] if rng is None else phrases[int(rng.integers(len(phrases)))]

    def tell(shot: Shot, *, move: bool) -> str:
        parts = []
        for thing in shot.things:
            text = f"{_article(thing.size)} {thing.size} {thing.colour} {thing.shape}"
            parts.append(f"{text} {pick(_motion_phrases(thing.motion))}" if move else text)
        return (
            f"{' and '.join(parts)} on {_article(shot.texture)} {shot.texture} "
            f"{shot.background} background"
        )

    if len(scene.shots) == 2:
        return f"{tell(scene.shots[0], move=False)}, cut to {tell(scene.shots[1], move=False)}"
    shot = scene.shots[0]
    if shot.pan:
        return f"{tell(shot, move=False)}, the camera pans {shot.pan}"
    return tell(shot, move=True)


_THING = (
    rf"an? (?P<size>{'|'.join(SIZES)}) (?P<colour>{'|'.join(COLOURS)}) "
    rf"(?P<shape>{'|'.join(SHAPES)})"
)
_THING_RE = re.compile(
    rf"{_THING}(?: (?P<motion>{'|'.join(sorted(_PHRASES, key=len, reverse=True))}))?"
)
_SHOT_RE = re.compile(
    rf"(?P<things>.+?) on an? (?P<texture>{'|'.join(TEXTURES)}) "
    rf"(?P<background>{'|'.join(BACKGROUNDS)}) background"
)


def parse(caption: str) -> Scene:
    """The scene a caption tells; `NotInGrammar` when the words are not the world's."""
    text = " ".join(caption.lower().replace(".", " ").split())
    first, _, rest = text.partition(", the camera pans ")
    pan = rest.strip()
    if pan not in ("", "left", "right"):
        raise NotInGrammar(f"camera can pan left or right, not {pan!r}")
    shots = []
    for part in first.split(", cut to "):
        found = _SHOT_RE.fullmatch(part.strip())
        if not found:
            raise NotInGrammar(f"not a scene of this world: {part.strip()!r}")
        things, at = [], 0
        told = found["things"]
        while True:
            match = _THING_RE.match(told, at)
            if not match:
                raise NotInGrammar(f"not a thing of this world: {told[at:]!r}")
            motion = _PHRASES[match["motion"] or "stays still"]
            things.append(Thing(match["size"], match["colour"], match["shape"], motion))
            at = match.end()
            if at == len(told):
                break
            if not told.startswith(" and ", at):
                raise NotInGrammar(f"not a motion of this world: {told[at:]!r}")
            at += len(" and ")
        shots.append(Shot(tuple(things), found["texture"], found["background"], pan))
    if len(shots) > 2 or any(len(shot.things) > 2 for shot in shots):
        raise NotInGrammar("at most two things and one cut")
    return Scene(tuple(shots))


# --- drawing scenes at random -----------------------------------------------------------------


def draw_scene(rng: np.random.Generator) -> Scene:
    """A scene: 12 % pans, 10 % cuts, 16 % with two things, the rest one thing in any motion."""

    def choose(options: Iterable[str]) -> str:
        names = tuple(options)
        return names[int(rng.integers(len(names)))]

    def thing(motion: Motion, without: str = "") -> Thing:
        return Thing(
            choose(SIZES), choose([c for c in COLOURS if c != without]), choose(SHAPES), motion
        )

    def motion() -> Motion:
        at = rng.random()
        if at < 0.12:
            return STILL
        if at < 0.62:
            return Motion("drift", choose(DIRECTIONS), choose(SPEEDS))
        if at < 0.74:
            return Motion("orbit", choose(("clockwise", "counterclockwise")))
        if at < 0.86:
            return Motion("bounce", choose(("vertical", "horizontal")))
        return Motion("dash", choose(DIRECTIONS))

    kind = rng.random()
    if kind < 0.12:
        texture = choose(TEXTURES[1:])  # on a plain background a pan cannot be told from a drift
        pan = Shot((thing(STILL),), texture, choose(BACKGROUNDS), choose(("left", "right")))
        return Scene((pan,))
    if kind < 0.22:
        before = Shot((thing(STILL),), choose(TEXTURES), choose(BACKGROUNDS))
        after = thing(STILL, without=before.things[0].colour)
        texture = choose(TEXTURES)
        others = [name for name in BACKGROUNDS if name != before.background]
        return Scene((before, Shot((after,), texture, choose(others))))
    first = thing(motion())
    things: tuple[Thing, ...] = (first,)
    if kind > 0.84:
        other = STILL if rng.random() < 0.5 else Motion("drift", choose(DIRECTIONS), choose(SPEEDS))
        things = (first, thing(other, without=first.colour))
    return Scene((Shot(things, choose(TEXTURES), choose(BACKGROUNDS)),))


def draw_layout(scene: Scene, rng: np.random.Generator) -> Layout:
    """Start positions and phases. Paths of 33 frames at 16 fps stay clear of the edges; two things
    start apart."""
    centres, phases, offsets = [], [], []
    for shot in scene.shots:
        if len(shot.things) == 2:  # opposite corners, with jitter
            side = rng.choice([-1.0, 1.0], size=2)
            spots = [
                (0.5 + 0.22 * sign * side[0], 0.5 + 0.22 * sign * side[1]) for sign in (-1.0, 1.0)
            ]
            spread = 0.06
        else:
            spots, spread = [(0.5, 0.5)], 0.16
        at = []
        for thing, (x, y) in zip(shot.things, spots, strict=True):
            narrow = 0.05 if thing.motion.kind in ("orbit", "bounce", "dash") else spread
            drift = DIRECTIONS[thing.motion.way] if thing.motion.kind == "drift" else (0.0, 0.0)
            wide_x, wide_y = (0.05 if along else narrow for along in drift)
            at.append(
                (float(x + rng.uniform(-1, 1) * wide_x), float(y + rng.uniform(-1, 1) * wide_y))
            )
        centres.append(tuple(at))
        phases.append(tuple(_phase(thing.motion, float(rng.random())) for thing in shot.things))
        offsets.append((float(rng.random()), float(rng.random())))
    return Layout(tuple(centres), tuple(phases), tuple(offsets))


def _phase(motion: Motion, drawn: float) -> float:
    """An orbit begins within an eighth of a turn of the top; what swings, anywhere.

    Were an orbit to begin anywhere, the mean of its videos would be the same in both senses. A
    caption's word for it would then show in no denoiser's answer to pure noise, and flipbook did
    not learn it (docs/decisions/0006).
    """
    return (ORBIT_TOP + ORBIT_SPREAD * (drawn - 0.5)) % 1.0 if motion.kind == "orbit" else drawn


# --- movement ---------------------------------------------------------------------------------


def path(
    motion: Motion, centre: tuple[float, float], phase: float, times: Floats, duration_s: float
) -> Floats:
    """Positions (F, 2) in world units of a thing's centre; times (F,) in seconds since the shot
    began."""
    x, y = np.full_like(times, centre[0]), np.full_like(times, centre[1])
    if motion.kind == "drift":
        dx, dy = DIRECTIONS[motion.way]
        # The middle of the first two seconds lies on the centre, so short clips stay inside.
        gone = SPEEDS[motion.speed] * (times - min(duration_s, 2.0) / 2)
        x, y = x + dx * gone, y + dy * gone
    elif motion.kind == "orbit":
        sign = 1.0 if motion.way == "clockwise" else -1.0  # y points down
        angle = 2 * math.pi * (phase + sign * ORBIT_TURNS_PER_S * times)
        x, y = x + ORBIT_RADIUS * np.cos(angle), y + ORBIT_RADIUS * np.sin(angle)
    elif motion.kind == "bounce":
        turn = np.mod(phase + times / BOUNCE_PERIOD_S, 1.0)
        swing = BOUNCE_AMPLITUDE * (4 * np.abs(turn - 0.5) - 1)  # sharp turns, even speed
        x, y = (x, y + swing) if motion.way == "vertical" else (x + swing, y)
    elif motion.kind == "dash":
        dx, dy = DIRECTIONS[motion.way]
        gone = np.clip(DASH_SPEED * (times - duration_s / 2), 0.0, DASH_LENGTH) - DASH_LENGTH / 2
        x, y = x + dx * gone, y + dy * gone
    return np.stack([x, y], axis=-1)


# --- pixels -----------------------------------------------------------------------------------


def coverage(shape: str, radius: float, dx: Floats, dy: Floats, pixel: float) -> Floats:
    """How much of each pixel the shape covers, in [0, 1].

    dx, dy: pixel centre minus shape centre, world units. All shapes of one `radius` have the area
    pi * radius**2. The edge is a linear ramp one pixel wide over the signed distance.
    """
    area = math.pi * radius * radius
    if shape == "circle":
        distance = np.hypot(dx, dy) - radius
    elif shape == "square":
        half = math.sqrt(area) / 2
        distance = np.maximum(np.abs(dx), np.abs(dy)) - half
    elif shape == "triangle":
        # Equilateral, point upwards; side s: area = sqrt(3)/4 s^2, inradius = s / (2 sqrt 3).
        inradius = math.sqrt(4 * area / math.sqrt(3)) / (2 * math.sqrt(3))
        slope_x, slope_y = math.sqrt(3) / 2, 0.5
        distance = np.maximum(dy, np.maximum(slope_x * dx, -slope_x * dx) - slope_y * dy) - inradius
    elif shape == "cross":  # two bars of length 2a and width 2a/3: area = 20/9 a^2
        arm = math.sqrt(area * 9 / 20)
        x, y = np.abs(dx), np.abs(dy)
        distance = np.minimum(np.maximum(x - arm, y - arm / 3), np.maximum(x - arm / 3, y - arm))
    else:
        raise ValueError(f"unknown shape {shape!r}")
    return np.clip(0.5 - distance / pixel, 0.0, 1.0).astype(np.float32)


def _background(shot: Shot, x: Floats, y: Floats) -> Floats:
    """Tones (H, W, 3) at world points x (1, W) and y (H, 1): smooth waves, so that they survive any
    pixel size."""
    light, dark = (np.asarray(tone, np.float32) for tone in BACKGROUNDS[shot.background])
    wave = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    if shot.texture != "plain":
        wave = wave + np.sin(2 * math.pi * TEXTURE_WAVES * x)
    if shot.texture == "checkered":
        wave = wave * np.sin(2 * math.pi * TEXTURE_WAVES * y)
    tones: Floats = (light + dark) / 2 + wave[..., None] * ((light - dark) / 2)
    return tones


def render(
    scene: Scene, layout: Layout, *, num_frames: int, height: int, width: int, fps: float = 16.0
) -> NDArray[np.uint8]:
    """The scene's exact video (F, H, W, 3), uint8 sRGB values."""
    times = np.arange(num_frames) / fps
    duration_s = num_frames / fps
    pixel = 1.0 / min(height, width)
    grid_x = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None, :]
    grid_y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    shot_of = np.minimum(
        (np.arange(num_frames) * len(scene.shots)) // num_frames, len(scene.shots) - 1
    )
    video = np.empty((num_frames, height, width, 3), np.float32)
    for number, shot in enumerate(scene.shots):
        frames = np.flatnonzero(shot_of == number)
        if not len(frames):
            continue
        since = times[frames] - times[frames[0]]
        paths = [
            path(thing.motion, centre, phase, since, duration_s)
            for thing, centre, phase in zip(
                shot.things, layout.centres[number], layout.phases[number], strict=True
            )
        ]
        way = {"": 0.0, "left": -1.0, "right": 1.0}[shot.pan]
        off_x, off_y = layout.offsets[number]
        still_ground = None if shot.pan else _background(shot, grid_x + off_x, grid_y + off_y)
        for k, frame in enumerate(frames):
            camera = way * PAN_SPEED * since[k]
            ground = still_ground
            if ground is None:
                ground = _background(
                    shot, (grid_x + off_x + camera).astype(np.float32), grid_y + off_y
                )
            picture = np.array(ground, np.float32)
            for thing, places in zip(shot.things, paths, strict=True):
                # Shortest way round the torus, so that a thing across the edge shows on both sides.
                dx = np.mod(grid_x - (places[k, 0] - camera) + 0.5, 1.0) - 0.5
                dy = np.mod(grid_y - places[k, 1] + 0.5, 1.0) - 0.5
                covered = coverage(thing.shape, SIZES[thing.size], dx, dy, pixel)[..., None]
                picture += covered * (np.asarray(COLOURS[thing.colour], np.float32) - picture)
            video[frame] = picture
    return np.round(video * 255.0).astype(np.uint8)


def example(
    seed: int, *, num_frames: int = 33, height: int = 64, width: int = 64, fps: float = 16.0
) -> tuple[str, NDArray[np.uint8]]:
    """A caption and one of its true videos, (F, H, W, 3) uint8. Equal seeds give equal examples."""
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng)
    caption = describe(scene, rng)
    layout = draw_layout(scene, rng)
    return caption, render(
        scene, layout, num_frames=num_frames, height=height, width=width, fps=fps
    )
