import numpy as np
import pytest
import torch
from PIL import Image

from lnz.errors import FormatError
from lnz.io import allowing, masks
from lnz.io import images as io
from lnz.io.masks import Coding, Legend


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
    checked = masks.check_pairs(pairs(folder), coding=Coding(11))
    assert (checked.num_classes, checked.sizes, checked.void) == (3, ((3, 4), (3, 4)), True)


def test_reads_values(folder):
    image = io.read_image(folder / "b.jpg")
    assert image.shape == (3, 3, 4)
    torch.testing.assert_close(image, torch.full((3, 3, 4), 101 / 255), atol=2 / 255, rtol=0)
    mask = masks.read_mask(folder / "a_mask.png", Coding(11))
    assert mask.tolist() == [[0, 1, 2, -100]] * 3


def test_a_palette_mask_gives_its_indices(tmp_path):
    palette = Image.fromarray(np.array([[2, 0]], dtype=np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "m.png")
    assert masks.read_mask(tmp_path / "m.png").tolist() == [[2, 0]]


def test_what_is_written_is_read_again(tmp_path):
    masks.write_mask(tmp_path / "m.png", torch.tensor([[0, 5], [255, 1]]))
    assert masks.read_mask(tmp_path / "m.png").tolist() == [[0, 5], [255, 1]]
    io.write_confidence(tmp_path / "c.png", torch.tensor([[0.0, 0.5, 1.0]]))
    with Image.open(tmp_path / "c.png") as image:
        assert np.array(image).tolist() == [[0, 32768, 65535]]


class TestErrors:
    def expect(self, folder, message, **kwargs):
        with pytest.raises(FormatError, match=message):
            masks.check_pairs(pairs(folder), **kwargs)

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
        self.expect(
            folder, r"a_mask\.png: expected a mask of label numbers of mode 1, .* L, P, got mode RGB; .*data.palette"
        )

    def test_label_out_of_range(self, folder):
        self.expect(
            folder,
            r"a_mask\.png: expected labels in \[0, 2\), or 11 for void, got \[2\]",
            num_classes=2,
            coding=Coding(11),
        )

    def test_255_is_asked_about(self, folder):
        save(folder / "a_mask.png", [[0, 1, 2, 255]] * 3)
        self.expect(folder, r"a_mask\.png: holds label 255.*void_label 255")

    def test_all_void(self, folder):
        for name in ("a", "b"):
            save(folder / f"{name}_mask.png", np.full((3, 4), 11))
        self.expect(folder, "every pixel of every mask is void", coding=Coding(11))


class TestImages:
    def test_orientation(self, tmp_path):
        """A photograph taken upright by a camera that lay on its side: EXIF orientation 6, turn by 90° clockwise."""
        pixels = np.zeros((2, 3, 3), np.uint8)
        pixels[0, 0] = 255  # at the top left, which is the top right once upright
        exif = Image.Exif()
        exif[0x0112] = 6
        for name in ("a.png", "a.tiff"):
            Image.fromarray(pixels).save(tmp_path / name, exif=exif)
            image = io.read_image(tmp_path / name)
            assert image.shape == (3, 3, 2)
            assert image[0].tolist() == [[0, 1], [0, 0], [0, 0]]
        Image.fromarray(pixels[..., 0] // 255).save(tmp_path / "m.png", exif=exif)
        assert masks.read_mask(tmp_path / "m.png").tolist() == [[0, 1], [0, 0], [0, 0]]

    def test_transparent_pixels_are_white(self, tmp_path):
        """A black shape that is only in the alpha channel."""
        alpha = np.array([[0, 255], [255, 0]], np.uint8)
        black = np.zeros((2, 2), np.uint8)
        Image.fromarray(np.stack([black] * 3 + [alpha], -1), "RGBA").save(tmp_path / "rgba.png")
        Image.fromarray(np.stack([black, alpha], -1), "LA").save(tmp_path / "la.png")
        palette = Image.fromarray(alpha // 255, "P")
        palette.putpalette([9, 9, 9, 0, 0, 0])
        palette.save(tmp_path / "p.png", transparency=0)
        Image.fromarray(np.where(alpha, 0, 7).astype(np.uint8)).save(tmp_path / "l.png", transparency=7)
        for name in ("rgba", "la", "p", "l"):
            assert io.read_image(tmp_path / f"{name}.png").tolist() == [[[1, 0], [0, 1]]] * 3
        half = np.full((1, 1, 4), 128, np.uint8)
        Image.fromarray(half, "RGBA").save(tmp_path / "half.png")
        torch.testing.assert_close(io.read_image(tmp_path / "half.png"), torch.full((3, 1, 1), 191 / 255))

    def test_white_on_white_is_an_error(self, tmp_path):
        pixels = np.full((2, 2, 4), 255, np.uint8)
        pixels[0, 0, 3] = 0
        Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
        with pytest.raises(FormatError, match=r"a\.png: expected an image that shows on white"):
            io.read_image(tmp_path / "a.png")

    def test_hidden_files_are_passed_over(self, folder):
        for name in ("._a.jpg", ".hidden.png", "._a_mask.png"):
            (folder / name).write_bytes(b"Mac OS X")
        assert [pair.name for pair in pairs(folder)] == ["a", "b"]

    def test_no_other_program_is_started(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
        with pytest.raises(FormatError, match=r"a\.png: cannot be read as an image \(cannot identify image file"):
            io.read_image(tmp_path / "a.png")

    def test_more_pixels_than_a_small_file_may_have(self, tmp_path):
        save(tmp_path / "a.png", np.zeros((100, 100)))
        with allowing(pixels=9999, per_byte=0), pytest.raises(FormatError, match=r"at most 9,999 pixels, got 10,000"):
            io.read_image(tmp_path / "a.png")


class TestMasks:
    @pytest.mark.parametrize("ending", ["jpg", "webp"])
    def test_lossy_formats_are_refused(self, folder, ending):
        mask = np.kron(np.random.default_rng(0).integers(3, size=(8, 8)), np.ones((4, 4)))
        (folder / "a_mask.png").unlink()
        save(folder / f"a_mask.{ending}", mask)
        with pytest.raises(FormatError, match=rf"a_mask\.{ending}: expected a mask in a lossless format"):
            masks.read_mask(folder / f"a_mask.{ending}")

    def test_values_are_mapped_in_their_order(self, tmp_path):
        save(tmp_path / "m.png", [[0, 255, 128], [255, 7, 0]])
        coding = Coding(void=7, values=(255, 0, 128))
        assert masks.read_mask(tmp_path / "m.png", coding).tolist() == [[1, 0, 2], [0, -100, 1]]
        with pytest.raises(
            FormatError, match=r"m\.png: expected the values of data.label_values, 0, 255, or 7 for .* \[128\]"
        ):
            masks.read_mask(tmp_path / "m.png", Coding(7, (0, 255)))

    def test_masks_of_0_and_255(self, folder):
        for name in ("a", "b"):
            save(folder / f"{name}_mask.png", [[0, 255, 255, 0]] * 3)
        with pytest.raises(
            FormatError, match=r"a_mask\.png: holds 0 and 255: two labels are --data.label_values '\[0,255\]'"
        ):
            masks.check_pairs(pairs(folder))
        checked = masks.check_pairs(pairs(folder), coding=Coding(values=(0, 255)))
        assert (checked.num_classes, checked.legend) == (2, Legend(("0", "255"), None, (0, 255)))

    def test_sixteen_bits(self, tmp_path):
        Image.fromarray(np.array([[7000, 0], [65535, 26001]], np.uint16)).save(tmp_path / "m.png")
        assert masks.read_mask(tmp_path / "m.png").tolist() == [[7000, 0], [65535, 26001]]
        coding = Coding(void=65535, values=(0, 7000, 26001))
        assert masks.read_mask(tmp_path / "m.png", coding).tolist() == [[1, 0], [-100, 2]]
        save(tmp_path / "image.png", np.zeros((2, 2)))
        with pytest.raises(FormatError, match=r"m\.png: holds label 65535; .*--data.label_values lists"):
            masks.check_pairs([io.Pair(tmp_path / "image.png", tmp_path / "m.png")])
        legend = Legend(("a", "b", "c"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), (0, 7000, 26001))
        masks.write_mask(tmp_path / "w.png", torch.tensor([[1, 0], [0, 2]]), legend)
        assert masks.read_mask(tmp_path / "w.png").tolist() == [[7000, 0], [0, 26001]]

    def test_colours(self, tmp_path):
        (tmp_path / "p.txt").write_bytes("# CamVid\r\n64 128 64\tAnimal\r\n0, 0, 192, Fußweg\n0 0 0 Void\n".encode())
        palette = masks.read_palette(tmp_path / "p.txt")
        assert palette == Legend(("Animal", "Fußweg", "Void"), ((64, 128, 64), (0, 0, 192), (0, 0, 0)))
        coloured = np.array([[[0, 0, 192], [0, 0, 0], [64, 128, 64]]])
        save(tmp_path / "m.png", coloured)
        opaque = np.concatenate([coloured, np.full((1, 3, 1), 255)], -1)
        save(tmp_path / "rgba.png", opaque)
        coding = Coding(void=2, palette=palette)
        for name in ("m.png", "rgba.png"):
            assert masks.read_mask(tmp_path / name, coding).tolist() == [[1, -100, 0]]
        save(tmp_path / "image.png", np.zeros((1, 3, 3)))
        checked = masks.check_pairs([io.Pair(tmp_path / "image.png", tmp_path / "m.png")], coding=coding)
        assert (checked.num_classes, checked.void) == (2, True)
        assert checked.legend == Legend(("Animal", "Fußweg"), ((64, 128, 64), (0, 0, 192)))
        masks.write_mask(tmp_path / "w.png", torch.tensor([[1, 0]]), checked.legend)
        with Image.open(tmp_path / "w.png") as image:
            assert image.mode == "P"
            assert np.array(image).tolist() == [[1, 0]]
            assert np.array(image.convert("RGB")).tolist() == [[[0, 0, 192], [64, 128, 64]]]
        save(tmp_path / "m.png", coloured + np.array([0, 1, 0]))
        with pytest.raises(FormatError, match=r"m\.png: expected colours of the palette, got \(0, 1, 192\)"):
            masks.read_mask(tmp_path / "m.png", coding)

    def test_the_palette_of_masks_is_kept(self, folder):
        for name, second in (("a", (0, 255, 0)), ("b", (0, 255, 0))):
            mask = Image.fromarray(np.array([[0, 1, 2, 1]] * 3, np.uint8), "P")
            mask.putpalette([9, 9, 9, *second, 0, 0, 255])
            mask.save(folder / f"{name}_mask.png")
        checked = masks.check_pairs(pairs(folder))
        assert checked.legend == Legend(("0", "1", "2"), ((9, 9, 9), (0, 255, 0), (0, 0, 255)))
        mask.putpalette([9, 9, 9, 255, 0, 0, 0, 0, 255])
        mask.save(folder / "b_mask.png")
        self.expect_other_colour(folder)

    def expect_other_colour(self, folder):
        with pytest.raises(FormatError, match=r"b_mask\.png: expected label 1 in the colour of .* got \(255, 0, 0\)"):
            masks.check_pairs(pairs(folder))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("1 2 3\n", "line 1: expected red, green, blue and a name, got '1 2 3'"),
            ("1 2 300 a\n", r"line 1: expected a new colour of numbers to 255, got \(1, 2, 300\)"),
            ("1 2 3 a\n1 2 3 b\n", "line 2: expected a new colour"),
            ("\n", "expected a colour and a name on each line, found none"),
        ],
    )
    def test_malformed_palettes(self, tmp_path, text, message):
        (tmp_path / "p.txt").write_text(text)
        with pytest.raises(FormatError, match=rf"p\.txt.*{message}"):
            masks.read_palette(tmp_path / "p.txt")

    def test_contradictory_codings(self):
        for options, message in (
            ({"values": (0, 0)}, "label_values: expected at least one entry, each once"),
            ({"values": ()}, "label_values: expected at least one entry"),
            ({"values": (0, 255), "void": 255}, "label_values: expected values from 0, without 255 for void"),
            (
                {"values": (0, 255), "palette": Legend(("a",), ((0, 0, 0),))},
                "as many values as the palette has colours",
            ),
        ):
            with pytest.raises(FormatError, match=message):
                Coding(**options)


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
