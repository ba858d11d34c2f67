import io
import zipfile
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from PIL import Image

from green_screen.data import image_files
from green_screen.data.data import check_dataset, load_dataset
from green_screen.options import OptionError


def png(value, mode="RGB", size=(8, 8)):
    content = io.BytesIO()
    Image.new(mode, size, value if mode != "RGB" else (value, 0, 255 - value)).save(content, "PNG")
    return content.getvalue()


PLAIN = {f"{c}/{i}.png": png(10 * i + k) for k, c in enumerate(("cat", "dog")) for i in range(5)}
PARTED = {f"test/{name}": content for name, content in PLAIN.items()} | {
    f"train/{name.replace('.', 'x.')}": content for name, content in PLAIN.items()
}


@pytest.fixture(params=["folder", "zip"])
def store(request, tmp_path):
    """Return a function that stores files, in a folder or in an archive, and gives its path."""

    def make(files):
        if request.param == "folder":
            for name, content in files.items():
                path = tmp_path / "data" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return str(tmp_path / "data")
        with zipfile.ZipFile(tmp_path / "data.zip", "w") as opened:
            for name, content in files.items():
                opened.writestr(name, content)
        return str(tmp_path / "data.zip")

    return make


def load(name, image_size=8, samples=None):
    return load_dataset(name, image_size=image_size, samples=samples, seed=0)


@pytest.mark.parametrize("above", ["", "pets/", "a/b/"])
def test_class_folders(store, above):
    name = store({above + file: content for file, content in PLAIN.items()})
    check_dataset(name)
    loaded = load(name)
    assert loaded.class_names == ("cat", "dog")
    assert loaded.labels.tolist() == [0] * 5 + [1] * 5
    assert loaded.images[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 1, 11, 21, 31, 41]
    assert loaded.images[:, 0, 0, 2].tolist() == [255, 245, 235, 225, 215, 254, 244, 234, 224, 214]
    assert loaded.predefined_test_from is None


@pytest.mark.parametrize("above", ["", "pets/"])
def test_train_and_test_folders(store, above):
    loaded = load(store({above + file: content for file, content in PARTED.items()}))
    assert loaded.class_names == ("cat", "dog")
    assert loaded.predefined_test_from == 10
    assert loaded.labels.tolist() == ([0] * 5 + [1] * 5) * 2


def test_a_train_folder_alone_has_no_test_part(store):
    loaded = load(store({f"train/{file}": content for file, content in PLAIN.items()}))
    assert loaded.predefined_test_from is None
    assert loaded.class_names == ("cat", "dog")


def test_other_files_are_left_alone(store):
    other = {
        "README.txt": b"text",
        "cat/notes.txt": b"text",
        ".hidden/x/0.png": b"broken",
        "__MACOSX/cat/0.png": b"broken",
        "cat/._0.png": b"broken",
    }
    assert len(load(store(PLAIN | other)).images) == 10


def test_grey_and_transparent_images_of_any_size_become_three_channels(store):
    files = PLAIN | {
        "cat/grey.png": png(77, "L", (20, 12)),
        "cat/clear.png": png((1, 2, 3, 4), "RGBA"),
    }
    loaded = load(store(files))
    assert loaded.images.shape == (12, 8, 8, 3)
    assert np.all(loaded.images[6] == 77)
    assert np.all(loaded.images[5] == (1, 2, 3))


def test_grey_images_of_16_bits_are_scaled_and_of_32_bits_refused(store):
    files = PLAIN | {f"cat/w{i:03}.png": png(i * 257, "I;16") for i in (0, 100, 255)}
    loaded = load(store(files))
    assert [set(loaded.images[i].flat) for i in (5, 6, 7)] == [{0}, {100}, {255}]
    floats = io.BytesIO()
    Image.new("F", (8, 8), 0.5).save(floats, "TIFF")
    with pytest.raises(OptionError, match="must have 8 or 16 bits, but are of mode F"):
        load(store(PLAIN | {"cat/float.tif": floats.getvalue()}))


