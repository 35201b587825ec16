"""Short videos of the embedded models, one for each method and form, and what they were before.

`CASES` says how each video is made. `pixels.json`, beside this file, keeps of each the SHA-256
of its final latents (float32, as they go into the decoder), of its finished frames where the
method leaves frames out, and a summary of both. `test_pixels.py` makes the videos again and
compares.

Last bits depend on the kernels that a processor is given. So videos are made in a process of
their own, with one thread and the plainest kernels (`PLAIN`), which are meant to be the same on
every x86-64 machine. Whether they are is told by `canary`: stock parts of the libraries, asked
without any code of ours. Where its hash is the stored one, all hashes must be; elsewhere
summaries must agree within `LATENTS_WITHIN` and `FRAMES_WITHIN`.

    python -m tests.workers.pixels --write [NAME ...]

makes the videos (of these names, or all) and writes them down. That is right after a case was
added, after a library changed its arithmetic, or where a method is meant to make other videos
from now on; then the commit says which and why. It is never right in the commit that moves or
rewrites the code that this file guards: the point is that nothing changed.

Nothing here looks at mp4 files: the clip that edits start from is drawn, and finished frames
are taken before they are compressed. Left out: `sparse:path=flex`, which compiles for half a
minute on a CPU.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import vidplat
from vidplat.domain import Job, OperatingPoint, VideoSpec
from vidplat.workers import Worker

STORED = Path(__file__).with_name("pixels.json")
PLAIN = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}
#: `test_pixels.py` tells what was measured. Latents deviate by about 1, frames have 256 levels.
LATENTS_WITHIN, FRAMES_WITHIN = 0.005, 2.0
PLACES = 64  # values of a summary, evenly spaced
CAUSAL = "flipbook-causal"


@dataclass(frozen=True)
class Case:
    """One video. `name` stays when the method's text changes; the file keeps the text of then."""

    name: str
    method: str
    steps: int = 4  # that are taken
    of: int | None = None  # steps of the full run, where these are more
    frames: int = 17
    size: int = 32
    model: str = "flipbook"
    strength: float | None = None  # of an edit of `a_clip`; None: from text alone
    seed: int = 3
    shows: bool = False  # whether finished frames count as well as latents
    is_thorough: bool = False

    @property
    def spec(self) -> VideoSpec:
        guidance = 3.0 if self.model == CAUSAL else 6.0
        steps = self.of or self.steps
        return VideoSpec(self.size, self.size, self.frames, 16, steps, guidance, self.seed)


def _plain() -> Iterator[Case]:
    """Without a method around the model."""
    yield Case("full", "full", shows=True)
    yield Case("full, another seed", "full", seed=4, is_thorough=True)
    yield Case("steps", "steps", steps=3, of=5)
    yield Case("euler shift", "euler:shift=5", is_thorough=True)
    yield Case("unipc", "unipc")
    yield Case("edit", "full", steps=3, strength=0.6)
    yield Case("causal full", "full", steps=3, model=CAUSAL, shows=True)
    yield Case("causal steps", "steps", steps=2, of=6, model=CAUSAL, is_thorough=True)
    yield Case("causal edit", "full", steps=2, of=6, model=CAUSAL, strength=0.6, is_thorough=True)


def _hsa() -> Iterator[Case]:
    """The presets need many steps, of which few are whole. Seed 6 tells keys in 8 bits from others
    by 0.15; seed 3 by 0.02 alone."""
    yield Case("hsa 50", "hsa:50", steps=11)
    yield Case("hsa work", "hsa:work=0.4", steps=6, seed=6, is_thorough=True)
    yield Case("hsa fp8", "hsa:work=0.4,kv=fp8", steps=6, seed=6)
    yield Case("hsa + sparse", "hsa:work=0.4+sparse:k=1", steps=6)
    yield Case("hsa 75A", "hsa:75A", steps=12, is_thorough=True)
    yield Case("hsa 75B", "hsa:75B", steps=12, is_thorough=True)
    yield Case("hsa 25", "hsa:25", steps=21, is_thorough=True)
    yield Case("hsa offload", "hsa:work=0.4,kv=offload", steps=6, seed=6, is_thorough=True)
    yield Case("hsa edit", "hsa:work=0.4", steps=6, strength=0.6, is_thorough=True)
    yield Case("hsa + sparse lse", "hsa:work=0.4+sparse:k=1,path=lse", steps=6, is_thorough=True)


