"""Sources that are arrays: .npz, the binary version of CIFAR, the digits; and what `open_source` takes."""

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rir_deploy.data import npz
from rir_deploy.data.sources import open_source
from rir_deploy.errors import BackendError, InputError, UsageError

IMAGES = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)


def save(path: Path, **arrays) -> str:
    np.savez(path / "data.npz", **arrays)
    return str(path / "data.npz")


def test_npz_gives_images_and_labels(tmp_path):
    source = open_source(save(tmp_path, images=IMAGES, labels=np.array([5, 0], dtype=np.uint8)))
    assert len(source) == 2
    assert source.classes is None
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == [5, 0]
    np.testing.assert_array_equal(source.image(1), IMAGES[1])
    assert source.fingerprint() == hashlib.sha256((tmp_path / "data.npz").read_bytes()).hexdigest()


def test_npz_takes_grey_images_without_labels_and_compression(tmp_path):
    np.savez_compressed(tmp_path / "data.npz", images=IMAGES[..., 0])
    source = open_source(str(tmp_path / "data.npz"))
    assert source.labels is None
    np.testing.assert_array_equal(source.image(1), IMAGES[1, :, :, :1])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": IMAGES}, r"lacks the array 'images' \(it has: pictures\)"),
        ({"images": IMAGES.astype(np.float32)}, r"must be uint8 .* not float32 of shape \(2, 3, 4, 3\)"),
        ({"images": IMAGES[0, 0]}, "must be uint8 of shape"),
        ({"images": IMAGES.repeat(2, axis=3)}, "must be uint8 of shape"),
        ({"images": IMAGES[:0]}, "is empty"),
        ({"images": IMAGES[:, :0]}, "is empty"),
        ({"images": IMAGES, "labels": np.array([0.0, 1.0])}, "integers of shape"),
        ({"images": IMAGES, "labels": np.array([1])}, r"integers of shape \(2,\), one an image, not int64"),
        ({"images": IMAGES, "labels": np.array([[1], [2]])}, "integers of shape"),
        ({"images": IMAGES, "labels": np.array([3, -1])}, "holds -1 at index 1"),
        ({"images": IMAGES, "labels": np.array([3, 2**63], dtype=np.uint64)}, "holds 9223372036854775808"),
        ({"images": np.array([{}, 1], dtype=object)}, "not an .npz of plain arrays.*allow_pickle"),
        ({"images": IMAGES, "labels": np.array([None, 1], dtype=object)}, "not an .npz of plain arrays"),
    ],
)
def test_npz_refuses_other_contents(arrays, message, tmp_path):
    with pytest.raises(InputError, match=message):
        open_source(save(tmp_path, **arrays))


@pytest.mark.parametrize("keep", [0, 3, 200, -30])
def test_a_truncated_npz_is_refused(keep, tmp_path):
    path = Path(save(tmp_path, images=IMAGES))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"data\.npz' is not an \.npz of plain arrays, or is truncated"):
        open_source(str(path))


def test_an_npz_header_that_claims_more_than_there_is_is_refused_before_it_is_allocated(tmp_path):
    buffer = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 32, 32, 3)}
    np.lib.format.write_array_header_1_0(buffer, header)
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as file:
        file.writestr("images.npy", buffer.getvalue() + bytes(100))
    with pytest.raises(InputError, match=r"the size of 'images\.npy' is not that of its shape"):
        open_source(str(tmp_path / "data.npz"))


def test_an_npz_over_the_size_limit_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path, images=IMAGES)
    monkeypatch.setattr(npz, "MAX_ARRAY_BYTES", 100)
    with pytest.raises(InputError, match="over the limit of 100; give a folder or a zip of images"):
        open_source(path)


@pytest.mark.parametrize("member", ["images", "images.npy"])
def test_an_npz_member_that_is_no_array_is_refused(member, tmp_path):
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as file:
        file.writestr(member, b"junk that is no array")
    with pytest.raises(InputError, match=r"not an \.npz of plain arrays"):
        open_source(str(tmp_path / "data.npz"))


def record(*labels: int, red: int = 1) -> bytes:
    # Each channel counts up along a row; red, green and blue start at different values.
    planes = [bytes((start + column) % 256 for _ in range(32) for column in range(32)) for start in (red, 80, 160)]
    return bytes(labels) + b"".join(planes)


