"""Writes prompts.parquet: twenty captions of the embedded model's world, each motion at least
once.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

PROMPTS = {
    "red-dot": "a large red circle moves fast right on a plain gray background",
    "slow-square": "a small yellow square drifts slowly down on a plain navy background",
    "rest": "a large white cross stays still on a checkered maroon background",
    "orbit": "a small cyan circle orbits clockwise on a plain black background",
    "counter-orbit": "a large green triangle orbits counterclockwise on a striped gray background",
    "bounce": "a small magenta circle bounces up and down on a plain forest background",
    "side-bounce": "a large blue square bounces left and right on a plain gray background",
    "dash": "a small white triangle waits then dashes right on a plain maroon background",
    "late-dash": "a large yellow circle pauses then dashes up on a striped navy background",
    "pan-left": "a small red cross on a striped forest background, the camera pans left",
    "pan-right": "a large cyan square on a checkered gray background, the camera pans right",
    "cut": "a large red circle on a plain navy background, cut to a small yellow square on a "
    "plain maroon background",
    "two": "a small green circle moves slowly right and a large magenta square rests on a plain "
    "navy background",
    "climb": "a large blue triangle moves fast up on a striped maroon background",
    "glide": "a small white circle moves slowly left on a checkered navy background",
    "fall": "a large magenta cross moves quickly down on a plain forest background",
    "drift-up": "a small red triangle drifts slowly up on a plain gray background",
    "rush": "a small yellow cross moves quickly left on a plain black background",
    "watch": "a large green square rests on a striped navy background",
    "slide": "a large white circle moves slowly right on a plain maroon background",
}


def main() -> None:
    table = pa.table(
        {"id": list(PROMPTS), "prompt": list(PROMPTS.values()), "seed": list(range(len(PROMPTS)))}
    )
    pq.write_table(table, Path(__file__).with_name("prompts.parquet"))


if __name__ == "__main__":
    main()