def _lipar() -> Iterator[Case]:
    for form, is_thorough in (
        ("recovery=auto", False),
        ("recovery=noise-aware", False),
        ("recovery=bias", True),
        ("recovery=noisy", True),
        ("recovery=none", True),
        ("tau1=0.3,tau2=0.6,min_keep=0.5", True),
        ("recovery=auto+sparse:k=1", True),
    ):
        yield Case(f"lipar {form}", f"lipar:{form}", 3, strength=0.6, is_thorough=is_thorough)
    for recovery in ("auto", "noisy", "none"):
        yield Case(
            f"causal lipar {recovery}",
            f"lipar:tau1=0.25,tau2=0.5,recovery={recovery}",
            steps=2,
            of=6,
            model=CAUSAL,
            strength=0.6,
            is_thorough=recovery != "auto",
        )


def _sparse() -> Iterator[Case]:
    for form, is_thorough in (
        ("k=1", False),
        ("k=1,dense_steps=2", False),
        ("k=1,path=lse", False),
        ("masks=searched", False),
        ("k=3", True),
        ("k=1,dense_ends=1", True),
        ("k=1,path=gather", True),
    ):
        yield Case(f"sparse {form}", f"sparse:{form}", steps=4, is_thorough=is_thorough)


def _passes() -> Iterator[Case]:
    """Methods that skip passes."""
    yield Case("early", "early:0.5", steps=6)
    yield Case("teacache", "teacache:0.3", steps=6)
    yield Case("easycache", "easycache:0.3", steps=6)
    yield Case("early less", "early:0.3", steps=8, is_thorough=True)
    yield Case("early + sparse", "early:0.5+sparse:k=1", steps=6, is_thorough=True)
    yield Case("easycache + unipc", "easycache:0.3+unipc", steps=6, is_thorough=True)


def _frames() -> Iterator[Case]:
    """Methods that leave frames out and fill them in."""
    for name, text, frames, is_thorough in (
        ("eco", "eco", 17, False),
        ("eco entropy", "eco:3,selector=entropy", 33, False),
        ("eco motion", "eco:3,selector=motion", 33, True),
        ("vgdfr", "vgdfr", 17, False),
        ("vgdfr form=paper", "vgdfr:form=paper", 17, False),
        ("eco k=3", "eco:3", 33, True),
        ("eco + unipc", "eco:3+unipc", 17, True),
        ("vgdfr ratio", "vgdfr:ratio=0.7", 33, True),
        ("vgdfr form=paper, long", "vgdfr:form=paper", 33, True),
    ):
        yield Case(name, text, 5, frames=frames, shows=True, is_thorough=is_thorough)


def _large() -> Iterator[Case]:
    """At the size and length that flipbook was trained at."""
    for name, text, steps in (
        ("full", "full", 24),
        ("steps", "steps", 8),
        ("hsa 50", "hsa", 12),
        ("sparse", "sparse", 8),
        ("easycache", "easycache:0.3", 8),
        ("eco", "eco", 8),
        ("eco entropy", "eco:5,selector=entropy", 8),
        ("vgdfr", "vgdfr:0.5", 8),
        ("vgdfr form=paper", "vgdfr:form=paper", 8),
    ):
        shows = text.startswith(("full", "eco", "vgdfr"))
        of = 24 if text == "steps" else None
        yield Case(f"large {name}", text, steps, of, 33, 64, shows=shows, is_thorough=True)
    yield Case("large lipar", "lipar", 8, None, 33, 64, strength=0.6, is_thorough=True)
    for name, method, strength in (("full", "full", None), ("lipar", "lipar:0.2,tau2=0.4", 0.6)):
        steps = 6 if strength is None else 3
        yield Case(
            f"large causal {name}",
            method,
            steps,
            6,
            33,
            64,
            CAUSAL,
            strength,
            shows=True,
            is_thorough=True,
        )


CASES: Mapping[str, Case] = {
    case.name: case
    for group in (_plain(), _hsa(), _lipar(), _sparse(), _passes(), _frames(), _large())
    for case in group
}

# --- making them ------------------------------------------------------------------------------