def write_cifar10(folder: Path, names: bool = True) -> Path:
    for number in range(1, 6):
        (folder / f"data_batch_{number}.bin").write_bytes(record(number, red=number) + record(9, red=50))
    (folder / "test_batch.bin").write_bytes(record(7, red=99))
    if names:
        (folder / "batches.meta.txt").write_text("".join(f"class {n}\n" for n in range(10)) + "\n")
    return folder


def test_cifar10_folder_defaults_to_train_and_spans_its_files(tmp_path):
    source = open_source(str(write_cifar10(tmp_path)))
    assert len(source) == 10
    assert source.labels.tolist() == [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]
    assert source.classes == tuple(f"class {n}" for n in range(10))
    image = source.image(6)
    assert image.shape == (32, 32, 3)
    # Record 0 of data_batch_4: red starts at 4 and counts along the row.
    assert image[0, 0].tolist() == [4, 80, 160]
    assert image[31, 5].tolist() == [9, 85, 165]
    assert source.describe(7).endswith("data_batch_4.bin[1]")


def test_cifar10_test_split_and_single_file(tmp_path):
    write_cifar10(tmp_path, names=False)
    test = open_source(f"{tmp_path}:test")
    single = open_source(str(tmp_path / "test_batch.bin"))
    assert test.labels.tolist() == single.labels.tolist() == [7]
    assert test.classes is None
    assert test.image(0)[0, 0].tolist() == [99, 80, 160]
    assert test.fingerprint() != open_source(f"{tmp_path}:train").fingerprint()


def test_cifar100_takes_the_fine_label(tmp_path):
    (tmp_path / "train.bin").write_bytes(record(3, 99) + record(19, 4))
    (tmp_path / "test.bin").write_bytes(record(0, 42, red=7))
    (tmp_path / "fine_label_names.txt").write_text("".join(f"fine_{n}\n" for n in range(100)))
    assert open_source(str(tmp_path)).labels.tolist() == [99, 4]
    test = open_source(f"{tmp_path}:test")
    assert test.labels.tolist() == [42]
    assert test.classes[42] == "fine_42"
    assert test.image(0)[0, 0].tolist() == [7, 80, 160]


def test_a_bin_file_of_another_name_is_told_by_its_size(tmp_path):
    (tmp_path / "ten.bin").write_bytes(record(3))
    (tmp_path / "hundred.bin").write_bytes(record(3, 77))
    assert open_source(str(tmp_path / "ten.bin")).labels.tolist() == [3]
    assert open_source(str(tmp_path / "hundred.bin")).labels.tolist() == [77]


@pytest.mark.parametrize("name", ["test_batch.bin", "test.bin", "other.bin"])
@pytest.mark.parametrize("data", [b"", record(1)[:-1], record(1) + b"x" * 7])
def test_a_truncated_or_empty_bin_is_refused(name, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=f"{name}' (is empty or truncated|has {len(data)} bytes)"):
        open_source(str(tmp_path / name))


def test_a_size_that_fits_both_variants_is_refused_unless_the_name_tells(tmp_path):
    data = bytes(3073 * 3074)
    (tmp_path / "other.bin").write_bytes(data)
    with pytest.raises(InputError, match=r"does not tell CIFAR-10 .* from CIFAR-100"):
        open_source(str(tmp_path / "other.bin"))
    (tmp_path / "test.bin").write_bytes(data)
    assert len(open_source(str(tmp_path / "test.bin"))) == 3073


