import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rir_deploy.data.sampling import choose, shuffled
from rir_deploy.errors import InputError


@given(
    labels=st.lists(st.sampled_from([0, 1, 2, 7]), min_size=1, max_size=60),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_choose_is_sorted_without_repeats_repeatable_and_as_balanced_as_the_classes_allow(labels, share, seed):
    array = np.array(labels, dtype=np.int64)
    count = max(1, round(share * len(labels)))
    chosen = choose(array, len(labels), count, seed)
    assert chosen.dtype == np.int64
    assert len(chosen) == count
    assert np.all(np.diff(chosen) > 0)
    assert chosen[0] >= 0
    assert chosen[-1] < len(labels)
    np.testing.assert_array_equal(chosen, choose(array, len(labels), count, seed))
    sizes = {label: labels.count(label) for label in set(labels)}
    taken = {label: int((array[chosen] == label).sum()) for label in sizes}
    # A class gives less than the largest giver less one only when it has no more to give.
    for label, size in sizes.items():
        assert taken[label] >= min(size, max(taken.values()) - 1)


@given(count=st.integers(1, 40), seed=st.integers(0, 99))
def test_large_classes_are_balanced_within_one(count, seed):
    labels = np.repeat(np.arange(4), 10)
    taken = np.bincount(labels[choose(labels, 40, count, seed)], minlength=4)
    assert taken.max() - taken.min() <= 1


@given(total=st.integers(1, 50), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_choose_works_without_labels(total, share, seed):
    count = max(1, round(share * total))
    chosen = choose(None, total, count, seed).tolist()
    assert chosen == sorted(set(chosen))
    assert len(chosen) == count
    assert set(chosen) <= set(range(total))


def test_the_choice_is_pinned_since_range_tables_depend_on_it():
    # Of the permutation that RandomState(0) gives: 2 8 4 9 1 6 7 3 0 5.
    assert choose(None, 10, 4, 0).tolist() == [2, 4, 8, 9]
    # Dealt: class 0 has 2 8 4 6 0 in that order, class 1 has 9 1 7 3 5.
    assert choose(np.array([0, 1] * 5), 10, 4, 0).tolist() == [1, 2, 8, 9]


def test_seeds_give_different_choices_and_spare_samples_go_to_different_classes():
    labels = np.repeat(np.arange(10), 20)
    choices = {tuple(choose(labels, 200, 5, seed).tolist()) for seed in range(20)}
    assert len(choices) == 20
    spared = {int(label) for seed in range(50) for label in labels[choose(labels, 200, 1, seed)]}
    assert len(spared) > 5


@pytest.mark.parametrize(("total", "count"), [(10, 11), (10, 0), (10, -1), (0, 1)])
def test_choose_refuses_more_than_there_are(total, count):
    with pytest.raises(InputError, match=f"{count} samples were asked for but the data hold {total} images"):
        choose(None, total, count, 0)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_choose_refuses_a_seed_out_of_range(seed):
    with pytest.raises(InputError, match="seed must be"):
        choose(None, 5, 1, seed)


def test_choose_refuses_labels_of_another_length():
    with pytest.raises(InputError, match="3 labels for 5 images"):
        choose(np.zeros(3, dtype=np.int64), 5, 1, 0)


def test_the_order_is_that_of_a_frozen_stream() -> None:
    """By the Mersenne twister of 1998, which numpy promises to keep: written down, since models depend on it."""
    assert shuffled(8, 0).tolist() == np.random.RandomState(0).permutation(8).tolist()
    assert shuffled(8, 0).tolist() == [6, 2, 1, 7, 3, 0, 5, 4]
