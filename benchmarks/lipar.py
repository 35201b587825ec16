"""What pruning a third of an edited video's tokens saves, and what recovered attention is worth.

    python -m benchmarks.lipar [--model flipbook-causal] [--captions 6] [--repeats 2] [--side 160]
        [--parts speed quality edit]

speed      a block-causal Wan of random weights and middling size, with flipbook's autoencoder: 32 %
           of all tokens pruned against none pruned, end to end (text, encode, mask, blocks, decode)
quality    the model given (flipbook itself has not learnt to be causal): distance to the unpruned
           stream of the same seed, in kept and pruned regions, for LIPAR, its rivals, and keys that
           are exact: the best recovery could do
edit       flipbook as it is, all frames at once: the method `lipar` in its three forms of recovery

Both streams of a pair have the same window, steps, noise and autoencoder.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import FIRST_SEEDS, MOST_DB, Row, answer, head, mean_of, options
from benchmarks.making import Maker
from benchmarks.rivals.masks import pixel_mask, random_mask, skipped_frames, with_first_block
from flipbook_training import world
from vidplat.domain import OperatingPoint
from vidplat.methods.lipar.mask import MaskRule, keep_mask
from vidplat.methods.pass_size import BlockSize
from vidplat.quality import motion_energy
from vidplat.workers.blocks.memory import Window
from vidplat.workers.blocks.stream import StreamPlan, stream
from vidplat.workers.edit import encoded
from vidplat.workers.generate import generate
from vidplat.workers.making import Ask, Made
from vidplat.workers.models.family import Condition

PARTS = ("speed", "quality", "edit")
PRUNED = 0.32  # of all tokens, the paper's average
FRAMES = 57  # the speed part: 15 latent frames, five blocks
MIDDLING = {"num_attention_heads": 6, "attention_head_dim": 128, "ffn_dim": 3072, "num_layers": 8}
# for flipbook's autoencoder: still regions change by 0.08 per frame (median), moving ones by 0.88
TAU1 = 0.3
# flipbook-causal is no few-step model
QUALITY_PLAN = StreamPlan(steps=(600, 500, 400, 300, 200, 100), shift=3.0)
RECOVERIES = {
    "LIPAR, noise-aware": "noise-aware",
    "pruning, noisy copies": "noisy",
    "pruning alone": "none",
    "every key its own (bound)": "exact",
}


# --- speed --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Laps:
    """Processor seconds of the parts of one edit, so that others on the machine do not count; and
    wall seconds of all."""

    parts: dict[str, float]
    wall_s: float

    @property
    def all_s(self) -> float:
        return sum(self.parts.values())


def speed(family: Any, repeats: int, side: int) -> Row:
    """Whole edits, the best of `repeats` turns taken in alternation."""
    model = middling()
    caption, video = a_scene(0, side=side, frames=FRAMES)
    rule, share = rule_for(family.encode_video(video)[0], PRUNED)
    turns: dict[str, list[Laps]] = defaultdict(list)
    for _ in range(repeats):
        for name, one in (("unpruned", None), ("pruned", rule)):
            turns[name].append(timed_edit(family, model, recoloured(caption), video, one))
    best = {name: min(laps, key=lambda one: one.all_s) for name, laps in turns.items()}
    walls = {name: min(one.wall_s for one in laps) for name, laps in turns.items()}
    whole, pruned = best["unpruned"], best["pruned"]
    print(f"speed: random Wan, {len(model.blocks)} layers, {FRAMES} frames of {side}x{side}")
    print(f"  {'':<32} " + " ".join(f"{part:>7}" for part in (*whole.parts, "all")) + "   relative")
    for name, laps in best.items():
        cells = " ".join(f"{one / whole.all_s:7.3f}" for one in (*laps.parts.values(), laps.all_s))
        print(f"  {name:<32} {cells}   {whole.all_s / laps.all_s:.2f}x")
    by_flops = flops_ratio((side // 8) ** 2, share)
    print(f"  {share:.1%} of tokens pruned; by FLOPs of the blocks alone {by_flops:.2f}x\n")
    return {
        "side": side,
        "pruned_share": share,
        "tau1": rule.tau1,
        "ratio": whole.all_s / pruned.all_s,
        "ratio_of_wall_times": walls["unpruned"] / walls["pruned"],
        "ratio_of_blocks": whole.parts["blocks"] / pruned.parts["blocks"],
        "ratio_of_flops": by_flops,
        "laps": {name: laps.parts for name, laps in best.items()},
    }


def middling() -> Any:
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    shape = {"in_channels": 48, "out_channels": 48, "text_dim": 128, "freq_dim": 128}
    return WanTransformer3DModel(
        patch_size=(1, 1, 1), rope_max_seq_len=64, **shape, **MIDDLING
    ).eval()


def timed_edit(
    family: Any, model: Any, text: str, video: np.ndarray, rule: MaskRule | None
) -> Laps:
    parts: dict[str, float] = {}
    began, since = time.perf_counter(), time.process_time()

    def lap(name: str) -> None:
        nonlocal since
        now = time.process_time()
        parts[name], since = now - since, now

    condition = Condition(family.encode(text), None, 1.0)
    lap("text")
    source = family.encode_video(video)
    lap("encode")
    keep = None if rule is None else keep_mask(source[0], (1, 1), rule)
    lap("mask")
    made = torch.cat(list(stream(model, condition, source, StreamPlan(), keep=keep)), dim=2)
    lap("blocks")
    family.decode(made)
    lap("decode")
    return Laps(parts, time.perf_counter() - began)


def rule_for(source: Tensor, share: float) -> tuple[MaskRule, float]:
    """The thresholds at which a stream prunes about `share` of all tokens, and the share
    reached."""

    def rule(tau1: float) -> MaskRule:
        return MaskRule(tau1=tau1, tau2=2 * tau1, block=3, causal=True)

    def pruned(tau1: float) -> float:
        return 1 - float(with_first_block(keep_mask(source, (1, 1), rule(tau1))).float().mean())

    low, high = 0.0, 4.0
    for _ in range(24):  # pruning grows with the thresholds, nearly always
        middle = (low + high) / 2
        low, high = (low, middle) if pruned(middle) > share else (middle, high)
    tau1 = round(high, 4)
    return rule(tau1), pruned(tau1)


def flops_ratio(per_frame: int, share: float) -> float:
    """Of a five-block stream whose first block is whole and whose others share the pruning
    evenly."""
    block, window = 3 * per_frame, (3, 6, 7, 7, 7)
    kept = [block] + [round(block * (1 - share * 5 / 4))] * 4
    width = MIDDLING["num_attention_heads"] * MIDDLING["attention_head_dim"]
    size = BlockSize(width, MIDDLING["ffn_dim"], 32)
    whole = sum(sum(size.flops(block, frames * per_frame)) for frames in window)
    pairs = zip(kept, window, strict=True)
    return whole / sum(sum(size.flops(k, frames * per_frame)) for k, frames in pairs)


# --- quality ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edit:
    """An edit of a scene as a stream of blocks."""

    family: Any
    source: Tensor
    condition: Condition
    seed: int

    def frames(
        self,
        mask: Tensor | None,
        recovery: str = "noise-aware",
        plan: StreamPlan = QUALITY_PLAN,
    ) -> np.ndarray:
        what = self.family.transformers[0], self.condition, self.source, plan
        blocks = stream(*what, seed=self.seed, keep=mask, recovery=recovery)
        decoded: np.ndarray = self.family.decode(torch.cat(list(blocks), dim=2))
        return decoded


def quality(family: Any, captions: int) -> Row:
    """Every rival against the unpruned stream of its seed; PSNR of decoded pixels by region, in
    dB."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for number, (caption, video) in enumerate(scenes_worth_pruning(family, captions)):
        condition = Condition(family.encode(recoloured(caption)), family.encode(""), 3.0)
        edit = Edit(family, family.encode_video(video), condition, number)
        reference = edit.frames(None)
        for name, mask, frames in rivals_of(edit, video):
            here = with_first_block(mask)
            kept, pruned = region_psnr(frames, reference, here)
            motion = motion_energy(frames) / max(motion_energy(reference), 1e-6)
            share = 1 - float(here.float().mean())
            row = {"kept_db": kept, "pruned_db": pruned, "share": share, "motion": motion}
            rows[name].append(row)
    names = ("share", "kept_db", "pruned_db", "motion")
    found = {name: {key: mean_of(group, key) for key in names} for name, group in rows.items()}
    gain, bound = (
        found[name]["kept_db"] - found["pruning alone"]["kept_db"]
        for name in ("LIPAR, noise-aware", "every key its own (bound)")
    )
    print(f"quality: {captions} edits, PSNR to the unpruned stream, motion relative to it")
    print(f"  {'':<28} {'pruned':>7} {'kept dB':>8} {'pruned dB':>10} {'motion':>7}")
    for name, row in found.items():
        cells = f"{row['kept_db']:8.2f} {row['pruned_db']:10.2f} {row['motion']:7.2f}"
        print(f"  {name:<28} {row['share']:7.1%} {cells}")
    print(f"  recovery is worth {gain:+.2f} dB in kept regions, exact keys {bound:+.2f} dB\n")
    return {"rivals": found, "recovery_gain_db": gain, "bound_db": bound}


