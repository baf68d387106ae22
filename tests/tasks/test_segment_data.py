import numpy as np
import pytest
import torch
from PIL import Image

from lnz.errors import FormatError
from lnz.io.masks import Coding
from lnz.tasks.segment.data import Augmented, FolderDataset, SegmentData, collate
from lnz.tasks.segment.scenes import SceneDataset, Scenes, compose, digit_pool
from lnz.tasks.streams import Keys, generator

SMALL = Scenes(train=3, val=2, size=10, scale=1)


def write_folder(folder, count=5, size=(6, 4), void=False):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for k in range(count):
        Image.fromarray(rng.integers(256, size=(*size, 3), dtype=np.uint8)).save(folder / f"im{k}.png")
        mask = rng.integers(3, size=size, dtype=np.uint8)
        mask[0, 0] = 9 if void else 2
        Image.fromarray(mask).save(folder / f"im{k}_mask.png")
    return folder


class TestScenes:
    def test_are_a_function_of_the_seed(self):
        first, again, other = (SceneDataset(SMALL, "train", seed) for seed in (1, 1, 2))
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first.scenes, again.scenes, strict=True))
        assert not torch.equal(first.scenes[0][0], other.scenes[0][0])

    def test_validation_digits_are_not_training_digits(self):
        train, val = (digit_pool(split, 1)[0].flatten(1) for split in ("train", "val"))
        assert (len(train), len(val)) == (1200, 597)
        assert torch.cdist(train, val).min() > 0

    def test_labels_are_where_the_ink_is(self):
        clean = Scenes(noise=0.0, stripes=0, size=24, scale=2)
        for index in range(4):
            image, labels = compose(clean, "train", np.random.default_rng(index))
            assert torch.equal(labels == 1, image[0] > 0.5)

    def test_stripes_hide_the_image_and_keep_the_labels(self):
        plain, striped = (Scenes(noise=0.0, stripes=stripes, size=24, scale=2) for stripes in (0, 3))
        (a, gold), (b, same) = (compose(scenes, "train", np.random.default_rng(3)) for scenes in (plain, striped))
        assert torch.equal(gold, same)
        changed = a != b
        assert changed.any()
        assert (b[changed] == 0.5).all()

    def test_digit_labels(self):
        labels = torch.stack([compose(Scenes(labels="digit"), "val", np.random.default_rng(k))[1] for k in range(8)])
        assert labels.min() == 0
        assert labels.max() <= 10
        assert len(labels.unique()) > 5

    def test_bad_settings(self):
        with pytest.raises(ValueError, match=r"scenes\.size: expected a positive integer, got 0"):
            Scenes(size=0)
        with pytest.raises(ValueError, match=r"scenes\.noise: expected at least 0, got -1"):
            Scenes(noise=-1)


class TestKeys:
    def test_order_is_a_function_of_seed_and_epoch(self):
        keys = Keys(7, seed=3, shuffle=True)
        first = list(keys)
        keys.set_epoch(1)
        second = list(keys)
        assert first == list(Keys(7, seed=3, shuffle=True))
        assert [k for _, k in first] != [k for _, k in second]
        assert sorted(k for _, k in first) == list(range(7))
        assert {epoch for epoch, _ in second} == {1}

    def test_training_shares_are_equal_and_cover_all(self):
        shares = [list(Keys(7, seed=0, rank=rank, world=2, shuffle=True)) for rank in range(2)]
        assert [len(share) for share in shares] == [4, 4]
        assert {k for share in shares for _, k in share} == set(range(7))

    def test_validation_shares_hold_each_image_once(self):
        shares = [list(Keys(7, seed=0, rank=rank, world=2)) for rank in range(2)]
        assert sorted(k for share in shares for _, k in share) == list(range(7))