def test_a_subset_reads_no_other_image(store):
    files = {f"{c}/{i:02}.png": png(i) for c in "ab" for i in range(20)}
    whole = load(store(files), samples=10)
    unread = {name: b"broken" for name in files}
    kept = {
        f"{'ab'[label]}/{image[0, 0, 0]:02}.png"
        for image, label in zip(whole.images, whole.labels, strict=True)
    }
    subset = load(store(unread | {name: files[name] for name in kept}), samples=10)
    assert subset.digest == whole.digest


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"README.txt": b""}, "holds no images"),
        ({"0.png": png(1), "1.png": png(2)}, "must lie in CLASS/"),
        ({"cat/0.png": png(1), "cat/1.png": png(2)}, "at least two classes"),
        (PLAIN | {"more/bird/0.png": png(1)}, "more/bird/0.png"),
        (PLAIN | {"train/cat/0.png": png(1)}, "train/cat/0.png"),
        (PARTED | {"validation/cat/0.png": png(1)}, "validation/cat/0.png"),
    ],
)
def test_other_layouts_are_refused(store, files, message):
    with pytest.raises(OptionError, match=message):
        check_dataset(store(files))


def test_broken_images_are_all_named_before_anything_starts(store):
    files = PLAIN | {f"dog/broken{i}.png": png(1)[: 40 + i] for i in range(7)}
    name = store(files | {"cat/text.jpg": b"text"})
    for use in (check_dataset, load):
        with pytest.raises(OptionError, match="^8 of 18 images of .* cannot be used") as caught:
            use(name)
        assert "'cat/text.jpg' (cannot identify" in str(caught.value)
        assert "'dog/broken3.png' (" in str(caught.value) and "and 3 more" in str(caught.value)


def test_the_subset_that_is_used_is_the_one_that_is_checked(store):
    files = {f"{c}/{i:02}.png": png(i) for c in "ab" for i in range(20)}
    name = store(files)
    kept = load_dataset(name, image_size=8, samples=10, seed=7)
    used = {f"{'ab'[k]}/{i[0, 0, 0]:02}.png" for i, k in zip(kept.images, kept.labels, strict=True)}
    name = store({file: files[file] if file in used else b"broken" for file in files})
    check_dataset(name, samples=10, seed=7)
    with pytest.raises(OptionError, match="cannot be used"):
        check_dataset(name, samples=10, seed=8)


def test_an_animation_is_not_read_by_its_first_frame_alone(store):
    content = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), (60 * i, 0, 0)) for i in range(3)]
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(OptionError, match=r"'cat/moving.gif' \(it holds 3 frames"):
        check_dataset(store(PLAIN | {"cat/moving.gif": content.getvalue()}))


def test_what_is_left_out_is_counted_and_named(store):
    assert check_dataset(store(PLAIN)) == ""
    others = {
        "README.txt": b"text",
        "cat/0.heic": b"?",
        "bird/0.heic": b"?",
        "bird/more/1.HEIC": b"?",
        "cat/._0.png": b"broken",
        "cat/Thumbs": b"?",
    }
    name = store(PLAIN | others)
    said = (
        f"left out of {name!r}: 3 .heic, 1 .txt, 1 hidden, 1 without a suffix, "
        "bird, where no image is"
    )
    assert check_dataset(name) == said
    assert load(name).left_out == said


def test_an_empty_class_folder_is_named(tmp_path):
    for name, content in PLAIN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "bird").mkdir()
    said = f"left out of {str(tmp_path)!r}: bird, where no image is"
    assert check_dataset(str(tmp_path)) == said


