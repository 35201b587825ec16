"""`python -m flipbook_training CHECKPOINTS TARGET`: train flipbook, resuming, and write its
directories.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m flipbook_training", description=__doc__)
    words.add_argument(
        "checkpoints", type=Path, help="folder of checkpoints; a stopped run goes on from there"
    )
    words.add_argument(
        "target", type=Path, help="folder that receives flipbook/ and flipbook-edge/"
    )
    words.add_argument(
        "--assemble-only",
        action="store_true",
        help="write the directories from what is trained so far",
    )
    words.add_argument(
        "--only", choices=("vae", "text", "flipbook", "flipbook-edge"), help="train one part"
    )
    words.add_argument("--steps", type=int, help="with --only: how many steps in all")
    words.add_argument(
        "--bfloat16", action="store_true", help="bfloat16 products, where the processor has them"
    )
    words.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    told = words.parse_args()

    import torch

    from flipbook_training import flipbook, text, vae
    from flipbook_training.denoiser import CLOUD, EDGE
    from flipbook_training.malloc import keep_freed_memory
    from vidplat.training import ranks
    from vidplat.training.runs import say

    keep_freed_memory()
    if told.threads:
        torch.set_num_threads(told.threads)

    with ranks.joined():
        if not told.assemble_only:
            steps = flipbook.STEPS | ({told.only: told.steps} if told.only and told.steps else {})
            if told.only == "vae":
                vae.train_vae(told.checkpoints, steps=steps["vae"], say=say)
            elif told.only == "text":
                text.train_text(told.checkpoints, steps=steps["text"], say=say)
            elif told.only:
                size = {CLOUD.name: CLOUD, EDGE.name: EDGE}[told.only]
                flipbook.train_size(
                    size, told.checkpoints, steps=steps[size.name], say=say, bfloat16=told.bfloat16
                )
            else:
                flipbook.train(told.checkpoints, say=say, steps=steps, bfloat16=told.bfloat16)
        if told.assemble_only or not told.only:
            flipbook.assemble(told.checkpoints, told.target)


if __name__ == "__main__":
    main()
