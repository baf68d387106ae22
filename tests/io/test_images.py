import numpy as np
import pytest
import torch
from PIL import Image

from lnz.errors import FormatError
from lnz.io import images as io


def save(path, array):
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two images of 4 × 3 pixels with their masks, in one folder."""
    for k, name in enumerate(("a", "b")):
        save(tmp_path / f"{name}.jpg", np.full((3, 4, 3), 100 + k))
        save(tmp_path / f"{name}_mask.png", [[0, 1, 2, 11]] * 3)
    return tmp_path


def pairs(folder):
    return io.pair_images(folder, mask_suffix="_mask")


def test_pairs_in_one_folder(folder):
    assert [(p.image.name, p.mask.name) for p in pairs(folder)] == [("a.jpg", "a_mask.png"), ("b.jpg", "b_mask.png")]


def test_pairs_in_two_folders(folder, tmp_path):
    gold = tmp_path / "gold"
    gold.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}_mask.png").rename(gold / f"{name}.png")
    assert [(p.image.name, p.mask.name) for p in io.pair_images(folder, gold)] == [
        ("a.jpg", "a.png"),
        ("b.jpg", "b.png"),
    ]


def test_check_finds_classes_sizes_and_void(folder):
    checked = io.check_pairs(pairs(folder), void_label=11)
    assert (checked.num_classes, checked.sizes, checked.void) == (3, ((3, 4), (3, 4)), True)


def test_reads_values(folder):
    image = io.read_image(folder / "b.jpg")
    assert image.shape == (3, 3, 4)
    torch.testing.assert_close(image, torch.full((3, 3, 4), 101 / 255), atol=2 / 255, rtol=0)
    mask = io.remap_void(io.read_mask(folder / "a_mask.png"), 11)
    assert mask.tolist() == [[0, 1, 2, -100]] * 3


def test_a_palette_mask_gives_its_indices(tmp_path):
    palette = Image.fromarray(np.array([[2, 0]], dtype=np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "m.png")
    assert io.read_mask(tmp_path / "m.png").tolist() == [[2, 0]]


def test_what_is_written_is_read_again(tmp_path):
    io.write_mask(tmp_path / "m.png", torch.tensor([[0, 5], [255, 1]]))
    assert io.read_mask(tmp_path / "m.png").tolist() == [[0, 5], [255, 1]]
    io.write_confidence(tmp_path / "c.png", torch.tensor([[0.0, 0.5, 1.0]]))
    with Image.open(tmp_path / "c.png") as image:
        assert np.array(image).tolist() == [[0, 32768, 65535]]


class TestErrors:
    def expect(self, folder, message, **kwargs):
        with pytest.raises(FormatError, match=message):
            io.check_pairs(pairs(folder), **kwargs)

    def test_missing_folder(self, tmp_path):
        with pytest.raises(FormatError, match=r"nowhere: expected a folder of images, found nothing"):
            io.list_images(tmp_path / "nowhere")

    def test_no_images(self, tmp_path):
        with pytest.raises(FormatError, match=r"expected images \(.*\.png.*\), found none"):
            io.list_images(tmp_path)

    def test_missing_mask(self, folder):
        (folder / "b_mask.png").unlink()
        self.expect(folder, r"b\.jpg: no mask b_mask\.\* in ")

    def test_one_folder_needs_a_suffix(self, folder):
        with pytest.raises(FormatError, match="need a mask suffix"):
            io.pair_images(folder)

    def test_two_images_of_one_name(self, folder):
        save(folder / "a.png", np.zeros((3, 4, 3)))
        self.expect(folder, r"a\.png: a\.jpg in the same folder has the same name")

    def test_another_size(self, folder):
        save(folder / "b_mask.png", np.zeros((4, 4)))
        self.expect(folder, r"b_mask\.png: expected the size of its image b\.jpg, 4×3 .*, got 4×4")

    def test_truncated_image(self, folder):
        data = (folder / "b.jpg").read_bytes()
        (folder / "b.jpg").write_bytes(data[: len(data) // 2])
        self.expect(folder, r"b\.jpg: cannot be read as an image")

    def test_truncated_mask(self, folder):
        data = (folder / "b_mask.png").read_bytes()
        (folder / "b_mask.png").write_bytes(data[: len(data) // 2])
        self.expect(folder, r"b_mask\.png: cannot be read as a mask")

    def test_not_an_image(self, folder):
        (folder / "a.jpg").write_text("hello")
        self.expect(folder, r"a\.jpg: cannot be read as an image")

    def test_colour_mask(self, folder):
        save(folder / "a_mask.png", np.zeros((3, 4, 3)))
        self.expect(folder, r"a_mask\.png: expected a mask of label numbers of mode 1, L, P, got mode RGB")

    def test_label_out_of_range(self, folder):
        self.expect(
            folder, r"a_mask\.png: expected labels in \[0, 2\), or 11 for void, got \[2\]", num_classes=2, void_label=11
        )

    def test_255_is_asked_about(self, folder):
        save(folder / "a_mask.png", [[0, 1, 2, 255]] * 3)
        self.expect(folder, r"a_mask\.png: holds label 255.*void_label 255")

    def test_all_void(self, folder):
        for name in ("a", "b"):
            save(folder / f"{name}_mask.png", np.full((3, 4), 11))
        self.expect(folder, "every pixel of every mask is void", void_label=11)


class TestLists:
    def test_by_stem_or_name_with_comments(self, folder):
        (folder / "list.txt").write_text("# held out\n\nb\na.jpg\n")
        assert [p.name for p in io.select(pairs(folder), folder / "list.txt")] == ["b", "a"]

    def test_byte_order_marks_encodings_and_other_forms_of_a_name(self, folder):
        (folder / "a.jpg").rename(folder / "fu\u0308r.jpg")
        (folder / "a_mask.png").rename(folder / "für_mask.png")
        for data, encoding in (
            ("für\n".encode("utf-8-sig"), None),
            ("für.jpg\r\n".encode("utf-16"), None),
            ("photos/für.jpg\n".encode("latin-1"), "latin-1"),
        ):
            (folder / "list.txt").write_bytes(data)
            assert [p.name for p in io.select(pairs(folder), folder / "list.txt", encoding)] == ["fu\u0308r"]

    def test_unknown_name(self, folder):
        (folder / "list.txt").write_text("a\nc\n")
        with pytest.raises(FormatError, match=r"list\.txt, line 2: no image named 'c'"):
            io.select(pairs(folder), folder / "list.txt")

    def test_empty(self, folder):
        (folder / "list.txt").write_text("\n")
        with pytest.raises(FormatError, match=r"list\.txt: expected one image name per line, found none"):
            io.select(pairs(folder), folder / "list.txt")

    def test_missing(self, folder):
        with pytest.raises(FormatError, match=r"list\.txt: expected a readable file, got: no such file"):
            io.select(pairs(folder), folder / "list.txt")
