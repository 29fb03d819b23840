"""Which class a folder is: by name, by number, and where there is only one."""

from __future__ import annotations

import io
import itertools
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rir_deploy.data.dataset import Dataset
from rir_deploy.data.preprocess import Preprocessing
from rir_deploy.data.sources import open_source
from rir_deploy.errors import InputError
from rir_deploy.notices import Notice

SEEN = Preprocessing((2, 2), "L", (0.5,), (0.5,))
CLASSES = ("ant", "bee", "cat", "dog")


def tree(root: Path, folders: list[str], zipped: bool = False) -> str:
    """One image a folder, whose pixels are the folder's place in the list."""
    files = {}
    for place, folder in enumerate(folders):
        buffer = io.BytesIO()
        Image.new("L", (2, 2), place).save(buffer, "PNG")
        files[f"{folder}/x.png".lstrip("/")] = buffer.getvalue()
    if zipped:
        with zipfile.ZipFile(root / "data.zip", "w") as file:
            for name, data in files.items():
                file.writestr(name, data)
        return str(root / "data.zip")
    for name, data in files.items():
        (root / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "data" / name).write_bytes(data)
    return str(root / "data")


def labels(path: str, classes: tuple[str, ...] = CLASSES) -> dict[int, int] | None:
    """The label of every image, by its pixels."""
    dataset = Dataset(open_source(path), SEEN, classes=classes)
    if dataset.labels is None:
        return None
    return {int(image[0, 0, 0]): int(label) for image, label in zip(dataset.raw(), dataset.labels, strict=True)}


zips = pytest.mark.parametrize("zipped", [True, False])


@zips
@pytest.mark.parametrize("folders", [["0", "1", "2", "3"], ["3", "0"], ["00", "03", "02"], ["0", "003"]])
def test_numbers_with_a_zero_count_from_it(folders: list[str], zipped: bool, tmp_path: Path) -> None:
    assert labels(tree(tmp_path, folders, zipped)) == {place: int(folder) for place, folder in enumerate(folders)}


@zips
@pytest.mark.parametrize("folders", [["1", "2"], ["2", "3"], ["1", "2", "3", "4"], ["01", "02"], ["101", "102"], ["3"]])
def test_numbers_without_a_zero_are_refused_with_both_readings(
    folders: list[str], zipped: bool, tmp_path: Path
) -> None:
    path = tree(tmp_path, ["set/3"] if folders == ["3"] else folders, zipped)
    with pytest.raises(InputError, match="cannot be told from where they count") as caught:
        labels(path)
    message = str(caught.value)
    for first in (0, 1):
        places = [int(folder) - first for folder in folders]
        names = [CLASSES[place] if place < len(CLASSES) else "no class" for place in places]
        assert f"from {first} {'they are ' if first == 0 else ''}{', '.join(names)}" in message


@pytest.mark.parametrize("order", list(itertools.permutations(("1", "2", "3"))))
def test_classes_that_are_numbers_are_names(order: tuple[str, ...], tmp_path: Path) -> None:
    """Whatever their order, and with zeros before them."""
    folders = ["3", "2", "1"]
    assert labels(tree(tmp_path / "a", folders), order) == {i: order.index(one) for i, one in enumerate(folders)}
    padded = [f"0{one}" for one in folders]
    assert labels(tree(tmp_path / "b", padded), order) == {i: order.index(one) for i, one in enumerate(folders)}


def test_one_number_written_in_two_ways(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="class folders of one number"):
        labels(tree(tmp_path, ["0", "1", "01"]))


@zips
@pytest.mark.parametrize("folder", ["cat", "set/cat", "data/set/cat", "cat/images"])
def test_one_class_among_several_is_a_label(folder: str, zipped: bool, tmp_path: Path) -> None:
    path = tree(tmp_path, [folder], zipped)
    if folder == "cat/images":  # the class is given itself, with a folder in it
        path = tree(tmp_path / "more", ["images"])
        (tmp_path / "more" / "data").rename(tmp_path / "more" / "cat")
        path = str(tmp_path / "more" / "cat")
    assert labels(path) == {0: 2}
    assert labels(path, ("ant", "bee")) is None


@zips
@pytest.mark.parametrize("folder", ["", "photos", "2024", "holidays/2024"])
def test_images_of_no_class_stay_without_labels(folder: str, zipped: bool, tmp_path: Path) -> None:
    assert labels(tree(tmp_path, [folder], zipped)) is None


def test_labels_of_an_array_are_as_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 2, 2), np.uint8), labels=np.array([1, 2]))
    assert Dataset(open_source(str(tmp_path / "a.npz")), SEEN, classes=CLASSES).labels.tolist() == [1, 2]


def notices(path: str, classes: tuple[str, ...] = CLASSES) -> tuple[dict[int, int] | None, list[str]]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", Notice)
        found = labels(path, classes)
    return found, [str(one.message) for one in said]


@zips
@pytest.mark.parametrize("folder", ["zebra", "C1", "9", "antelope"])
def test_an_only_folder_that_is_no_class_is_named(folder: str, zipped: bool, tmp_path: Path) -> None:
    found, said = notices(tree(tmp_path, [f"set/{folder}"], zipped))
    assert found is None
    assert len(said) == 1
    assert f"'{folder}', is no class of the recipe" in said[0]
    assert "without labels" in said[0]


@zips
@pytest.mark.parametrize("folder", ["Cat", "CAT", "cAt"])
def test_an_only_folder_in_other_letters_is_its_class(folder: str, zipped: bool, tmp_path: Path) -> None:
    path = tree(tmp_path, [f"set/{folder}"], zipped)
    found, said = notices(path)
    assert found == {0: 2}
    assert len(said) == 1
    assert "taken as the class 'cat'" in said[0]
    assert notices(path, ("ant", "cat", "Cat", "CAT", "cAt"))[0] is not None  # an exact name comes first
    assert notices(path, ("ant", "caT", "CaT"))[0] is None  # which of the two cannot be told


@pytest.mark.parametrize("name", ["train", "test", "val", "valid", "validation", "images", "data", "dataset"])
def test_a_part_of_a_data_set_is_no_class(name: str, tmp_path: Path) -> None:
    """CIFAR-100 has trains: images right inside of a folder called so are of all classes more likely than not."""
    path = tree(tmp_path, [""])
    Path(path).rename(tmp_path / name)
    assert notices(str(tmp_path / name), (name, "ant")) == (None, [])


@zips
def test_a_source_that_is_called_as_a_class_is_taken_so_with_a_notice(zipped: bool, tmp_path: Path) -> None:
    path = Path(tree(tmp_path, [""], zipped))
    path = path.rename(path.with_name("cat" + path.suffix))
    found, said = notices(str(path))
    assert found == {0: 2}
    assert len(said) == 1
    assert "taken as of the class 'cat'" in said[0]


def test_numbers_of_any_length_are_refused_as_names(tmp_path: Path) -> None:
    for folders in (["9" * 5000, "1"], ["0", "1" * 4301], ["0", "1" * 19]):
        with pytest.raises(InputError, match="which the recipe does not"):
            labels(tree(tmp_path, folders, zipped=True))
    found, said = notices(tree(tmp_path, ["set/" + "9" * 5000], zipped=True))
    assert (found, len(said)) == (None, 1)
    assert labels(tree(tmp_path, ["0", "0" * 5000 + "1"], zipped=True)) == {0: 0, 1: 1}