class TestFolder:
    def test_draws_a_split(self, tmp_path):
        data = SegmentData(write_folder(tmp_path), mask_suffix="_mask", val_fraction=0.4)
        train, val = ({pair.name for pair in part.pairs} for part in (data.train.examples, data.val))
        assert (len(train), len(val), train & val) == (3, 2, set())
        assert (data.num_classes, data.in_channels) == (3, 3)

    def test_split_by_lists(self, tmp_path):
        write_folder(tmp_path / "d")
        (tmp_path / "val.txt").write_text("im1\nim3\n")
        data = SegmentData(tmp_path / "d", mask_suffix="_mask", val_list=tmp_path / "val.txt")
        assert [pair.name for pair in data.val.pairs] == ["im1", "im3"]
        assert [pair.name for pair in data.train.examples.pairs] == ["im0", "im2", "im4"]

    def test_an_image_in_both_lists(self, tmp_path):
        write_folder(tmp_path / "d")
        (tmp_path / "list.txt").write_text("im1\n")
        with pytest.raises(ValueError, match=r"data\.val_list: 'im1' is in the training list too"):
            SegmentData(
                tmp_path / "d", mask_suffix="_mask", train_list=tmp_path / "list.txt", val_list=tmp_path / "list.txt"
            )

    def test_nothing_left_to_train_on(self, tmp_path):
        write_folder(tmp_path / "d", count=2)
        (tmp_path / "all.txt").write_text("im0\nim1\n")
        with pytest.raises(ValueError, match="no image is left for training"):
            SegmentData(tmp_path / "d", mask_suffix="_mask", val_list=tmp_path / "all.txt")
        with pytest.raises(ValueError, match="no image is left for validation"):
            SegmentData(tmp_path / "d", mask_suffix="_mask", train_list=tmp_path / "all.txt")

    def test_validation_folder_is_checked_against_the_classes_of_training(self, tmp_path):
        train, val = write_folder(tmp_path / "t"), write_folder(tmp_path / "v", void=True)
        with pytest.raises(FormatError, match=r"im0_mask\.png: expected labels in \[0, 3\), got \[9\]"):
            SegmentData(train, mask_suffix="_mask", val_images=val)

    def test_void_is_unobserved(self, tmp_path):
        data = SegmentData(write_folder(tmp_path, void=True), mask_suffix="_mask", void_label=9)
        assert data.num_classes == 3
        assert data.train[(0, 0)]["labels"][0, 0] == -100

    def test_augmentation_is_a_function_of_the_key(self, tmp_path):
        pairs = SegmentData(write_folder(tmp_path, size=(16, 16)), mask_suffix="_mask").train.examples.pairs
        a, b = (Augmented(FolderDataset(pairs, Coding()), 5, flip=True, crop=4) for _ in range(2))
        for key in [(0, 0), (0, 1), (1, 0), (2, 0)]:
            torch.rand(3)  # the global stream does not matter
            assert torch.equal(a[key]["image"], b[key]["image"])
            assert a[key]["labels"].shape == (4, 4)
        assert len({tuple(a[(epoch, 0)]["image"].flatten().tolist()) for epoch in range(5)}) > 1

    def test_flip_and_crop_keep_image_and_mask_together(self, tmp_path):
        ramp = np.arange(48, dtype=np.uint8).reshape(6, 8)
        Image.fromarray(ramp).save(tmp_path / "a.png")
        Image.fromarray(ramp).save(tmp_path / "a_mask.png")
        Image.fromarray(ramp).save(tmp_path / "b.png")
        Image.fromarray(ramp).save(tmp_path / "b_mask.png")
        data = SegmentData(tmp_path, mask_suffix="_mask", flip=True, crop=3)
        for epoch in range(6):
            example = data.train[(epoch, 0)]
            assert torch.equal((example["image"][0] * 255).round().long(), example["labels"])

    def test_void_stays_with_its_pixels(self, tmp_path):
        """Cut and mirrored, a pixel of the image keeps its place in it, and its label, unobserved or not."""
        data = SegmentData(write_folder(tmp_path, void=True), mask_suffix="_mask", void_label=9, flip=True, crop=4)
        seen = 0
        for epoch in range(8):
            for index in range(len(data.train)):
                example, whole = data.train[(epoch, index)], data.train.examples[(epoch, index)]
                assert example["labels"].shape == (4, 4)
                for name in ("labels", "image"):
                    of_whole = whole[name].flatten(-2)[..., example["pixels"]]
                    assert torch.equal(example[name], of_whole)
                seen += int((example["labels"] == -100).sum())
        assert seen > 0

    def test_counts_of_classes(self, tmp_path):
        data = SegmentData(write_folder(tmp_path, void=True), mask_suffix="_mask", void_label=9, num_classes=4)
        labels = torch.cat([data.train[(0, k)]["labels"].flatten() for k in range(len(data.train))])
        assert data.class_counts == torch.bincount(labels[labels >= 0], minlength=4).tolist()
        assert data.class_counts[3] == 0

    def test_loaders_of_two_sizes(self, tmp_path):
        write_folder(tmp_path, count=4)
        Image.fromarray(np.zeros((3, 9), dtype=np.uint8)).save(tmp_path / "z.png")
        Image.fromarray(np.zeros((3, 9), dtype=np.uint8)).save(tmp_path / "z_mask.png")
        (tmp_path / "val.txt").write_text("z\nim0\n")
        data = SegmentData(tmp_path, mask_suffix="_mask", val_list=tmp_path / "val.txt", batch_size=2)
        assert [tuple(batch["labels"].shape) for batch in data.val_dataloader()] == [(1, 3, 9), (1, 6, 4)]


def test_scenes_are_cut_and_mirrored_too():
    data, plain = SegmentData(scenes=SMALL, crop=6, flip=True), SegmentData(scenes=SMALL)
    example, whole = data.train[(3, 1)], plain.train[(3, 1)]
    assert example["image"].shape == (1, 6, 6)
    assert torch.equal(example["image"][0].flatten(), whole["image"].flatten()[example["pixels"].flatten()])
    labels = torch.cat([plain.train[(0, k)]["labels"].flatten() for k in range(3)])
    assert plain.class_counts == torch.bincount(labels, minlength=2).tolist()
    assert data.val[(0, 0)]["image"].shape == (1, 10, 10)


def test_collate_pads_with_unobserved_pixels():
    def example(height, width, index):
        labels = torch.ones(height, width, dtype=torch.int64)
        image = torch.ones(1, height, width)
        return {"image": image, "labels": labels, "pixels": labels.cumsum(1), "index": torch.tensor(index)}

    batch = collate([example(2, 3, 7), example(3, 2, 4)])
    assert batch["index"].tolist() == [7, 4]
    assert batch["pixels"][1].tolist() == [[1, 2, -100]] * 3
    assert batch["image"].shape == (2, 1, 3, 3)
    assert batch["labels"].tolist() == [
        [[1, 1, 1], [1, 1, 1], [-100, -100, -100]],
        [[1, 1, -100], [1, 1, -100], [1, 1, -100]],
    ]


def test_options_that_need_images():
    with pytest.raises(ValueError, match=r"data\.val_list: needs data\.images"):
        SegmentData(val_list="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"data\.batch_size: expected a positive integer, got 0"):
        SegmentData(batch_size=0)


def test_streams_differ_by_key():
    drawn = {torch.rand((), generator=generator(*key)).item() for key in [(0, 0), (0, 1), (1, 0), (0, 0, 0)]}
    assert len(drawn) == 4
