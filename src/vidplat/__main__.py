"""The `vidplat` command, as a script and as `python -m vidplat`.

Importing the verbs takes longer than many a verb, and Python takes its time to end; Ctrl-C then is
told of as at any other time, by exit code 130 and in the form that was asked for.
"""

import os
import signal
import sys
import time
from types import FrameType

_INTERRUPTED = 130
_PATIENCE_S = 2.0  # for telling of the first Ctrl-C; one more after that ends the process at once


def main() -> int:
    """The process's own command line; its exit code."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _break_off)
        from vidplat.cli.app import main as command

        code = command()
    except KeyboardInterrupt:
        from vidplat.cli import edge

        code = edge.interrupted(sys.argv)
    if code == _INTERRUPTED:  # while Python ends, it has no handlers any more
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


def _break_off(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt once: a second one would break off the telling of the first."""
    since = time.monotonic()

    def insist(number: int, frame: FrameType | None) -> None:
        if time.monotonic() - since > _PATIENCE_S:
            os._exit(_INTERRUPTED)

    signal.signal(signal.SIGINT, insist)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
