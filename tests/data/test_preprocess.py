import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rir_deploy.data.preprocess import Preprocessing
from rir_deploy.errors import InputError

GREY = Preprocessing((2, 3), "L", (0.5,), (0.25,))
COLOUR = Preprocessing((1, 2), "RGB", (0.0, 0.5, 1.0), (1.0, 0.5, 0.25))


def test_normalize_gives_hand_computed_values_channels_first():
    batch = np.array([[[[0, 51, 255], [255, 204, 0]]]], dtype=np.uint8)
    # Red x = u/255; green x = (u/255 - 0.5) / 0.5; blue x = (u/255 - 1) / 0.25.
    expected = [[[[0.0, 1.0]], [[-0.6, 0.6]], [[0.0, -4.0]]]]
    result = COLOUR.normalize(batch)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result, expected, atol=1e-7)


@given(
    pixels=st.lists(st.integers(0, 255), min_size=12, max_size=12),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    std=st.tuples(*[st.floats(1e-4, 1)] * 3),
)
def test_normalize_and_affine_match_the_formula_in_float64(pixels, mean, std):
    preprocessing = Preprocessing((2, 2), "RGB", mean, std)
    batch = np.array(pixels, dtype=np.uint8).reshape(1, 2, 2, 3)
    result = preprocessing.normalize(batch)
    scale, offset = preprocessing.affine()
    for row in range(2):
        for column in range(2):
            for channel in range(3):
                value = int(batch[0, row, column, channel])
                exact = (value / 255 - mean[channel]) / std[channel]
                assert result[0, channel, row, column] == np.float32(exact)
                # Where the two terms of the affine form nearly cancel, the error is that of the larger.
                size = max(1.0, value * scale[channel], abs(offset[channel]))
                assert abs(value * scale[channel] + offset[channel] - exact) <= 1e-13 * size


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 2, 3, 1), dtype=np.float32),
        np.zeros((2, 3, 1), dtype=np.uint8),
        np.zeros((1, 3, 2, 1), dtype=np.uint8),
        np.zeros((1, 2, 3, 3), dtype=np.uint8),
    ],
)
def test_normalize_refuses_other_shapes_and_dtypes(batch):
    with pytest.raises(InputError, match=r"a batch must be uint8 of shape \(N, 2, 3, 1\)"):
        GREY.normalize(batch)


def test_normalize_takes_an_empty_batch():
    assert GREY.normalize(np.zeros((0, 2, 3, 1), dtype=np.uint8)).shape == (0, 1, 2, 3)


def test_input_shape_is_channels_height_width():
    assert GREY.input_shape == (1, 2, 3)
    assert COLOUR.input_shape == (3, 1, 2)


def test_fit_repeats_grey_into_three_channels():
    image = np.array([[[7], [200]]], dtype=np.uint8)
    np.testing.assert_array_equal(COLOUR.fit(image), [[[7, 7, 7], [200, 200, 200]]])


def test_fit_takes_luma_of_colour():
    image = np.zeros((2, 3, 3), dtype=np.uint8)
    image[0, 0] = (255, 0, 0)
    image[0, 1] = (0, 255, 0)
    image[0, 2] = (0, 0, 255)
    # 0.299, 0.587 and 0.114 of 255.
    np.testing.assert_array_equal(GREY.fit(image)[..., 0], [[76, 150, 29], [0, 0, 0]])


def test_fit_leaves_a_fitting_image_untouched():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    np.testing.assert_array_equal(GREY.fit(image), image)


def test_fit_resizes_to_height_by_width():
    image = np.zeros((4, 6, 1), dtype=np.uint8)
    image[:, 3:] = 90
    bilinear = Preprocessing((2, 2), "L", (0.5,), (0.5,), "bilinear")
    result = bilinear.fit(image)
    assert result.shape == (2, 2, 1)
    # The triangle filter of one half reaches a little into the other half of 0 0 0 90 90 90.
    assert result[0, 0, 0] < 15
    assert result[0, 1, 0] > 75
    np.testing.assert_array_equal(result[0], result[1])


