"""Which steps run under `early`."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vidplat.methods.early.grid import passes_of, shortened


def test_the_grid_is_dense_at_first_and_thin_at_the_end() -> None:
    # 12 of 24: 24 (j / 12)^2 = 0, 0.17, 0.67, 1.5, 2.67, 4.17, 6, 8.17, 10.67, 13.5, 16.67, 20.17
    assert passes_of(0.5, 24) == (0, 1, 2, 3, 4, 5, 6, 8, 11, 14, 17, 20)
    # 6 of 24: 24 (j / 6)^2 = 0, 0.67, 2.67, 6, 10.67, 16.67
    assert passes_of(0.25, 24) == (0, 1, 3, 6, 11, 17)
    assert passes_of(0.01, 24) == (0,)
    assert passes_of(1.0, 5) == (0, 1, 2, 3, 4)


def test_half_a_pass_is_rounded_to_even() -> None:
    assert passes_of(0.5, 7) == (0, 1, 2, 4)  # 3.5; 7 (j / 4)^2 = 0, 0.44, 1.75, 3.94
    assert passes_of(0.5, 5) == (0, 1)  # 2.5; 5 (j / 2)^2 = 0, 1.25


works, lengths = st.floats(0.01, 1.0), st.integers(1, 200)


@given(works, lengths)
def test_as_many_steps_run_as_the_share_says_and_the_first_is_one_of_them(
    work: float, steps: int
) -> None:
    passes = passes_of(work, steps)
    assert len(passes) == max(1, round(work * steps))
    assert passes[0] == 0
    assert list(passes) == sorted(set(passes))
    assert passes[-1] < steps


@given(works, lengths)
def test_passes_are_never_denser_again_but_for_rounding(work: float, steps: int) -> None:
    gaps = [later - one for one, later in pairwise(passes_of(work, steps))]
    assert all(later >= max(gaps[: i + 1]) - 1 for i, later in enumerate(gaps))


@given(works, lengths, st.data())
def test_a_shorter_run_keeps_its_past_and_gives_up_held_steps_first(
    work: float, steps: int, data: st.DataObject
) -> None:
    passes = passes_of(work, steps)
    done = data.draw(st.integers(0, steps - 1))
    total = data.draw(st.integers(done + 1, steps))
    found = shortened(passes, steps, done, total)
    assert list(found) == sorted(set(found))
    assert [step for step in found if step < done] == [step for step in passes if step < done]
    assert all(step < total for step in found)
    to_come, kept = (sum(step >= done for step in all_) for all_ in (passes, found))
    assert bool(kept) == bool(to_come)
    assert kept <= min(to_come, total - done)
    # whoever was to run next runs, and no later than planned
    if to_come:
        assert min(step for step in found if step >= done) <= min(
            step for step in passes if step >= done
        )


def test_passes_keep_their_places_relative_to_what_is_left() -> None:
    # Planned were 0..6, 8, 11, 14, 17, 20. Nine steps in place of the last 18: halves of 0, 2, 5,
    # 8, 11, 14.
    assert shortened(passes_of(0.5, 24), 24, 6, 15) == (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13)
    # Two steps in place of 18: ninths of them; 0, 2, 5 and 8 fall on the first, 11 and 14 on the
    # second.
    assert shortened(passes_of(0.5, 24), 24, 6, 8) == (0, 1, 2, 3, 4, 5, 6, 7)


def test_a_run_that_stays_as_long_stays_as_it_is() -> None:
    passes = passes_of(0.4, 30)
    assert shortened(passes, 30, 7, 30) is passes