def rivals_of(edit: Edit, video: np.ndarray) -> list[tuple[str, Tensor, np.ndarray]]:
    """Name, mask and frames of each."""
    source, rule = edit.source[0], flipbook_rule(QUALITY_PLAN.block)
    keep = keep_mask(source, (1, 1), rule)
    masks = {
        "random mask": random_mask(keep, torch.Generator().manual_seed(edit.seed)),
        "no long-term test": keep_mask(source, (1, 1), replace(rule, long_term=False)),
        "no dilation": keep_mask(source, (1, 1), replace(rule, dilate=False)),
        "pixel-difference mask": pixel_mask(video, keep),
        "whole frames skipped": skipped_frames(keep),
    }
    trimmed = replace(QUALITY_PLAN, window=Window(1, 3, 21))
    return [
        *((name, keep, edit.frames(keep, recovery)) for name, recovery in RECOVERIES.items()),
        *((name, mask, edit.frames(mask)) for name, mask in masks.items()),
        ("window trimmed to (1, 3)", torch.ones_like(keep), edit.frames(None, plan=trimmed)),
    ]


def region_psnr(frames: np.ndarray, reference: np.ndarray, keep: Tensor) -> tuple[float, float]:
    """PSNR in the pixels of kept and of pruned tokens; NaN for a region that is empty."""
    rows, columns = frames.shape[1] // keep.shape[1], frames.shape[2] // keep.shape[2]
    shown = keep.repeat_interleave(rows, 1).repeat_interleave(columns, 2)
    # one pixel frame, then four per latent frame
    where = torch.cat([shown[:1], shown[1:].repeat_interleave(4, 0)]).numpy()
    error = ((frames.astype(np.float64) - reference) ** 2).mean(-1)

    def psnr(mask: np.ndarray) -> float:
        if not mask.any():
            return float("nan")
        return float(min(MOST_DB, 10 * np.log10(255**2 / max(error[mask].mean(), 1e-9))))

    return psnr(where), psnr(~where)


