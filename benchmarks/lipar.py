"""Measures LIPAR: what pruning a third of the tokens of an edited video saves, and what recovered
attention is worth.

    python benchmarks/lipar.py [--model flipbook-causal] [--captions 6] [--parts speed window
    quality edit]

`speed`    a block-causal Wan of random weights and middling size, with flipbook's autoencoder: 32 %
of all tokens
           pruned against none pruned, end to end (text, encode, mask, blocks, decode).
`window`   as `speed`, with the unpruned stream under a window that holds all frames as well.
`quality`  the model given (flipbook itself has not learnt to be causal): distance to the unpruned
stream of the same
           seed, in kept and pruned regions, for LIPAR, its rivals, and keys that are exact: the
           best recovery could do.
`edit`     flipbook as it is, all frames at once: the method `lipar` in its three forms of recovery.

Prints a card and one JSON line. Both streams of a pair have the same window, steps, noise and
autoencoder.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flipbook_training import world
from vidplat.domain import OperatingPoint
from vidplat.methods.lipar.mask import MaskRule, keep_mask
from vidplat.methods.pass_size import BlockSize
from vidplat.quality import motion_energy
from vidplat.workers.blocks.memory import Window
from vidplat.workers.blocks.stream import StreamPlan, stream
from vidplat.workers.models.catalogue import describe_model, locate
from vidplat.workers.models.family import Condition
from vidplat.workers.models.loading import load_family

PARTS = ("speed", "window", "quality", "edit")
PRUNED = 0.32  # of all tokens, the paper's average
FIRST_SEED = 9_600_000_000  # of scenes; away from training
FRAMES = 57  # the speed part: 15 latent frames, five blocks
MIDDLING = {"num_attention_heads": 6, "attention_head_dim": 128, "ffn_dim": 3072, "num_layers": 8}
# for flipbook's autoencoder: still regions change by 0.08 per frame (median), moving ones by 0.88
TAU1 = 0.3
QUALITY_PLAN = StreamPlan(
    steps=(600, 500, 400, 300, 200, 100), shift=3.0
)  # flipbook-causal is no few-step model


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--model", default="flipbook-causal")
    words.add_argument("--captions", type=int, default=6)
    words.add_argument("--repeats", type=int, default=2)
    words.add_argument("--threads", type=int, default=1)
    words.add_argument(
        "--side", type=int, default=160, help="of the speed part's video; a token is 8x8 pixels"
    )
    words.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    told = words.parse_args()
    torch.set_num_threads(told.threads)
    family: Any = load_family(locate(told.model), "cpu")
    answer: dict[str, Any] = {
        "benchmark": "lipar",
        "model": told.model,
        "revision": describe_model(told.model)[0].revision,
    }
    with torch.inference_mode():
        if {"speed", "window"} & set(told.parts):
            answer["speed"] = speed(family, told.repeats, told.side, wide="window" in told.parts)
        if "quality" in told.parts:
            answer["quality"] = quality(family, told.captions)
        if "edit" in told.parts:
            answer["edit"] = edits(told.captions)
    answer |= {
        "threads": told.threads,
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("torch", "diffusers", "vidplat")},
    }
    print(json.dumps(answer))


# --- speed --------------------------------------------------------------------------------------


def speed(family: Any, repeats: int, side: int, *, wide: bool) -> dict[str, Any]:
    """Whole edits, the best of `repeats` turns taken in alternation.

    In processor seconds, so that others on the machine do not count; the ratio of wall times is
    told beside it.
    """
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    model = WanTransformer3DModel(
        patch_size=(1, 1, 1),
        in_channels=48,
        out_channels=48,
        text_dim=128,
        freq_dim=128,
        rope_max_seq_len=64,
        **MIDDLING,
    ).eval()
    caption, video = a_scene(0, side=side, frames=FRAMES)
    rule, share = rule_for(family.encode_video(video)[0], PRUNED)

    def edited(plan: StreamPlan, pruned: bool) -> dict[str, float]:
        laps, since, began = {}, time.process_time(), time.perf_counter()

        def lap(name: str) -> None:
            nonlocal since
            now = time.process_time()
            laps[name], since = now - since, now

        condition = Condition(family.encode(recoloured(caption)), None, 1.0)
        lap("text")
        source = family.encode_video(video)
        lap("encode")
        keep = keep_mask(source[0], (1, 1), rule) if pruned else None
        lap("mask")
        made = torch.cat(list(stream(model, condition, source, plan, keep=keep)), dim=2)
        lap("blocks")
        family.decode(made)
        lap("decode")
        walls[name_of[plan, pruned]].append(time.perf_counter() - began)
        return laps

    plans = {"unpruned": (StreamPlan(), False), "pruned": (StreamPlan(), True)}
    if wide:
        plans["unpruned, window of all frames"] = (
            replace(StreamPlan(), window=Window(0, 21, 21)),
            False,
        )
    name_of = {pair: name for name, pair in plans.items()}
    walls: dict[str, list[float]] = defaultdict(list)
    best: dict[str, dict[str, float]] = {}
    for turn in range(repeats):
        for name, (plan, pruned) in plans.items():
            if turn and "window" in name:
                continue  # the slowest, and beside the point
            laps = edited(plan, pruned)
            if name not in best or sum(laps.values()) < sum(best[name].values()):
                best[name] = laps
    whole = {name: sum(laps.values()) for name, laps in best.items()}
    found = {
        "side": side,
        "pruned_share": round(share, 4),
        "ratio": round(whole["unpruned"] / whole["pruned"], 3),
        "ratio_of_wall_times": round(min(walls["unpruned"]) / min(walls["pruned"]), 3),
        "ratio_of_blocks": round(best["unpruned"]["blocks"] / best["pruned"]["blocks"], 3),
        "ratio_of_flops": round(flops_ratio((side // 8) ** 2, share), 3),
        "ratio_of_window_alone": round(whole[list(plans)[-1]] / whole["unpruned"], 3)
        if wide
        else None,
        "laps": {
            name: {lap: round(value, 3) for lap, value in laps.items()}
            for name, laps in best.items()
        },
        "tau1": rule.tau1,
    }
    print(
        f"speed: random Wan, {MIDDLING['num_layers']} layers, {FRAMES} frames of {side}x{side}, "
        "3 + 1 passes"
    )
    print(
        f"  {'':<32} {'text':>7} {'encode':>7} {'mask':>7} {'blocks':>7} {'decode':>7} "
        f"{'all':>7}   relative"
    )
    for name, laps in best.items():
        cells = " ".join(f"{laps[lap] / whole['unpruned']:7.3f}" for lap in laps)
        print(
            f"  {name:<32} {cells} {whole[name] / whole['unpruned']:7.3f}   "
            f"{whole['unpruned'] / whole[name]:.2f}x"
        )
    print(
        f"  {share:.1%} of tokens pruned; by FLOPs of the blocks alone "
        f"{found['ratio_of_flops']:.2f}x\n"
    )
    return found


def flops_ratio(per_frame: int, share: float) -> float:
    """Of a five-block stream whose first block is whole and whose others share the pruning
    evenly."""
    block, window = 3 * per_frame, (3, 6, 7, 7, 7)
    kept = [block] + [block * (1 - share * 5 / 4)] * 4
    width = MIDDLING["num_attention_heads"] * MIDDLING["attention_head_dim"]
    size = BlockSize(width, MIDDLING["ffn_dim"], 32)
    whole = sum(sum(size.flops(block, frames * per_frame)) for frames in window)
    pairs = zip(kept, window, strict=True)
    return whole / sum(sum(size.flops(round(k), frames * per_frame)) for k, frames in pairs)


# --- quality ------------------------------------------------------------------------------------


def quality(family: Any, captions: int) -> dict[str, Any]:
    """Every rival against the unpruned stream of its seed; PSNR of decoded pixels by region, in
    dB."""
    rows: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number, (caption, video) in enumerate(scenes_worth_pruning(family, captions)):
        source = family.encode_video(video)
        condition = Condition(family.encode(recoloured(caption)), family.encode(""), 3.0)
        rule = flipbook_rule(QUALITY_PLAN.block)
        keep = keep_mask(source[0], (1, 1), rule)

        def made(
            mask: Tensor | None,
            recovery: str = "noise-aware",
            plan: StreamPlan = QUALITY_PLAN,
            source: Tensor = source,
            condition: Condition = condition,
            seed: int = number,
        ) -> np.ndarray:
            blocks = stream(
                family.transformers[0],
                condition,
                source,
                plan,
                seed=seed,
                keep=mask,
                recovery=recovery,
            )
            frames: np.ndarray = family.decode(torch.cat(list(blocks), dim=2))
            return frames

        reference = made(None)
        generator = torch.Generator().manual_seed(number)
        rivals: dict[str, tuple[Tensor | None, np.ndarray]] = {
            "LIPAR, noise-aware": (keep, made(keep)),
            "pruning, noisy copies": (keep, made(keep, "noisy")),
            "pruning alone": (keep, made(keep, "none")),
            "every key its own (bound)": (keep, made(keep, "exact")),
        }
        masks = {
            "random mask": random_mask(keep, generator),
            "no long-term test": keep_mask(source[0], (1, 1), replace(rule, long_term=False)),
            "no dilation": keep_mask(source[0], (1, 1), replace(rule, dilate=False)),
            "pixel-difference mask": pixel_mask(video, keep),
            "whole frames skipped": skipped_frames(keep),
        }
        rivals |= {name: (mask, made(mask)) for name, mask in masks.items()}
        rivals["window trimmed to (1, 3)"] = (
            None,
            made(None, plan=replace(QUALITY_PLAN, window=Window(1, 3, 21))),
        )
        for name, (mask, frames) in rivals.items():
            here = torch.ones_like(keep) if mask is None else with_first_block(mask)
            kept, pruned = region_psnr(frames, reference, here)
            rows[name]["kept_db"].append(kept)
            rows[name]["pruned_db"].append(pruned)
            rows[name]["share"].append(1 - float(here.float().mean()))
            rows[name]["motion"].append(motion_energy(frames) / max(motion_energy(reference), 1e-6))
    found = {
        name: {key: round(mean_of(values), 3) for key, values in row.items()}
        for name, row in rows.items()
    }
    gain = found["LIPAR, noise-aware"]["kept_db"] - found["pruning alone"]["kept_db"]
    print(
        f"quality: {captions} edits, PSNR to the unpruned stream of the same seed and window, "
        "motion relative to it"
    )
    print(f"  {'':<28} {'pruned':>7} {'kept dB':>8} {'pruned dB':>10} {'motion':>7}")
    for name, row in found.items():
        print(
            f"  {name:<28} {row['share']:7.1%} {row['kept_db']:8.2f} {row['pruned_db']:10.2f} "
            f"{row['motion']:7.2f}"
        )
    bound = found["every key its own (bound)"]["kept_db"] - found["pruning alone"]["kept_db"]
    print(f"  recovery is worth {gain:+.2f} dB in kept regions, exact keys {bound:+.2f} dB\n")
    return {
        "rivals": found,
        "recovery_gain_db": round(gain, 3),
        "bound_db": round(bound, 3),
        "seeds": f"0..{captions - 1}",
    }


# --- all frames at once -------------------------------------------------------------------------


def edits(captions: int) -> dict[str, Any]:
    """The method `lipar` on flipbook as it is."""
    from vidplat.methods.installed import Installed
    from vidplat.workers.edit import encoded
    from vidplat.workers.generate import generate
    from vidplat.workers.making import Ask

    family: Any = load_family(locate("flipbook"), "cpu")
    _, shape = describe_model("flipbook")
    installed = Installed(family.transformers)
    rows: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number, (caption, video) in enumerate(scenes_worth_pruning(family, captions)):
        rule = flipbook_rule(None)
        keep = keep_mask(family.encode_video(video)[0], (1, 1), rule)
        spec, point = replace(shape.defaults, seed=number), OperatingPoint(7)

        def made(
            method: str,
            video: np.ndarray = video,
            caption: str = caption,
            spec: Any = spec,
            point: Any = point,
        ) -> Any:
            installed.use(method)
            source = encoded(family, video, 0.6, spec)
            ask = Ask(recoloured(caption), "", spec, point, source)
            return generate(family, ask, installed)

        plain = made("")
        for recovery in ("noise-aware", "noisy", "none"):
            done = made(f"lipar:tau1={rule.tau1:g},tau2={rule.tau2:g},recovery={recovery}")
            kept, pruned = region_psnr(done.frames, plain.frames, keep)
            rows[recovery]["kept_db"].append(kept)
            rows[recovery]["pruned_db"].append(pruned)
            rows[recovery]["denoise"].append(plain.phases["denoise"] / done.phases["denoise"])
    installed.remove()
    found = {
        name: {key: round(mean_of(values), 3) for key, values in row.items()}
        for name, row in rows.items()
    }
    print("edit: flipbook, all frames at once, 7 steps of 12 at strength 0.6")
    for name, row in found.items():
        print(
            f"  {name:<14} kept {row['kept_db']:6.2f} dB  pruned {row['pruned_db']:6.2f} dB  "
            f"{row['denoise']:.2f}x"
        )
    print()
    return found


# --- scenes and masks ---------------------------------------------------------------------------


def a_scene(number: int, *, side: int = 64, frames: int = 33) -> tuple[str, np.ndarray]:
    """Caption and true video."""
    return world.example(FIRST_SEED + 1000 * number, num_frames=frames, height=side, width=side)


def scenes_worth_pruning(family: Any, count: int) -> list[tuple[str, np.ndarray]]:
    """Scenes of which a stream prunes a quarter to two fifths at flipbook's thresholds: about
    PRUNED on average."""
    found: list[tuple[str, np.ndarray]] = []
    number = 0
    while len(found) < count:
        caption, video = a_scene(number)
        keep = keep_mask(family.encode_video(video)[0], (1, 1), flipbook_rule(3))
        share = 1 - float(with_first_block(keep).float().mean())
        if (
            0.25 <= share <= 0.40 and "cut to" not in caption
        ):  # a cut's blocks are either whole or nothing
            found.append((caption, video))
        number += 1
    return found


def flipbook_rule(block: int | None) -> MaskRule:
    """Thresholds in units of flipbook's latents; of a stream with `block`, else of all frames at
    once."""
    return MaskRule(tau1=TAU1, tau2=2 * TAU1, block=block or 1, causal=block is not None)


def recoloured(caption: str) -> str:
    """The caption with its first colour changed: what the edit asks for."""
    word = next(colour for colour in world.COLOURS if f" {colour} " in caption)
    return caption.replace(word, "cyan" if word != "cyan" else "red", 1)


def rule_for(source: Tensor, share: float) -> tuple[MaskRule, float]:
    """The thresholds at which a stream prunes about `share` of all tokens, and the share
    reached."""

    def pruned(rule: MaskRule) -> float:
        return 1 - float(with_first_block(keep_mask(source, (1, 1), rule)).float().mean())

    low, high = 0.0, 4.0
    for _ in range(24):  # pruning grows with the thresholds, nearly always
        middle = (low + high) / 2
        rule = MaskRule(tau1=middle, tau2=2 * middle, block=3, causal=True)
        low, high = (low, middle) if pruned(rule) > share else (middle, high)
    rule = MaskRule(tau1=round(high, 4), tau2=round(2 * high, 4), block=3, causal=True)
    return rule, pruned(rule)


def with_first_block(keep: Tensor, block: int = 3) -> Tensor:
    """The mask as a stream uses it: the first block whole."""
    whole = keep.clone()
    whole[:block] = True
    return whole


def random_mask(keep: Tensor, generator: torch.Generator) -> Tensor:
    """As many tokens per frame as `keep` has, anywhere."""
    order = torch.rand(keep.shape, generator=generator).flatten(1).argsort(1).argsort(1)
    return (order < keep.flatten(1).sum(1, keepdim=True)).view(keep.shape)


def pixel_mask(video: np.ndarray, keep: Tensor) -> Tensor:
    """As many tokens per frame as `keep` has, where the pixels of a token changed most."""
    frames, rows, columns = keep.shape
    change = np.abs(np.diff(video.astype(np.float32), axis=0)).mean(-1)
    cells = change.reshape(len(change), rows, video.shape[1] // rows, columns, -1).mean((2, 4))
    groups = torch.from_numpy(cells.reshape(frames - 1, 4, rows, columns).max(1))
    score = torch.cat([torch.full((1, rows, columns), torch.inf), groups])
    order = score.flatten(1).argsort(1, descending=True).argsort(1)
    return (order < keep.flatten(1).sum(1, keepdim=True)).view(keep.shape)


def skipped_frames(keep: Tensor, block: int = 3) -> Tensor:
    """Whole frames dropped, evenly from the end of each block on, about as many tokens as `keep`
    drops."""
    drop = round(float((~with_first_block(keep)).flatten(1).float().mean(1).sum()))
    later = [
        frame for turn in range(1, block + 1) for frame in range(2 * block - turn, len(keep), block)
    ]
    mask = torch.ones_like(keep)
    mask[later[:drop]] = False
    return mask


def region_psnr(frames: np.ndarray, reference: np.ndarray, keep: Tensor) -> tuple[float, float]:
    """PSNR in the pixels of kept and of pruned tokens; NaN for a region that is empty. At most 60
    dB."""
    rows, columns = frames.shape[1] // keep.shape[1], frames.shape[2] // keep.shape[2]
    shown = keep.repeat_interleave(rows, 1).repeat_interleave(columns, 2)
    where = torch.cat(
        [shown[:1], shown[1:].repeat_interleave(4, 0)]
    ).numpy()  # one pixel frame, then four per frame
    error = ((frames.astype(np.float64) - reference) ** 2).mean(-1)

    def psnr(mask: np.ndarray) -> float:
        if not mask.any():
            return float("nan")
        return float(min(60.0, 10 * np.log10(255**2 / max(error[mask].mean(), 1e-9))))

    return psnr(where), psnr(~where)


def mean_of(values: list[float]) -> float:
    known = [value for value in values if value == value]
    return statistics.mean(known) if known else float("nan")


if __name__ == "__main__":
    main()
