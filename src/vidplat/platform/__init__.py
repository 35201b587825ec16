"""Platform: one batch run, from its first prompt to its last artifact. Ray lives here, in one file.

The way in is `submit`; `plan_only` answers without doing, `resume` continues what was interrupted,
`cancel` and `retry` change the fate of jobs; `list_models` and `describe_model` tell what videos
can be made with. Bodies are imported on first use; the words they speak are in `interface.py`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidplat.platform.assemble import cancel, plan_only, resume, retry, submit
    from vidplat.workers import describe_model, list_models

_HOME = {
    **dict.fromkeys(("submit", "plan_only", "resume", "cancel", "retry"), f"{__name__}.assemble"),
    **dict.fromkeys(("describe_model", "list_models"), "vidplat.workers"),
}
__all__ = ["cancel", "describe_model", "list_models", "plan_only", "resume", "retry", "submit"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
