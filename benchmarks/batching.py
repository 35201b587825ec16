"""Does one forward pass for several same-shape videos beat one pass each?

    python -m benchmarks.batching [--model ID] [--threads N] [--device cpu|cuda] [--repeats R]

Measures guided denoising steps (two forwards) and decoding for 1, 2, 4 and 8 videos per pass, in
processor seconds on a CPU (other programs then disturb little) and wall seconds on a GPU, the best
of R. Also asks whether a video's bits depend on its neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.common import answer, head, options
from vidplat.workers import Worker
from vidplat.workers.models.family import Condition

COUNTS = (1, 2, 4, 8)


def best_of(repeats: int, device: str, work: Callable[[], Any]) -> float:
    """Seconds of the fastest of `repeats` runs, after one to warm up."""
    on_gpu = device.startswith("cuda")
    clock = time.perf_counter if on_gpu else time.process_time

    def once() -> float:
        began = clock()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        return clock() - began

    once()
    return min(once() for _ in range(repeats))


@torch.inference_mode()
def measured(worker: Worker, repeats: int) -> Iterator[dict[str, float]]:
    """One row per number of videos in a pass, in seconds per video."""
    family: Any = worker.loaded.family
    latents = family.noise(worker.shape.defaults)
    text, negative = family.encode("a red circle moves left"), family.encode("")
    solver = family.solver(4)
    alone = family.velocity(latents, solver, Condition(text, negative, 4.0))
    for count in COUNTS:
        many = torch.cat([latents, *(torch.randn_like(latents) for _ in range(count - 1))])
        condition = Condition(text.repeat(count, 1, 1), negative.repeat(count, 1, 1), 4.0)

        def step(many: Any = many, condition: Condition = condition) -> Any:
            return family.velocity(many, solver, condition)

        def decode(many: Any = many) -> Any:
            return family.vae.decode(many, return_dict=False)

        yield {
            "videos": count,
            "step_s": best_of(repeats, worker.device, step) / count,
            "decode_s": best_of(repeats, worker.device, decode) / count,
            "difference_to_alone": float((step()[:1] - alone).abs().max()),
        }


def main() -> None:
    parser = options(__doc__, model="flipbook", threads=1, repeats=5)
    parser.add_argument("--device", default="cpu")
    told = parser.parse_args()
    worker = Worker(told.model, device=told.device, threads=told.threads)
    worker.load()
    rows = list(measured(worker, told.repeats))

    spec = worker.shape.defaults
    about = f"{told.model}: {spec.width}x{spec.height}, {spec.num_frames} frames"
    print(head(about, "batching", device=told.device))
    print("videos  step s/video  ratio  decode s/video  ratio  bits as alone")
    for row in rows:
        ratios = [rows[0][part] / row[part] for part in ("step_s", "decode_s")]
        off = row["difference_to_alone"]
        print(
            f"{row['videos']:6d}  {row['step_s']:12.4f}  {ratios[0]:5.2f}  {row['decode_s']:14.4f}"
            f"  {ratios[1]:5.2f}  {f'no, {off:.1e}' if off else 'yes'}"
        )
    answer("batching", told.device, **vars(told), rows=rows)


if __name__ == "__main__":
    main()
