"""The stage of the flow tests: a folder with prompts, a catalog and a store, and batches run on it.

`Stage(tmp_path)` runs in this process; `in_a_process` does the same in another one, which may be
killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.platform.builders import Memory
from vidplat.config import CatalogConfig, Config, PoolConfig, RayConfig, RunConfig, StoreConfig
from vidplat.domain import JobState
from vidplat.platform import BatchResult, SubmitRequest, resume, submit
from vidplat.storage import open_catalog

TWO_WORKERS = (PoolConfig("cloud"), PoolConfig("edge"))
ROOT = Path(__file__).parents[2]


@dataclass
class Stage:
    folder: Path
    model: str = "fake"
    local: bool = True
    pools: tuple[PoolConfig, ...] = TWO_WORKERS
    run: RunConfig = field(default_factory=RunConfig)
    output: str = ""

    @property
    def config(self) -> Config:
        return Config(
            catalog=CatalogConfig(f"sqlite:///{self.folder}/catalog.db"),
            store=StoreConfig(self.output or f"{self.folder}/out"),
            pools=self.pools,
            ray=RayConfig(),
            run=replace(self.run, local=self.local),
            model=self.model,
        )

    def write(self, prompts: Sequence[str] | int) -> str:
        """A text file of prompts (or of that many neutral ones); its path."""
        lines = (
            [f"a red circle, take {n}" for n in range(prompts)]
            if isinstance(prompts, int)
            else prompts
        )
        path = self.folder / "prompts.txt"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(path)

    def submit(
        self, prompts: Sequence[str] | int, listener: Memory | None = None, **wishes: Any
    ) -> BatchResult:
        return submit(
            SubmitRequest(self.write(prompts), **wishes), self.config, listener or Memory()
        )

    def resume(self, batch_id: str = "b", listener: Memory | None = None) -> BatchResult:
        return resume(batch_id, self.config, listener or Memory())

    def in_a_process(
        self, *words: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """`submit FILE` or `resume BATCH` in a process of its own, which ends with the exit
        code."""
        settings: dict[str, Any] = {
            "folder": str(self.folder),
            "model": self.model,
            "local": self.local,
            "output": self.output,
        }
        settings["pools"] = [asdict(pool) for pool in self.pools]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.flow.stage", json.dumps(settings), *words],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    # --- looking at what came of it ---------------------------------------------------------------

    def counts(self) -> dict[JobState, int]:
        """States that occur, over all batches of the catalog."""
        catalog = open_catalog(self.config.catalog.url)
        try:
            found: dict[JobState, int] = {}
            for batch in catalog.batches():
                for state, count in catalog.counts(batch.id).items():
                    if count:
                        found[state] = found.get(state, 0) + count
            return found
        finally:
            catalog.close()

    def check_nothing_lost_or_twice(self) -> None:
        """Every done job has exactly its three files and its COMMIT.json, with the bytes that were
        promised."""
        import hashlib

        catalog = open_catalog(self.config.catalog.url)
        try:
            for batch in catalog.batches():
                for record in catalog.jobs(batch.id, states=[JobState.DONE]):
                    assert record.artifact is not None
                    video = Path(record.artifact.video_uri.removeprefix("file://"))
                    assert hashlib.sha256(video.read_bytes()).hexdigest() == record.artifact.sha256
                    commit = json.loads((video.parent / "COMMIT.json").read_text())
                    assert commit["attempt"] == record.artifact.attempt
                    ended = [
                        each
                        for each in catalog.attempts(batch.id, record.job.id)
                        if each.ended == "done"
                    ]
                    assert len(ended) <= 1
        finally:
            catalog.close()

    def files(self) -> set[str]:
        """Names of all files below the output, without the folders."""
        return {path.name for path in (self.folder / "out").rglob("*") if path.is_file()}


def main() -> int:
    settings = json.loads(sys.argv[1])
    pools = tuple(PoolConfig(**pool) for pool in settings["pools"])
    stage = Stage(
        Path(settings["folder"]),
        settings["model"],
        settings["local"],
        pools,
        output=settings["output"],
    )
    verb, what, *wishes = sys.argv[2:]
    if verb == "resume":
        result = resume(what, stage.config, Memory())
    else:
        result = submit(
            SubmitRequest(what, **dict(pair.split("=") for pair in wishes)), stage.config, Memory()
        )
    print(
        json.dumps(
            {"code": result.exit_code, "computed": result.computed, "message": result.message}
        )
    )
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
