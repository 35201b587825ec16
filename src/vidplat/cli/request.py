"""What a person typed, as the platform wants to hear it: options become a SubmitRequest and a
Config.

`plan` and `submit` have the same options, so both hand over their typer context, whose `obj` is the
moment the command was entered. An option that was not given stays None and leaves the choice to the
environment, to vidplat.toml and to the defaults (see `vidplat.config`).
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from vidplat.config import Config, load_config
from vidplat.domain import OnInfeasible
from vidplat.errors import UsageError, printable

if TYPE_CHECKING:
    import typer

    from vidplat.platform.interface import SubmitRequest

MOST_PRIORITY = 1_000_000  # as for rows
_SPEC = {
    "width": "width",
    "height": "height",
    "num_frames": "num_frames",
    "fps": "fps",
    "steps": "num_inference_steps",
    "guidance_scale": "guidance_scale",
}


def request_of(context: typer.Context) -> SubmitRequest:
    """Raises UsageError for a value that no model or file could make right."""
    from vidplat.platform.interface import SubmitRequest

    given = context.params
    spec = {
        field: given[option] for option, field in _SPEC.items() if given.get(option) is not None
    }
    for option in ("width", "height", "num_frames", "fps", "steps"):
        value = given.get(option)
        if value is not None and value < 1:
            raise UsageError(f"--{option.replace('_', '-')} must be 1 or more, not {value}")
    guidance = given.get("guidance_scale")
    if guidance is not None and not (math.isfinite(guidance) and guidance >= 0):
        raise UsageError(f"--guidance-scale must be a number from 0 up, not {guidance}")
    priority = given.get("priority") or 0
    if abs(priority) > MOST_PRIORITY:
        raise UsageError(
            f"--priority must be within ±{MOST_PRIORITY:,}, not {printable(priority, 30)}"
        )
    return SubmitRequest(
        source=given["source"],
        deadline=given.get("deadline"),
        model=given.get("model") or "",
        on_infeasible=_on_infeasible(given.get("on_infeasible")),
        quality_floor=_quality(given.get("quality_floor")),
        method=given.get("method") or None,
        seed=given.get("seed") or 0,
        spec=spec,
        priority=priority,
        format=given.get("format"),
        ignore_columns=tuple(
            name.strip() for name in (given.get("ignore_columns") or "").split(",") if name.strip()
        ),
        stdin=getattr(sys.stdin, "buffer", None) if given["source"] == "-" else None,
        submitted_at=context.obj,
    )


def config_of(context: typer.Context) -> Config:
    """The configuration under the options that this verb has."""
    given = context.params
    return load_config(
        {
            "catalog": given.get("catalog"),
            "output": given.get("output"),
            "model": given.get("model"),
            "address": given.get("address"),
            "local": True if given.get("local") else None,
            "pools": given.get("pool") or None,
        }
    )


def _on_infeasible(text: str | None) -> OnInfeasible:
    if text is None:
        return OnInfeasible.DEGRADE
    try:
        return OnInfeasible(text)
    except ValueError as error:
        raise UsageError(
            f"--on-infeasible takes {', '.join(OnInfeasible)}; found {printable(text, 40)!r}"
        ) from error


def _quality(value: float | None) -> float:
    if value is None:
        return 0.0
    if not 0 <= value <= 1:
        raise UsageError(f"--quality-floor must be between 0 and 1, not {value}")
    return value
