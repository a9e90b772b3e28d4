import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traffic import cost_of_application

from consolve.learned.multilevel.ranks.partition import (
    MOST_IMBALANCE,
    Partition,
    even_partition,
    halve,
    partition_of_rows,
    whole,
    with_levels,
)
from consolve.learned.multilevel.ranks.plan import HALO, make_plan, with_halo

SIZES = st.integers(1, 70)


def covers(partition):
    """Each cell is in exactly one box, and ``owner`` agrees."""
    count = np.zeros(partition.shape, int)
    owner = np.full(partition.shape, -1)
    for rank, (low, high) in enumerate(partition.boxes):
        box = tuple(slice(a, b) for a, b in zip(low, high))
        count[box] += 1
        owner[box] = rank
    where = np.indices(partition.shape).reshape(3, -1)
    return (count == 1).all() and (partition.owner(where) == owner.reshape(-1)).all()


@given(st.tuples(SIZES, SIZES, SIZES), st.integers(1, 12), st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_boxes_share_out_the_cells_on_all_levels_that_keep_them(shape, ranks, most):
    partition, levels = with_levels(even_partition(shape, tuple(range(ranks)), ranks), most)
    assert 1 <= levels <= most and covers(partition)
    for _ in range(levels):
        finer, partition = partition, partition.halved()
        assert all(c % 2 == 0 for cuts in finer.cuts for c in cuts[1:-1])
        assert partition.shape == halve(finer.shape) and covers(partition)
        ends = zip(finer.boxes, partition.boxes)
        assert all((coarse == -(-fine // 2)).all() or (fine == 0).all() for fine, coarse in ends)


@given(st.tuples(st.just(1) | SIZES, SIZES, SIZES), st.integers(1, 6), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_partition_follows_rows_in_natural_order(shape, ranks, random):
    size = math.prod(shape)
    cuts = sorted([0, size, *(random.randint(0, size) for _ in range(ranks - 1))])
    bounds = np.zeros((ranks, 2, 3), np.int64)
    for rank, (start, stop) in enumerate(pairwise(cuts)):
        if stop > start:
            where = np.array(np.unravel_index(np.arange(start, stop), shape))
            bounds[rank] = where.min(1), where.max(1) + 1
    partition = partition_of_rows(shape, bounds)
    assert covers(partition) and len(set(partition.ranks)) == len(partition.ranks)


def test_partition_keeps_the_boxes_of_a_dmda():
    cuts = ((0, 7, 20), (0, 9, 16, 31), (0, 40))
    bounds = np.array(
        [
            [[cuts[a][p] for a, p in enumerate(place)], [cuts[a][p + 1] for a, p in enumerate(place)]]
            for place in np.ndindex(2, 3, 1)
        ]
    )
    partition = partition_of_rows((20, 31, 40), bounds)
    assert partition.cuts == cuts and (partition.boxes == bounds).all()


def test_cuts_move_only_as_far_as_balance_allows():
    thirds = even_partition((1, 1, 192), (0, 1, 2), 3)
    partition, levels = with_levels(thirds, 10)
    assert partition.cuts[2] == (0, 64, 128, 192) and levels == 6
    partition, levels = with_levels(even_partition((1, 1, 100), (0, 1, 2), 3), 10)
    assert partition.cuts[2] == (0, 32, 64, 100) and levels == 5 and partition.imbalance <= MOST_IMBALANCE


@pytest.mark.parametrize("periodic", [(False,) * 3, (False, True, True)])
@pytest.mark.parametrize("shape", [(1, 96, 64), (40, 64, 32)])
@pytest.mark.parametrize("ranks", [1, 2, 6, 8])
def test_plans_end_on_one_rank(periodic, shape, ranks):
    plan = make_plan(even_partition(shape, tuple(range(ranks)), ranks), periodic, 500)
    shapes = [p.shape for p in plan.levels] + [plan.last.shape]
    assert shapes[0] == shape and all(b == halve(a) for a, b in pairwise(shapes))
    counts = [len(p.ranks) for p in plan.levels]
    assert counts == sorted(counts, reverse=True) and len(plan.last.ranks) == 1
    if not any(periodic):
        assert math.prod(plan.last.shape) <= 500 or ranks == 1


def test_small_grids_stay_with_a_rank_that_has_rows():
    bounds = np.zeros((4, 2, 3), np.int64)
    bounds[2] = (0, 0, 0), (1, 8, 8)
    assert make_plan(partition_of_rows((1, 8, 8), bounds), (False,) * 3, 100).last.ranks == (2,)


def test_halos_are_clipped_at_walls_and_wrap_around_periodic_sides():
    boxes = whole((1, 10, 12), 2, 1).boxes
    grown = with_halo(boxes, HALO, (1, 10, 12), (False, False, True))
    assert grown[1].tolist() == [[0, 0, -4], [1, 10, 16]] and (grown[0] == 0).all()


def test_cost_of_two_slabs_by_hand():
    """16 x 32 cells, cut across the first axis, three levels of which two are shared."""
    slabs = Partition((1, 16, 32), ((0, 1), (0, 8, 16), (0, 32)), (0, 1), 2)
    plan = make_plan(slabs, (False,) * 3, 4 * 8)
    assert [p.cuts[1] for p in plan.levels] == [(0, 8, 16), (0, 4, 8)] and plan.last.shape == (1, 4, 8)
    cost = cost_of_application(plan)
    # Finest: halos of 4 rows for b and x, 1 for the residual, 1 coarse row for the correction.
    assert cost.values[0].tolist() == [9 * 32 + 16] * 2 and cost.messages[0].tolist() == [4, 4]
    # Next: the same of half the length; its correction comes whole to the rank that lacks the last level.
    assert cost.values[1].tolist() == [9 * 16, 9 * 16 + 3 * 8] and cost.messages[1].tolist() == [3, 4]
    # Last: half of b to the rank that holds it.
    assert cost.values[2].tolist() == [2 * 8, 0] and cost.messages[2].tolist() == [1, 0]
    assert cost.seconds(1.0, math.inf) == 4 + 4 + 1
    assert cost.seconds(0.0, 4.0) == 304 + 168 + 16


def test_a_rank_sends_no_more_in_larger_jobs():
    """Boxes of 64^3 cells: what a rank in the bulk exchanges on the finest level is the same in any job."""
    busiest = []
    for side in (3, 5):
        ranks, n = side**3, 64 * side
        plan = make_plan(even_partition((n, n, n), tuple(range(ranks)), ranks), (False,) * 3, 32768)
        busiest.append(cost_of_application(plan).values[0].max())
    shell = [(64 + 2 * g) ** 3 - 64**3 for g in (4, 1)]
    coarse = (32 + 2) ** 3 - 32**3
    assert busiest == [2 * shell[0] + shell[1] + coarse] * 2
