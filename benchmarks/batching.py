"""Does one forward pass for several same-shape videos beat one pass each?

    python benchmarks/batching.py [--model ID] [--threads N] [--device cpu|cuda] [--repeats R]

Measures guided denoising steps (two forwards) and decoding for 1, 2, 4 and 8 videos per pass, in
processor seconds on a CPU (other programs then disturb little) and wall seconds on a GPU, the best
of R. Also asks whether a video's bits depend on its neighbours. Prints a card and ends with one
JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from vidplat.workers import Worker


def best_of(repeats: int, device: str, work: Callable[[], Any]) -> float:
    """Seconds of the fastest of `repeats` runs, after one to warm up."""
    import torch

    def once() -> float:
        clock = time.perf_counter if device.startswith("cuda") else time.process_time
        began = clock()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return clock() - began

    once()
    return min(once() for _ in range(repeats))


def measure(worker: Worker, counts: tuple[int, ...], repeats: int) -> list[dict[str, float]]:
    """One row per number of videos in a pass, in seconds per video."""
    import torch

    from vidplat.workers.models.family import Condition

    family: Any = worker.loaded.family
    spec = worker.shape.defaults
    latents = family.noise(spec)
    text, negative = family.encode("a red circle moves left"), family.encode("")
    solver = family.solver(4)
    rows = []
    with torch.inference_mode():
        alone = family.velocity(latents, solver, Condition(text, negative, 4.0))
        for count in counts:
            many = torch.cat([latents, *(torch.randn_like(latents) for _ in range(count - 1))])
            condition = Condition(text.repeat(count, 1, 1), negative.repeat(count, 1, 1), 4.0)
            among = family.velocity(many, solver, condition)[:1]
            step_s = best_of(
                repeats, worker.device, lambda x=many, c=condition: family.velocity(x, solver, c)
            )
            decode_s = best_of(
                repeats, worker.device, lambda x=many: family.vae.decode(x, return_dict=False)
            )
            rows.append(
                {
                    "videos": count,
                    "step_s_per_video": step_s / count,
                    "decode_s_per_video": decode_s / count,
                    "largest_difference_to_alone": float((among - alone).abs().max()),
                }
            )
    return rows


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--model", default="flipbook")
    options.add_argument("--device", default="cpu")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--repeats", type=int, default=5)
    asked = options.parse_args()
    worker = Worker(asked.model, device=asked.device, threads=asked.threads)
    worker.load()
    rows = measure(worker, (1, 2, 4, 8), asked.repeats)

    spec = worker.shape.defaults
    print(
        f"{asked.model} on {worker.device_class}: {spec.width}x{spec.height}, {spec.num_frames} "
        "frames"
    )
    print("videos  step s/video  ratio  decode s/video  ratio  bits as alone")
    for row in rows:
        step, decode = (row[f"{part}_s_per_video"] for part in ("step", "decode"))
        ratios = rows[0]["step_s_per_video"] / step, rows[0]["decode_s_per_video"] / decode
        same = (
            "yes"
            if row["largest_difference_to_alone"] == 0
            else f"no, {row['largest_difference_to_alone']:.1e}"
        )
        print(
            f"{row['videos']:6d}  {step:12.4f}  {ratios[0]:5.2f}  {decode:14.4f}  "
            f"{ratios[1]:5.2f}  {same}"
        )
    print(
        json.dumps(
            {
                "theme": "batching",
                "model": asked.model,
                "device_class": worker.device_class,
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
