"""One batch in the cloud's namespace. As a module it is the process that submits it there, with the
`Asked` as JSON for its one argument."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.cloud_edge.hosts import CLOUD, CLOUD_IP, RAY_PORT, in_host, s3, stored_bytes
from benchmarks.common import FIRST_SEEDS, subject
from vidplat.config import Config, PoolConfig, RayConfig
from vidplat.domain import OnInfeasible, Outcome
from vidplat.methods.frames import kept_latents
from vidplat.platform import submit
from vidplat.platform.interface import Listener, SubmitRequest
from vidplat.storage import open_catalog

FRAMES = 65
LATENTS = (FRAMES - 1) // 4 + 1


@dataclass(frozen=True)
class Asked:
    """A batch, as JSON can say it."""

    method: str
    steps: int
    pools: tuple[tuple[str, bool], ...]  # name, and whether it is light
    model: str = "flipbook"
    prompts: str = ""
    output: str = ""
    catalog: str = ""
    deadline_s: float | None = None


@dataclass(frozen=True)
class Stored:
    """A finished video."""

    row: int
    uri: str
    sent_bytes: int  # of the draft, or of the video
    kept: int  # latent frames
    at_edge: bool
    drafted: bool
    phases: Mapping[str, float]


@dataclass(frozen=True)
class Done:
    """What came of a batch. Seconds are from the first dispatch to the last commit."""

    seconds: float
    startup_s: float
    videos: tuple[Stored, ...]
    stored_bytes: float = 0.0  # per video


def run(asked: Asked, folder: Path, count: int, catalog: str) -> Done:
    """Of the first `count` captions, in a bucket of its own."""
    prompts, bucket = folder / "prompts.txt", f"b{time.time_ns()}"
    captions = (subject(FIRST_SEEDS["cloud_edge"], number).caption for number in range(count))
    prompts.write_text("".join(f"{caption}\n" for caption in captions))
    s3().create_bucket(Bucket=bucket)
    places = {"prompts": str(prompts), "output": f"s3://{bucket}"}
    whole = asdict(asked) | places | {"catalog": f"{folder}/{catalog}.db"}
    command = [sys.executable, "-m", "benchmarks.cloud_edge.batch", json.dumps(whole)]
    process = in_host(CLOUD, command, stdout=subprocess.PIPE, text=True)
    said, _ = process.communicate(timeout=1_800)
    if process.returncode:
        raise SystemExit(f"{asked.method} ended with {process.returncode}")
    told = json.loads(said.splitlines()[-1])
    videos = tuple(Stored(**video) for video in told["videos"])
    return Done(told["seconds"], told["startup_s"], videos, stored_bytes(bucket) / count)


class Ears(Listener):
    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def outcome(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def warn(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr, flush=True)


def main() -> None:
    asked, ears, submitted_at = Asked(**json.loads(sys.argv[1])), Ears(), time.time()
    config = Config(
        catalog=f"sqlite:///{asked.catalog}",
        output=asked.output,
        pools=tuple(PoolConfig(name, light=light) for name, light in asked.pools),
        ray=RayConfig(address=f"{CLOUD_IP}:{RAY_PORT}"),
    )
    request = SubmitRequest(
        asked.prompts,
        method=asked.method,
        model=asked.model,
        spec={"num_frames": FRAMES, "num_inference_steps": asked.steps},
        deadline=None if asked.deadline_s is None else f"{asked.deadline_s:.3f}s",
        on_infeasible=OnInfeasible.BEST_EFFORT,
        submitted_at=submitted_at,
    )
    result = submit(request, config, ears)
    if result.exit_code not in (0, 5):  # 5: the deadline was missed
        sys.exit(f"exit {result.exit_code}: {result.message}")
    catalog = open_catalog(config.catalog)
    row_of = {record.job.id: record.job.row for record in catalog.jobs(result.batch.id)}
    catalog.close()
    videos = [stored(each, row_of[each.job_id]) for each in ears.outcomes if each.artifact]
    first = min(each.started_at for each in ears.outcomes)
    seconds = max(each.finished_at for each in ears.outcomes) - first
    done = Done(seconds, first - submitted_at, tuple(videos))
    print(json.dumps(asdict(done)))


def stored(outcome: Outcome, row: int) -> Stored:
    assert outcome.artifact is not None
    sent = outcome.metrics.get("draft_bytes", outcome.artifact.size_bytes)
    return Stored(
        row,
        outcome.artifact.video_uri,
        int(sent),
        kept_latents(outcome.point.accelerator, LATENTS),
        outcome.worker_id.startswith("edge"),
        bool(outcome.drafted_by),
        dict(outcome.phases),
    )


if __name__ == "__main__":
    main()
