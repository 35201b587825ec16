"""The stage of the flow tests: a folder with prompts, a catalog and a store, and batches run on it.

`Stage(tmp_path)` runs in this process; `in_a_process` does the same in another one, which may be
killed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.platform.builders import Memory
from vidplat.config import Config, PoolConfig, RayConfig, RunConfig
from vidplat.domain import JobState
from vidplat.platform import resume, submit
from vidplat.platform.interface import BatchResult, SubmitRequest
from vidplat.storage import open_catalog

TWO_WORKERS = (PoolConfig("cloud"), PoolConfig("edge"))


@dataclass
class Stage:
    folder: Path
    model: str = "fake"
    local: bool = True
    pools: tuple[PoolConfig, ...] = TWO_WORKERS
    run: RunConfig = field(default_factory=RunConfig)
    catalog: str = ""
    output: str = ""
    address: str | None = None  # of a Ray cluster that runs; None: one for this batch alone

    @property
    def config(self) -> Config:
        return Config(
            catalog=self.catalog or f"sqlite:///{self.folder}/catalog.db",
            output=self.output or f"{self.folder}/out",
            pools=self.pools,
            ray=RayConfig(address=self.address),
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

    def in_a_process(self, *words: str, env: Mapping[str, str] | None = None) -> Run:
        """`submit FILE key=value...` or `resume BATCH` in a process of its own, which ends with the
        exit code."""
        said = self.folder / f"said-{uuid4().hex[:6]}"
        process = _FORKS.Process(target=_run, args=(self, words, dict(env or {}), str(said)))
        process.start()
        return Run(process, said)

    # --- looking at what came of it ---------------------------------------------------------------

    def counts(self) -> dict[JobState, int]:
        """States that occur, over all batches of the catalog."""
        catalog = open_catalog(self.config.catalog)
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
        promised; it was made once, and once more each time somebody took its video away."""
        import hashlib

        catalog = open_catalog(self.config.catalog)
        try:
            for batch in catalog.batches():
                for record in catalog.jobs(batch.id, states=[JobState.DONE]):
                    assert record.artifact is not None
                    video = Path(record.artifact.video_uri.removeprefix("file://"))
                    assert hashlib.sha256(video.read_bytes()).hexdigest() == record.artifact.sha256
                    is_old = (video.parent / "COMMIT.json").exists()  # of version 1
                    folder = video.parent if is_old else video.parent.parent
                    commit = json.loads((folder / "COMMIT.json").read_text())
                    assert commit["attempt"] == record.artifact.attempt
                    ended = [
                        each
                        for each in catalog.attempts(batch.id, record.job.id)
                        if each.ended == "done"
                    ]
                    history = catalog.events(batch.id, record.job.id)
                    times_lost = sum(event.kind == "lost" for event in history)
                    assert len(ended) <= 1 + times_lost
        finally:
            catalog.close()

    def committed(self) -> int:
        """Videos in the store. Folders may come and go meanwhile, which `os.walk` does not mind."""
        return sum("COMMIT.json" in files for _, _, files in os.walk(self.folder / "out"))

    def has_failures(self) -> bool:
        """Whether any attempt has failed so far."""
        catalog = open_catalog(self.config.catalog)
        try:
            records = [record for each in catalog.batches() for record in catalog.jobs(each.id)]
            return any(record.failure is not None for record in records)
        finally:
            catalog.close()

    def files(self) -> set[str]:
        """Names of all files below the output, without the folders."""
        return {path.name for path in (self.folder / "out").rglob("*") if path.is_file()}


@dataclass
class Run:
    """A process that makes a batch; told and asked like a `subprocess.Popen`."""

    process: BaseProcess
    said: Path  # what it prints

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """All that it printed, once it has ended."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
            raise AssertionError(f"still at work after {timeout:.0f} s: {self.said.read_text()}")
        return self.said.read_text(), None


# Processes are forked from one that has imported everything: a start takes a hundredth of a second.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.flow.stage", "tests.flow.imported"])


def _run(stage: Stage, words: Sequence[str], env: Mapping[str, str], said: str) -> None:
    """In the new process: what a shell would do, and the exit code."""
    out = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.update(env)
    verb, what, *wishes = words
    heard = Memory()
    if verb == "resume":
        result = resume(what, stage.config, heard)
    else:
        told = dict(pair.split("=") for pair in wishes)
        result = submit(SubmitRequest(what, **told), stage.config, heard)
    code = {"code": result.exit_code, "computed": result.computed, "message": result.message}
    print(json.dumps(code), flush=True)
    sys.exit(result.exit_code)