class Studio:
    """Makes the videos of cases, with one worker for each model."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def record(self, case: Case) -> dict[str, Any]:
        """What is stored of a video, or why there is none."""
        try:
            latents, frames = self._made(case)
        except Exception as problem:  # one method that fails shall not hide the others
            return {"method": case.method, "failed": f"{type(problem).__name__}: {problem}"}
        told = {"method": case.method, "latents": _summary(latents)}
        return told | ({"frames": _summary(frames)} if case.shows else {})

    def _made(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """Latents (1, C, F, H, W) float32 as the decoder got them, and frames (N, rows, columns, 3)
        uint8 as the encoder did."""
        worker = self._worker(case.model)
        edits = {} if case.strength is None else _EDIT | {"strength": case.strength}
        job = Job("1" * 32, "a red circle moves left slowly", "", case.spec, worker.ref, 1, **edits)
        with _watched(worker, decodes=case.shows) as seen:
            worker.make(job, OperatingPoint(case.steps, method=case.method))
        return seen["latents"], seen["frames"]

    def _worker(self, model: str) -> Worker:
        if model not in self._workers:
            worker = Worker(model, load_source=lambda job: b"drawn, see `_watched`")
            worker.load()
            _write_masks(worker)
            self._workers[model] = worker
        return self._workers[model]


_EDIT: dict[str, Any] = {"input_video": "/clips/a.mp4", "input_sha256": "0" * 64}


@contextmanager
def _watched(worker: Worker, *, decodes: bool) -> Iterator[dict[str, np.ndarray]]:
    """What goes into a worker's decoder and encoder, and a drawn clip in place of a source's file.

    Without `decodes` grey frames stand in for decoded ones, to save time.
    """
    from vidplat.workers import video

    family: Any = worker.loaded.family
    decode, to_mp4 = family.decode, video.to_mp4
    seen: dict[str, np.ndarray] = {}

    def watch_decode(latents: Any) -> np.ndarray:
        seen["latents"] = latents.float().cpu().numpy().copy()
        _, _, count, rows, columns = latents.shape
        cell, pace = worker.shape.spatial_factor, worker.shape.temporal_factor
        size = (pace * (count - 1) + 1, cell * rows, cell * columns, 3)
        return decode(latents) if decodes else np.full(size, 128, np.uint8)

    def watch_to_mp4(frames: np.ndarray, *rest: Any, **options: Any) -> bytes:
        seen["frames"] = frames.copy()
        return to_mp4(frames, *rest, **options)

    def draw(source: Any, width: int, height: int, num_frames: int, *rest: Any) -> np.ndarray:
        return a_clip(width, height, num_frames)

    with (
        patch.object(family, "decode", watch_decode),
        patch.object(video, "to_mp4", watch_to_mp4),
        patch.object(video, "read_video", draw),
    ):
        yield seen


def a_clip(width: int, height: int, num_frames: int) -> np.ndarray:
    """(num_frames, height, width, 3) uint8: a disc moves right for four frames and stays."""
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    frames[:] = (60, 70, 80)
    rows, columns = np.mgrid[:height, :width]
    for number, frame in enumerate(frames):
        frame[(columns - 6 - min(number, 4)) ** 2 + (rows - height // 2) ** 2 <= 25] = (220, 60, 40)
    return frames


def _write_masks(worker: Worker) -> None:
    """Masks for flipbook and 17 frames, as `vidplat profile masks` leaves them for later runs."""
    transformer = "62e57a717e7d8418"  # flipbook's
    ks = (1, 2, 5, 3, 1, 2)
    told = {
        "format": 1, "model": "flipbook", "revision": worker.ref.revision,
        "transformer": transformer, "part": "transformer", "frames": 5, "per_frame": 16,
        "threshold": 0.1, "solver": "euler", "shift": 3.0,
        "sigmas": [0.5], "prompts": 1, "metric": "relative", "is_sequential": False,
        "layers": [{"k": k, "error": 0.05} for k in ks], "errors": {"1": [0.05] * len(ks)},
    }  # fmt: skip
    folder = Path(os.environ["VIDPLAT_MEASURED"]) / worker.ref.revision / "masks"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{transformer}-F5.json").write_text(json.dumps(told))


def canary() -> str:
    """SHA-256 of what the libraries' own parts answer to fixed questions, in this process.

    Flipbook's weights in diffusers' transformer and autoencoder, torch's random numbers, and
    OpenCV's optical flow.
    """
    import cv2
    import torch
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    torch.set_num_threads(1)
    parts = Path(vidplat.__file__).parent / "models_data" / "flipbook"
    wide = {"torch_dtype": torch.float32, "local_files_only": True}
    answers: list[np.ndarray] = []
    with torch.inference_mode():
        transformer = WanTransformer3DModel.from_pretrained(parts / "transformer", **wide).eval()
        vae = AutoencoderKLWan.from_pretrained(parts / "vae", **wide).eval()
        for frames in (3, 5, 9):
            noise = torch.randn(
                (1, 48, frames, 4, 4), generator=torch.Generator().manual_seed(frames)
            )
            text, at = torch.linspace(-1, 1, 32 * 128).reshape(1, 32, 128), torch.tensor([700.0])
            answers += [noise.numpy(), transformer(noise, at, text, return_dict=False)[0].numpy()]
        shown = vae.decode(noise[:, :, :3], return_dict=False)[0]
        answers += [shown.numpy(), vae.encode(shown).latent_dist.mode().numpy()]
    grey = np.uint8(np.clip(shown[0].mean(0).numpy() * 64 + 128, 0, 255))
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(
        grey[0], grey[-1], None
    )
    answers.append(flow)
    return hashlib.sha256(b"".join(map(_bytes, answers))).hexdigest()


# --- telling them apart -----------------------------------------------------------------------


def difference(found: Mapping[str, Any], stored: Mapping[str, Any], *, exactly: bool) -> str:
    """In what a record differs from the stored one, as a sentence; "" where it does not.

    `exactly`: by hashes. Otherwise by summaries, within the tolerances above.
    """
    if "failed" in found:
        return f"it could not be made: {found['failed']}"
    for what, within in (("latents", LATENTS_WITHIN), ("frames", FRAMES_WITHIN)):
        if (what in found) != (what in stored):
            return f"{what} are kept of one of the two alone"
        if what not in found or found[what]["sha256"] == stored[what]["sha256"]:
            continue
        if found[what]["shape"] != stored[what]["shape"]:
            return f"{what} have shape {found[what]['shape']} instead of {stored[what]['shape']}"
        apart = furthest(found[what], stored[what])
        if exactly or apart > within:
            return f"{what} have other bits, and differ by up to {apart:.6f} at the kept places"
    return ""


def furthest(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Largest difference of two summaries' values, mean and standard deviation."""
    values = ([*each["values"], each["mean"], each["std"]] for each in (one, other))
    return max(abs(a - b) for a, b in zip(*values, strict=True))