def test_a_cifar_label_out_of_range_is_named(tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(record(1) + record(10))
    with pytest.raises(InputError, match="record 1 has the label 10, but CIFAR-10 has 10 classes"):
        open_source(str(tmp_path / "test_batch.bin"))


def test_a_missing_cifar_file_is_named(tmp_path):
    (write_cifar10(tmp_path) / "data_batch_3.bin").unlink()
    with pytest.raises(InputError, match=r"lacks 'data_batch_3\.bin'"):
        open_source(str(tmp_path))


def test_a_folder_with_both_cifars_is_refused(tmp_path):
    (write_cifar10(tmp_path) / "train.bin").write_bytes(record(1, 2))
    with pytest.raises(InputError, match="mixes files of CIFAR-10 and CIFAR-100"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("text", [b"", b"a\n" * 10, b"\xff\xfe"])
def test_bad_class_names_are_refused(text, tmp_path):
    (write_cifar10(tmp_path) / "batches.meta.txt").write_bytes(text)
    with pytest.raises(InputError, match=r"batches\.meta\.txt'"):
        open_source(str(tmp_path))


def test_digits_split_is_stratified_disjoint_and_complete():
    everything, train, test = (open_source(spec) for spec in ("digits", "digits:train", "digits:test"))
    assert (len(everything), len(train), len(test)) == (1797, 1438, 359)
    per_class = np.bincount(everything.labels)
    assert np.abs(np.bincount(test.labels) - per_class / 5).max() <= 0.5
    assert np.array_equal(np.bincount(train.labels) + np.bincount(test.labels), per_class)

    def contents(source):
        return sorted(source.image(index).tobytes() for index in range(len(source)))

    assert contents(everything) == sorted(contents(train) + contents(test))
    assert everything.classes == tuple("0123456789")


def test_digits_are_scaled_to_eight_bits():
    from sklearn.datasets import load_digits

    source = open_source("digits")
    image = source.image(0)
    assert image.shape == (8, 8, 1)
    assert image.dtype == np.uint8
    original = load_digits().images[0]
    assert original[0, 2] == 5.0
    assert image[0, 2, 0] == 80  # 5 * 255 / 16 = 79.7
    assert image.max() == round(original.max() * 255 / 16)


def test_digits_fingerprints_are_pinned_since_calibration_depends_on_them():
    assert open_source("digits:train").fingerprint().startswith("d33d796cea4e")
    assert open_source("digits:test").fingerprint().startswith("617b4fe6e84a")


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(BackendError, match="pip install scikit-learn"):
        open_source("digits")


@pytest.mark.parametrize("spec", ["digit", "digits:tets", "cifar10"])
def test_an_unknown_name_is_a_usage_error_that_lists_the_names(spec):
    with pytest.raises(UsageError, match="known: digits, digits:train, digits:test, or a path"):
        open_source(spec)


def test_a_misspelt_name_gets_the_closest():
    with pytest.raises(UsageError, match="did you mean 'digits:test'"):
        open_source("digits:tets")


@pytest.mark.parametrize("spec", ["", "no/such/folder", "no-such.zip", "nowhere/x:train", "a\0b", "x" * 5000 + ".zip"])
def test_a_path_that_is_not_there_is_a_usage_error_that_lists_the_forms(spec):
    with pytest.raises(UsageError, match=r"does not exist; give 'digits'.*CIFAR-10/100"):
        open_source(spec)


def test_a_form_that_is_not_taken_is_an_input_error_that_lists_the_forms(tmp_path):
    (tmp_path / "data.tar.gz").write_bytes(b"x")
    with pytest.raises(InputError, match="of no known form; give 'digits'"):
        open_source(str(tmp_path / "data.tar.gz"))


def test_a_split_of_what_has_none_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="':test' is for the digits and the folder of CIFAR"):
        open_source(f"{tmp_path}:test")


def test_a_file_that_cannot_be_opened_is_an_input_error(tmp_path, monkeypatch):
    path = tmp_path / "test_batch.bin"
    path.write_bytes(record(1))

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "memmap", refuse)
    with pytest.raises(InputError, match=r"cannot read .*Permission denied"):
        open_source(str(path))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["images", "labels"])
def test_an_array_that_a_few_bytes_inflate_to_is_refused_unread(name, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "SMALL_BYTES", 2**20)
    long = {"images": np.zeros((1024, 48, 64), np.uint8), "labels": np.zeros(2**19, np.int64)}
    (np.savez_compressed if packed else np.savez)(tmp_path / "data.npz", **{"images": IMAGES, name: long[name]})

    def read(*arguments, **options):
        raise InputError("it was read")

    monkeypatch.setattr(np, "load", read)
    with pytest.raises(InputError, match=r"inflate to \d+; save it" if packed else "it was read"):
        open_source(str(tmp_path / "data.npz"))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_npz_refuses_packing_whose_blocks_inflate_whole(method, tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, IMAGES)
    with zipfile.ZipFile(tmp_path / "data.npz", "w", method) as archive:
        archive.writestr("images.npy", buffer.getvalue())
    with pytest.raises(InputError, match="unusual method"):
        open_source(str(tmp_path / "data.npz"))
