"""HSA's schedule: which groups run when, what it costs, and presets carried to other step
counts.
"""

from __future__ import annotations

import pytest

from vidplat.methods.hsa.schedule import (
    PRESETS,
    SPECIFIED,
    Schedule,
    carried,
    evaluations,
    kv_bytes,
    least_steps,
    schedule_for,
    schedule_of_work,
    solve_fractions,
)


@pytest.mark.parametrize(
    ("preset", "strides", "fractions", "counts"),
    [
        ("75A", (1, 2, 4), (0.45, 0.30, 0.25), (40, 25, 18)),
        ("75B", (1, 2), (0.41, 0.59), (40, 23)),
        ("50", (1, 2, 8), (0.20, 0.20, 0.60), (40, 24, 12)),
        ("25", (1, 4, 20), (0.08, 0.16, 0.76), (40, 14, 6)),
    ],
)
def test_at_forty_steps_the_specified_presets_come_out_as_written(
    preset: str, strides: tuple[int, ...], fractions: tuple[float, ...], counts: tuple[int, ...]
) -> None:
    schedule = carried(SPECIFIED[preset], 40)
    assert schedule.strides == strides
    assert schedule.fractions == pytest.approx(fractions, abs=0.003)
    assert schedule.evaluations == counts
    assert schedule.relative_cost == pytest.approx(SPECIFIED[preset].target)


def test_at_24_steps_our_presets_are_those_that_were_measured() -> None:
    """75A: the coarse group runs 8 + 8 (the even steps 8..22) = 16 times, phi = (18 - 16) / (24 -
    16). 50: 7 + 9 (6, 8, .., 22) = 16 and 7 + 4 (8, 12, 16, 20) = 11 times, phi = (12 - 11) / (16 -
    11). 25: of 12 steps 3 + 5 (2, 4, .., 10) = 8 and 3 + 2 (4, 8) = 5, phi = (6 - 5) / (8 - 5)."""
    expected = {
        "75A": (7, (1, 2), 1 / 4, 1),
        "50": (6, (2, 4), 1 / 5, 1),
        "25": (2, (2, 4), 1 / 3, 2),
    }
    for preset, (warmup, strides, first, pace) in expected.items():
        schedule = schedule_for(preset, 24)
        assert (schedule.warmup, schedule.cooldown, schedule.strides, schedule.pace) == (
            warmup,
            1,
            strides,
            pace,
        )
        assert schedule.fractions[0] == pytest.approx(first)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("steps", [28, 30, 33, 40, 50, 100])
def test_a_preset_keeps_its_cost_at_any_number_of_steps(preset: str, steps: int) -> None:
    schedule = schedule_for(preset, steps)
    assert schedule.relative_cost == pytest.approx(PRESETS[preset].target)
    assert all(
        coarse % fine == 0
        for fine, coarse in zip(schedule.strides, schedule.strides[1:], strict=False)
    )


def test_the_work_of_all_steps_is_r_but_for_whole_tokens() -> None:
    """Invariant 5: the sum of |A_i| over T N."""
    for preset in PRESETS:
        for steps, tokens in ((24, 576), (40, 1000), (40, 17)):
            if steps < least_steps(preset):
                continue
            schedule = schedule_for(preset, steps)
            sizes = schedule.sizes(tokens)
            work = sum(
                size
                for step in range(steps)
                for size, on in zip(sizes, schedule.active(step), strict=True)
                if on
            )
            # each group's size is within a token of its share
            assert abs(work / steps / tokens - schedule.relative_cost) < len(sizes) / tokens
            assert sum(schedule.share(step) for step in range(steps)) / steps == pytest.approx(
                schedule.relative_cost
            )


def test_active_sets_are_nested_when_each_stride_divides_the_next() -> None:
    for preset in (*PRESETS.values(), *SPECIFIED.values()):
        schedule = carried(preset, 40)
        for step in range(40):
            running = schedule.active(step)
            assert running == tuple(
                sorted(running, reverse=True)
            )  # whoever runs, every finer group runs too


def test_every_group_has_its_share_within_one_token() -> None:
    schedule = Schedule(40, 4, 1, (1, 2, 4, 8), (0.1, 0.333, 0.2, 0.367))
    for tokens in (7, 100, 576, 32760):
        sizes = schedule.sizes(tokens)
        assert sum(sizes) == tokens
        assert all(
            abs(n - share * tokens) <= 1 for n, share in zip(sizes, schedule.fractions, strict=True)
        )


def test_the_first_group_is_never_empty() -> None:
    assert Schedule(40, 4, 1, (1, 20), (0.01, 0.99)).sizes(10) == (1, 9)


def test_windows_are_full_and_the_last_one_moves_with_the_end() -> None:
    schedule = Schedule(24, 3, 2, (1, 6), (0.25, 0.75))
    assert [step for step in range(24) if schedule.is_full(step)] == [0, 1, 2, 6, 12, 18, 22, 23]
    assert [step for step in range(15) if schedule.is_full(step, 15)] == [
        0,
        1,
        2,
        6,
        12,
        13,
        14,
    ]  # shortened