def _summary(array: np.ndarray) -> dict[str, Any]:
    flat = array.ravel().astype(np.float64)
    places = np.linspace(0, flat.size - 1, PLACES).round().astype(int)
    return {
        "sha256": hashlib.sha256(_bytes(array)).hexdigest(),
        "shape": list(array.shape),
        "mean": round(float(flat.mean()), 5),
        "std": round(float(flat.std()), 5),
        "values": [round(float(value), 4) for value in flat[places]],
    }


def _bytes(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


# --- the process of its own, and the file -----------------------------------------------------


def computed(names: Iterable[str], kernels: Mapping[str, str] = PLAIN) -> dict[str, Any]:
    """{"canary": ..., "videos": {name: record}}, made in a new process with these kernels."""
    with tempfile.TemporaryDirectory() as measured:
        done = subprocess.run(
            [sys.executable, "-m", "tests.workers.pixels", *names],
            env={**os.environ, **kernels, "VIDPLAT_MEASURED": measured},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise RuntimeError(f"the videos could not be made:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(STORED.read_text("utf-8"))
    return found


def write(names: Iterable[str]) -> None:
    """Write down the videos of these names anew, or all; see the module's text for when to."""
    chosen = list(names)
    found = computed(chosen or CASES)
    if failed := {name: one for name, one in found["videos"].items() if "failed" in one}:
        raise SystemExit(f"nothing is written: {failed}")
    if chosen:
        before = stored()
        if before["canary"] != found["canary"]:
            raise SystemExit("nothing is written: here other bits are computed than in the file")
        found["videos"] = before["videos"] | found["videos"]
    lines = [f"{json.dumps(name)}: {json.dumps(found['videos'][name])}" for name in CASES]
    body = ",\n".join(lines)
    STORED.write_text(f'{{"canary": "{found["canary"]}", "videos": {{\n{body}\n}}}}\n', "utf-8")


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--write"]:
        write(arguments[1:])
        return
    studio = Studio()
    videos = {name: studio.record(CASES[name]) for name in arguments}
    print(json.dumps({"canary": canary(), "videos": videos}))


if __name__ == "__main__":
    main(sys.argv[1:])