# --- all frames at once -------------------------------------------------------------------------


def edits(captions: int, threads: int) -> Row:
    """The method `lipar` on flipbook as it is."""
    maker = Maker("flipbook", threads)
    rule = flipbook_rule(None)
    thresholds = f"tau1={rule.tau1:g},tau2={rule.tau2:g}"
    rows: dict[str, list[Row]] = defaultdict(list)
    for number, (caption, video) in enumerate(scenes_worth_pruning(maker.family, captions)):
        spec = replace(maker.shape.defaults, seed=number)
        source = encoded(maker.family, video, 0.6, spec)
        keep = keep_mask(source.latents[0], (1, 1), rule)
        ask = Ask(recoloured(caption), "", spec, OperatingPoint(7), source)

        def made(method: str, ask: Ask = ask) -> Made:
            maker.installed.use(method)
            return generate(maker.family, ask, maker.installed)

        plain = made("")
        for recovery in ("noise-aware", "noisy", "none"):
            done = made(f"lipar:{thresholds},recovery={recovery}")
            kept, pruned = region_psnr(done.frames, plain.frames, keep)
            faster = plain.phases["denoise"] / done.phases["denoise"]
            rows[recovery].append({"kept_db": kept, "pruned_db": pruned, "denoise": faster})
    names = ("kept_db", "pruned_db", "denoise")
    found = {name: {key: mean_of(group, key) for key in names} for name, group in rows.items()}
    print("edit: flipbook, all frames at once, 7 steps of 12 at strength 0.6")
    for name, row in found.items():
        regions = f"kept {row['kept_db']:6.2f} dB  pruned {row['pruned_db']:6.2f} dB"
        print(f"  {name:<14} {regions}  {row['denoise']:.2f}x")
    return found


# --- scenes and thresholds ------------------------------------------------------------------------


def a_scene(number: int, *, side: int = 64, frames: int = 33) -> tuple[str, np.ndarray]:
    """Caption and true video."""
    seed = FIRST_SEEDS["lipar"] + 1000 * number
    return world.example(seed, num_frames=frames, height=side, width=side)


def scenes_worth_pruning(family: Any, count: int) -> list[tuple[str, np.ndarray]]:
    """Scenes of which a stream prunes a quarter to two fifths at flipbook's thresholds: about
    PRUNED on average. Cuts are left out, whose blocks are either whole or nothing."""
    found: list[tuple[str, np.ndarray]] = []
    number = 0
    while len(found) < count:
        caption, video = a_scene(number)
        keep = keep_mask(family.encode_video(video)[0], (1, 1), flipbook_rule(3))
        share = 1 - float(with_first_block(keep).float().mean())
        if 0.25 <= share <= 0.40 and "cut to" not in caption:
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


def main() -> None:
    parser = options(__doc__, model="flipbook-causal", captions=6, repeats=2, threads=1)
    parser.add_argument("--side", type=int, default=160, help="of the speed part's video")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    told = parser.parse_args()
    maker = Maker(told.model, told.threads)
    found: dict[str, Row] = {}
    about = f"{told.model} {maker.ref.revision[:12]}, {told.threads} thread(s)"
    print(head(about, "lipar"))
    with torch.inference_mode():
        if "speed" in told.parts:
            found["speed"] = speed(maker.family, told.repeats, told.side)
        if "quality" in told.parts:
            found["quality"] = quality(maker.family, told.captions)
        if "edit" in told.parts:
            found["edit"] = edits(told.captions, told.threads)
    answer("lipar", **vars(told), revision=maker.ref.revision, **found)


if __name__ == "__main__":
    main()
