from dataclasses import dataclass, field

import numpy as np
import pytest

from rir_deploy.data.dataset import Dataset
from rir_deploy.data.preprocess import Preprocessing
from rir_deploy.errors import InputError

PREPROCESSING = Preprocessing((1, 2), "L", (0.5,), (0.5,))


@dataclass
class CountingSource:
    """Image i is all i; every decoded index is written down."""

    total: int = 10
    labels: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    shape: tuple[int, int, int] = (1, 2, 1)
    name: str = "counting"
    within: tuple[str | None, str | None] = (None, None)
    note: str | None = None
    decoded: list[int] = field(default_factory=list)

    def __len__(self):
        return self.total

    def image(self, index):
        self.decoded.append(index)
        return np.full(self.shape, index, dtype=np.uint8)

    def describe(self, index):
        return f"counting[{index}]"

    def fingerprint(self):
        return "0" * 64


def test_batches_cover_the_source_in_order_with_a_smaller_last_one():
    source = CountingSource(total=5, labels=np.array([4, 3, 2, 1, 0]))
    batches = list(Dataset(source, PREPROCESSING, 5).batches(2))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    assert [batch.labels.tolist() for batch in batches] == [[4, 3], [2, 1], [0]]
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(batches[1].images, [[[[2], [2]]], [[[3], [3]]]])


def test_a_batch_gives_its_tensor():
    batch = next(Dataset(CountingSource(), PREPROCESSING).batches(2, [0, 5]))
    # (u / 255 - 0.5) / 0.5 at 0 and 5.
    np.testing.assert_allclose(batch.tensor(PREPROCESSING), [[[[-1, -1]]], [[[10 / 255 - 1] * 2]]], atol=1e-7)
    assert batch.labels is None


def test_batches_follow_the_indices_given():
    source = CountingSource(labels=np.arange(10) % 3)
    batches = list(Dataset(source, PREPROCESSING).batches(2, np.array([7, 1, 7])))
    assert [batch.indices.tolist() for batch in batches] == [[7, 1], [7]]
    assert [batch.images[0, 0, 0, 0] for batch in batches] == [7, 7]
    assert batches[0].labels.tolist() == [1, 1]
    assert source.decoded == [7, 1, 7]


def test_no_more_than_the_batch_asked_for_is_decoded():
    source = CountingSource(total=1000)
    iterator = Dataset(source, PREPROCESSING).batches(4)
    assert source.decoded == []
    for number in range(1, 4):
        next(iterator)
        assert len(source.decoded) == 4 * number


def test_progress_is_told_after_each_batch():
    calls = []
    for _ in Dataset(CountingSource(total=5), PREPROCESSING).batches(2, progress=lambda *call: calls.append(call)):
        pass
    assert calls == [(2, 5), (4, 5), (5, 5)]


def test_raw_holds_all_or_some_images():
    dataset = Dataset(CountingSource(total=3), PREPROCESSING)
    assert dataset.raw()[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert dataset.raw([2, 0]).shape == (2, 1, 2, 1)
    assert dataset.raw([2, 0])[:, 0, 0, 0].tolist() == [2, 0]
    assert dataset.raw([]).shape == (0, 1, 2, 1)
    assert len(dataset) == 3


def test_images_are_fitted_to_mode_and_size():
    colour = Preprocessing((3, 3), "RGB", (0.5,) * 3, (0.5,) * 3, "bilinear")
    np.testing.assert_array_equal(Dataset(CountingSource(), colour).raw([9]), np.full((1, 3, 3, 3), 9))


def test_an_image_of_another_size_is_named():
    iterator = Dataset(CountingSource(shape=(4, 4, 1)), PREPROCESSING).batches(1, [6])
    with pytest.raises(InputError, match=r"the image 'counting\[6\]' is 4x4 but the recipe expects 1x2"):
        next(iterator)


def test_a_label_out_of_range_is_named_before_an_image_is_decoded():
    source = CountingSource(total=4, labels=np.array([0, 1, 10, 11]))
    with pytest.raises(InputError, match=r"the label 10 at index 2, but there are 10 classes \(0 to 9\)"):
        Dataset(source, PREPROCESSING, 10)
    assert source.decoded == []
    assert len(Dataset(source, PREPROCESSING)) == 4


def test_labels_are_matched_by_class_name():
    # A folder that lacks "ant": by position, its bees would be ants.
    source = CountingSource(total=3, labels=np.array([0, 1, 0]), classes=("bee", "cow"))
    assert Dataset(source, PREPROCESSING, 3, ("ant", "bee", "cow")).labels.tolist() == [1, 2, 1]
    assert Dataset(source, PREPROCESSING, 3, ("cow", "ant", "bee")).labels.tolist() == [2, 0, 2]
    batch = next(Dataset(source, PREPROCESSING, 3, ("ant", "bee", "cow")).batches(3))
    assert batch.labels.tolist() == [1, 2, 1]


def test_folders_named_by_number_mean_the_number():
    # Sorted as text, "10" comes before "2".
    source = CountingSource(total=3, labels=np.array([0, 1, 2]), classes=("0", "10", "2"))
    names = [f"class {number}" for number in range(11)]
    assert Dataset(source, PREPROCESSING, classes=names).labels.tolist() == [0, 10, 2]
    with pytest.raises(InputError, match=r"the label 10 at index 1, but there are 10 classes"):
        Dataset(source, PREPROCESSING, classes=names[:10])


def test_a_class_that_the_recipe_lacks_is_named():
    source = CountingSource(total=2, labels=np.array([0, 1]), classes=("bee", "car"))
    with pytest.raises(InputError, match=r"has the class 'car', which the recipe does not \(known: ant, bee\)"):
        Dataset(source, PREPROCESSING, classes=("ant", "bee"))


def test_sources_without_names_or_labels_pass_with_class_names():
    unlabelled = Dataset(CountingSource(), PREPROCESSING, classes=("ant", "bee"))
    assert unlabelled.labels is None
    unnamed = CountingSource(total=2, labels=np.array([1, 2]))
    with pytest.raises(InputError, match="the label 2 at index 1, but there are 2 classes"):
        Dataset(unnamed, PREPROCESSING, classes=("ant", "bee"))


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_under_one_is_refused_at_once(size):
    with pytest.raises(InputError, match="batch size must be at least 1"):
        Dataset(CountingSource(), PREPROCESSING).batches(size)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 10], "has 10 images, none at index 10"),
        ([-1], "has 10 images, none at index -1"),
        ([0.5], "indices must be a list of integers"),
        ([[1, 2]], "indices must be a list of integers"),
        ([True], "indices must be a list of integers"),
    ],
)
def test_bad_indices_are_refused_at_once(indices, message):
    dataset = Dataset(CountingSource(), PREPROCESSING)
    with pytest.raises(InputError, match=message):
        dataset.batches(2, indices)
    with pytest.raises(InputError, match=message):
        dataset.raw(indices)