def linked(tmp_path):
    """Return a folder of the two classes and a third that is a link, with an image that is one."""
    for name, content in PLAIN.items():
        for root in ("data", "elsewhere"):
            (tmp_path / root / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / root / name).write_bytes(content)
    (tmp_path / "data" / "fox").symlink_to(tmp_path / "elsewhere" / "dog")
    (tmp_path / "data" / "cat" / "9.png").symlink_to(tmp_path / "elsewhere" / "cat" / "4.png")
    return tmp_path / "data"


def test_links_are_followed(tmp_path):
    loaded = load(str(linked(tmp_path)))
    assert loaded.class_names == ("cat", "dog", "fox")
    assert np.bincount(loaded.labels).tolist() == [6, 5, 5]
    assert loaded.left_out == ""


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_a_link_in_a_circle_is_refused(tmp_path, target):
    folder = linked(tmp_path)
    (folder / "dog" / "loop").symlink_to(target)
    with pytest.raises(OptionError, match="loop.* leads to a folder that it lies in"):
        check_dataset(str(folder))


def test_a_link_to_nothing_is_refused(tmp_path):
    folder = linked(tmp_path)
    (folder / "fox").unlink()
    (folder / "cat" / "gone.png").symlink_to("nowhere.png")
    (folder / "fox").symlink_to("nowhere")
    with pytest.raises(OptionError, match="1 of 12 images .*'cat/gone.png' .*No such file"):
        check_dataset(str(folder))


def test_an_archive_with_a_name_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as opened:
        for name, content in PLAIN.items():
            opened.writestr(name, content)
        with pytest.warns(UserWarning, match="Duplicate name"):
            opened.writestr("cat/0.png", png(7))
    with pytest.raises(OptionError, match="holds 'cat/0.png' twice"):
        check_dataset(str(tmp_path / "data.zip"))


def test_nothing_is_extracted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "inside" / "data.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in PLAIN.items():
            opened.writestr(name, content)
            opened.writestr("../../" + name, content)  # no class folder of this archive
            opened.writestr("/" + str(tmp_path / name), content)
    with pytest.raises(OptionError, match="must lie in CLASS/"):
        load(str(path))
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in PLAIN.items():
            opened.writestr(name, content)
            opened.writestr("../../" + name, content)
    assert len(load(str(path)).images) == 10
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["data.zip"]


def test_an_archive_is_open_only_while_it_is_read(tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in PLAIN.items():
            opened.writestr(name, content)
    source = image_files.archive(path)
    assert len(source.read(np.arange(2), 8)) == 2
    assert str(path) not in {file.path for file in psutil.Process().open_files()}


def test_an_image_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MAX_IMAGE_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in PLAIN.items():
            opened.writestr(name, content + bytes(10_000))
    with pytest.raises(OptionError, match="unpacks to more than 1000 bytes"):
        load(str(tmp_path / "data.zip"))


@pytest.mark.parametrize(("image_s", "pools"), [(0.0001, []), (0.0005, [2]), (0.002, [4])])
def test_small_images_are_decoded_by_one_thread(store, monkeypatch, image_s, pools):
    """Threads that hand the interpreter's lock to one another take longer than one alone."""
    now_s, decode, made = [0.0], image_files.resize, []

    def resize(image, size):
        now_s[0] += image_s
        return decode(image, size)

    class Pool(image_files.ThreadPoolExecutor):
        def __init__(self, n_threads):
            made.append(n_threads)
            super().__init__(n_threads)

    monkeypatch.setattr(image_files, "resize", resize)
    monkeypatch.setattr(image_files, "ThreadPoolExecutor", Pool)
    clock = SimpleNamespace(perf_counter=lambda: now_s[0])
    monkeypatch.setattr(image_files, "time", clock)
    monkeypatch.setattr(image_files.os, "cpu_count", lambda: 4)
    files = {f"{c}/{i:03}.png": png(i) for c in "ab" for i in range(150)}
    images = load_dataset(store(files), image_size=8, samples=None, seed=0).images
    assert list(images[:, 0, 0, 0]) == [*range(150)] * 2
    assert made == pools
