import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rir_deploy.data.preprocess import Preprocessing
from rir_deploy.data.sources import open_source
from rir_deploy.errors import InputError, UsageError
from rir_deploy.recipe import CalibrationOptions, Recipe, load_recipe, packaged_recipes

TEXT = """
classes = ["cat", "dog"]
[data]
train = "digits:train"
[preprocess]
size = [8, 9]
mode = "L"
mean = [0.25]
std = [0.5]
[calibration]
samples = 16
seed = 3
percentile = 99.9
method = "percentile"
[model]
preset = "tiny"
layers = [2, 2]
[train]
learning_rate = 0.1
"""


def write(folder: Path, text: str) -> str:
    (folder / "pets.toml").write_text(text, encoding="utf-8")
    return str(folder / "pets.toml")


def test_a_file_is_read_into_a_recipe_named_after_it(tmp_path):
    assert load_recipe(write(tmp_path, TEXT)) == Recipe(
        name="pets",
        preprocessing=Preprocessing((8, 9), "L", (0.25,), (0.5,), "none"),
        classes=("cat", "dog"),
        calibration=CalibrationOptions(samples=16, seed=3, percentile=99.9, method="percentile"),
        data={"train": "digits:train"},
        model={"preset": "tiny", "layers": [2, 2]},
        train={"learning_rate": 0.1},
    )


def test_only_classes_and_preprocessing_must_be_there(tmp_path):
    text = 'name = "mine"\nclasses = ["a", "b"]\n[preprocess]\nsize=[1,1]\nmode="L"\nmean=[0]\nstd=[1]\n'
    recipe = load_recipe(Path(write(tmp_path, text)))
    assert recipe.name == "mine"
    assert recipe.calibration == CalibrationOptions(512, 0, 99.99, "auto")
    assert recipe.data == recipe.model == recipe.train == {}