@pytest.mark.parametrize("resize", ["bilinear", "bicubic", "lanczos"])
def test_every_resize_keeps_a_constant_image(resize):
    preprocessing = Preprocessing((3, 5), "RGB", (0.5,) * 3, (0.5,) * 3, resize)
    result = preprocessing.fit(np.full((7, 4, 1), 123, dtype=np.uint8))
    np.testing.assert_array_equal(result, np.full((3, 5, 3), 123))


def test_fit_refuses_another_size_and_names_both_with_the_way_out():
    with pytest.raises(InputError, match=r"picture 7 is 28x29 but the recipe expects 2x3; set resize"):
        GREY.fit(np.zeros((28, 29, 1), dtype=np.uint8), "picture 7")


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((2, 3), dtype=np.uint8),
        np.zeros((2, 3, 4), dtype=np.uint8),
        np.zeros((2, 3, 1), dtype=np.int32),
        np.zeros((0, 3, 1), dtype=np.uint8),
    ],
)
def test_fit_refuses_what_is_no_image(image):
    with pytest.raises(InputError, match="must be uint8 of shape"):
        GREY.fit(image)


def plain(**changes: Any) -> dict[str, Any]:
    return {"size": [4, 5], "mode": "L", "mean": [0.5], "std": [0.25], "resize": "none"} | changes


def test_to_dict_survives_json():
    preprocessing = Preprocessing((4, 5), "L", (0.1,), (0.3,), "bicubic")
    data = json.loads(json.dumps(preprocessing.to_dict()))
    assert data == {"size": [4, 5], "mode": "L", "mean": [0.1], "std": [0.3], "resize": "bicubic"}
    assert Preprocessing.from_dict(data) == preprocessing


def test_from_dict_leaves_resize_out_and_takes_whole_numbers():
    data = plain(mean=[0], std=[1])
    del data["resize"]
    assert Preprocessing.from_dict(data) == Preprocessing((4, 5), "L", (0.0,), (1.0,), "none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": [4]}, "size must be"),
        ({"size": 4}, "size must be a list"),
        ({"size": [4, 0]}, "1 to 8192"),
        ({"size": [4, 9000]}, "1 to 8192"),
        ({"size": [4, 5.0]}, "integer"),
        ({"size": [4, True]}, "integer"),
        ({"mode": "RGBA"}, "mode must be one of RGB, L"),
        ({"mode": ["L"]}, "mode must be one of"),
        ({"mean": [0.5, 0.5]}, "mean must be a tuple of 1 numbers"),
        ({"mean": 0.5}, "mean must be a list"),
        ({"mean": ["0.5"]}, "number of mean must be a number"),
        ({"mean": [float("nan")]}, "finite"),
        ({"mean": [float("inf")]}, "finite"),
        ({"mean": [10**400]}, "finite"),
        ({"mean": [127.5]}, "0..255 scale by 255"),
        ({"mean": [-0.1]}, "0 to 1"),
        ({"std": [0.0]}, "std must be 0.0001 to 1"),
        ({"std": [-0.5]}, "std must be 0.0001 to 1"),
        ({"std": [64]}, "0..255 scale by 255"),
        ({"std": [None]}, "number of std must be a number"),
        ({"resize": "nearest"}, "resize must be one of none, bilinear, bicubic, lanczos"),
        ({"scale": 2}, "unknown key 'scale'"),
    ],
)
def test_from_dict_refuses_and_names_the_key(changes, message):
    with pytest.raises(InputError, match=message):
        Preprocessing.from_dict(plain(**changes))


@pytest.mark.parametrize("key", ["size", "mode", "mean", "std"])
def test_from_dict_names_the_missing_key(key):
    data = plain()
    del data[key]
    with pytest.raises(InputError, match=f"lacks the key '{key}'"):
        Preprocessing.from_dict(data)


@pytest.mark.parametrize("data", [None, [], "L", 3])
def test_from_dict_refuses_what_is_no_table(data):
    with pytest.raises(InputError, match="must be a table"):
        Preprocessing.from_dict(data)


@pytest.mark.parametrize("field", [{"size": [4, 5]}, {"mean": [0.5]}])
def test_lists_are_refused_where_tuples_compare(field):
    with pytest.raises(InputError, match="tuple"):
        Preprocessing(**{"size": (4, 5), "mode": "L", "mean": (0.5,), "std": (0.5,)} | field)