def test_at_pace_2_every_second_step_runs_for_nobody_and_the_rest_is_a_run_of_half_the_steps() -> (
    None
):
    paced, half = (
        Schedule(steps, 2, 1, (1, 4), (0.25, 0.75), pace) for steps, pace in ((24, 2), (12, 1))
    )
    for step in range(24):
        assert paced.active(step) == ((False, False) if step % 2 else half.active(step // 2))
    assert paced.relative_cost == pytest.approx(half.relative_cost / 2)
    assert [paced.next_running(step) for step in (0, 1, 22, 23)] == [2, 2, 24, 24]
    assert Schedule(24, 2, 1, (3, 6), (0.5, 0.5)).next_running(6) == 9
    assert paced.is_full(
        16, 17
    )  # shortened to 17 steps, of which 0, 2, .., 16 run: the last one of them is full


@pytest.mark.parametrize("steps", [24, 40, 50])
@pytest.mark.parametrize("work", [0.2, 0.25, 0.3, 0.45, 0.5, 0.62, 0.75, 0.9, 1.0])
def test_any_work_can_be_asked_for(work: float, steps: int) -> None:
    assert schedule_of_work(work, steps).relative_cost == pytest.approx(work)


def test_work_that_is_out_of_reach_becomes_the_next_that_is_not() -> None:
    """A twentieth of 24 steps is 1.2 full ones, and the windows alone take 3: 3 / 24 and a
    little."""
    assert 3 / 24 < schedule_of_work(0.05, 24).relative_cost < 0.15
    with pytest.raises(ValueError, match="no share of the work of 2 steps"):
        schedule_of_work(0.5, 2)


def test_fractions_are_solved_in_closed_form() -> None:
    """T=40, W=5, E=2, strides 1/2: the coarse group runs 7 + 16 (the even steps 6..36) = 23 times,
    so phi = (40 * 0.75 - 23) / (40 - 23) = 7/17."""
    assert evaluations(40, 5, 2, (1, 2)) == (40, 23)
    assert solve_fractions(40, 5, 2, (1, 2), 1.0, 0.75) == pytest.approx((7 / 17, 10 / 17))
    assert solve_fractions(40, 5, 2, (1, 2), 1.0, 1.0) == (1.0, 0.0)
    assert solve_fractions(40, 5, 2, (1,), 1.0, 1.0) == (1.0,)


@pytest.mark.parametrize(
    ("strides", "target", "told"),
    [
        ((1, 2), 0.5, "cost between 0.575 and 1.000 of a full run; 0.5 is out of reach"),  # 23 / 40
        (
            (2, 4),
            0.9,
            "cost between 0.375 and 0.575 of a full run; 0.9 is out of reach",
        ),  # 7 + 8, 7 + 16
        ((1, 1), 0.5, "cost 1.000 of a full run; 0.5 is out of reach"),
        ((0, 2), 0.9, "strides must be positive"),
        ((1, 2), 1.5, "a target of 1.5"),
    ],
)
def test_a_target_that_cannot_be_met_is_refused(
    strides: tuple[int, ...], target: float, told: str
) -> None:
    with pytest.raises(ValueError, match=told.replace("(", r"\(")):
        solve_fractions(40, 5, 2, strides, 1.0, target)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((10, 8, 3, (1,), (1.0,)), r"8 \+ 3 full steps do not fit into 10"),
        ((10, 1, 1, (1, 2), (1.0,)), "2 strides, but 1 fractions"),
        ((10, 1, 1, (1, 2), (0.0, 1.0)), "the first above 0"),
        ((10, 1, 1, (1, 2), (0.5, 0.6)), "shares of 1"),
    ],
)
def test_an_impossible_schedule_is_refused(given: tuple, told: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=told):
        Schedule(*given)


@pytest.mark.parametrize(
    ("tokens", "width", "layers", "branches", "gigabytes"),
    [
        (32_760, 1536, 30, 2, 12.1),  # Wan 2.1 1.3B, 832x480, 81 frames
        (32_760, 5120, 40, 2, 53.7),  # 14B
        (75_600, 5120, 40, 2, 123.9),  # 14B, 1280x720
        (27_280, 3072, 30, 2, 20.1),  # Wan 2.2 5B, 1280x704, 121 frames
        (67_320, 3072, 60, 1, 49.6),  # HunyuanVideo, 960x544, 129 frames
    ],
)
def test_bytes_of_keys_and_values_are_those_of_the_specification(
    tokens: int, width: int, layers: int, branches: int, gigabytes: float
) -> None:
    whole = kv_bytes(tokens=tokens, width=width, layers=layers, branches=branches)
    assert whole / 1e9 == pytest.approx(gigabytes, abs=0.05)
    assert (
        kv_bytes(tokens=tokens, width=width, layers=layers, branches=branches, bytes_per_value=1)
        * 2
        == whole
    )