@pytest.mark.parametrize("name", ["digits", "cifar10", "cifar100"])
def test_packaged_recipes_survive_json(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    text = json.dumps(recipe.to_dict(), allow_nan=False)
    assert Recipe.from_dict(json.loads(text)) == recipe
    assert json.dumps(Recipe.from_dict(json.loads(text)).to_dict()) == text


def test_packaged_recipes_are_the_three():
    assert sorted(packaged_recipes()) == ["cifar10", "cifar100", "digits"]


def test_cifar_recipes_hold_the_published_values():
    ten, hundred = load_recipe("cifar10"), load_recipe("cifar100")
    assert ten.preprocessing == Preprocessing(
        (32, 32), "RGB", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "none"
    )
    assert ten.classes == (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    assert hundred.preprocessing.mean == (0.5071, 0.4865, 0.4409)
    assert hundred.preprocessing.std == (0.2673, 0.2564, 0.2762)
    assert len(set(hundred.classes)) == 100
    assert list(hundred.classes) == sorted(hundred.classes)
    assert (hundred.classes[0], hundred.classes[1], hundred.classes[99]) == ("apple", "aquarium_fish", "worm")
    for recipe in (ten, hundred):
        assert recipe.train["epochs"] == 82
        assert recipe.train["milestones"] == [42, 62]
        assert recipe.train["batch_size"] == 500


def test_the_digits_recipe_fits_its_data():
    recipe = load_recipe("digits")
    source = open_source(recipe.data["train"])
    pixels = np.stack([source.image(index) for index in range(len(source))]).astype(np.float64) / 255
    assert abs(pixels.mean() - recipe.preprocessing.mean[0]) < 5e-5
    assert abs(pixels.std() - recipe.preprocessing.std[0]) < 5e-5
    assert recipe.preprocessing.input_shape == (1, 8, 8)
    assert recipe.classes == source.classes
    assert open_source(recipe.data["test"]).name == "digits:test"


def test_an_unknown_name_gets_the_closest():
    with pytest.raises(UsageError, match=r"unknown recipe 'cifar1O'; did you mean 'cifar10'"):
        load_recipe("cifar1O")


@pytest.mark.parametrize("path", ["nowhere/cifar10", "cifar10.toml"])
def test_a_file_that_is_not_there_is_a_usage_error(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"the recipe '{path}' does not exist .known by name: cifar10"):
        load_recipe(path)


def test_a_folder_is_an_input_error(tmp_path):
    (tmp_path / "x.toml").mkdir()
    with pytest.raises(InputError, match=r"cannot read the recipe '.*x\.toml': Is a directory"):
        load_recipe(tmp_path / "x.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[data]", "[data", "is not TOML"),
        ('mode = "L"', 'mode = "L"\nmode = "L"', "is not TOML"),
        ("seed = 3", "seed = " + "9" * 5000, "is not TOML|seed must be"),
        ('["cat", "dog"]', "[" * 5000 + "]" * 5000, "is not TOML"),
        ("[train]", "[trian]", "the recipe has the unknown key 'trian'"),
        ("std = [0.5]\n", "", r"\[preprocess\] lacks the key 'std'"),
        ("std = [0.5]", "std = [0.0]", r"\[preprocess\]: each number of std must be"),
        ("std = [0.5]", "std = [nan]", r"\[preprocess\]: each number of std must be a finite"),
        ("size = [8, 9]", 'size = ["8", 9]', r"\[preprocess\]: each side of size must be an integer"),
        ("size = [8, 9]", "sise = [8, 9]", r"\[preprocess\] has the unknown key 'sise'"),
        ('["cat", "dog"]', '"cat"', "classes must be a list"),
        ('["cat", "dog"]', '["cat"]', "classes must hold at least 2"),
        ('["cat", "dog"]', '["cat", "cat"]', "classes holds 'cat' twice"),
        ('["cat", "dog"]', '["cat", 2]', "each of classes must be a non-empty string"),
        ('["cat", "dog"]', '["cat", ""]', "each of classes must be a non-empty string"),
        ("samples = 16", "samples = 0", r"\[calibration\]: samples must be at least 1"),
        ("samples = 16", "samples = 1.5", r"\[calibration\]: samples must be an integer"),
        ("samples = 16", "samples = true", r"\[calibration\]: samples must be an integer"),
        ("samples = 16", "sample = 16", r"\[calibration\] has the unknown key 'sample'"),
        ("seed = 3", "seed = -1", r"\[calibration\]: seed must be 0 to 4294967295"),
        ("percentile = 99.9", "percentile = 50", r"percentile must be over 50 and up to 100, not 50"),
        ("percentile = 99.9", "percentile = 100.5", "percentile must be over 50"),
        ("percentile = 99.9", 'percentile = "99"', "percentile must be a number"),
        ('method = "percentile"', 'method = "mode"', "method must be one of auto, minmax, percentile, entropy, mse"),
        ('train = "digits:train"', 'valid = "x"', r"\[data\] has the unknown key 'valid'"),
        ('train = "digits:train"', "train = 3", r"\[data\] train must be a non-empty string"),
        ("learning_rate = 0.1", "learning_rate = inf", r"\[train\]\.learning_rate must be a finite"),
        ("layers = [2, 2]", "layers = [2, 2020-01-01]", r"\[model\]\.layers\[1\] must be a number, a string"),
        ("\n[data]", "\nmodel = 3\n[data]", "is not TOML"),
        ("\n[data]", "\nname = 3\n[data]", "name must be a non-empty string"),
    ],
)
def test_bad_files_are_refused_with_file_and_key(old, new, message, tmp_path):
    assert old in TEXT
    path = write(tmp_path, TEXT.replace(old, new))
    with pytest.raises(InputError, match=rf"pets\.toml' .*({message})"):
        load_recipe(path)


def test_bytes_that_are_no_text_are_an_input_error(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not TOML"):
        load_recipe(tmp_path / "x.toml")


@pytest.mark.parametrize("data", [None, [], {"name": "x", "classes": ["a", "b"], "preprocess": 3}])
def test_from_dict_refuses_what_is_no_table(data):
    with pytest.raises(InputError, match="must be a table"):
        Recipe.from_dict(data)


@pytest.mark.parametrize("key", ["data", "model", "train", "calibration"])
def test_from_dict_refuses_sections_that_are_no_tables(key):
    data = load_recipe("digits").to_dict() | {key: 3}
    with pytest.raises(InputError, match=rf"\[{key}\] must be a table"):
        Recipe.from_dict(data)


def test_a_recipe_shares_nothing_with_what_it_was_read_from():
    data = load_recipe("cifar10").to_dict()
    recipe = Recipe.from_dict(data)
    data["train"]["milestones"].append(99)
    recipe.to_dict()["train"]["milestones"].append(98)
    assert recipe.train["milestones"] == [42, 62]


def test_recipes_and_sources_load_no_heavy_library():
    code = (
        "import sys, rir_deploy.recipe, rir_deploy.data.dataset, rir_deploy.data.sampling\n"
        "rir_deploy.recipe.load_recipe('digits')\n"
        "print([name for name in ('torch', 'sklearn', 'onnx', 'onnxruntime') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
