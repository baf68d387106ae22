import math

import numpy as np
import pytest
import torch

from lnz.errors import FormatError
from lnz.tasks.length_batches import LengthBatches
from lnz.tasks.streams import Keys
from lnz.tasks.tag.data import TagData
from lnz.tasks.tag.strings import STEPS, Strings

TRAIN = "The\tO\nNew\tB-LOC\nYork\tI-LOC\n\nAnna\tB-PER\nand\tO\nthe\tO\nthe\tO\n\nYes\tO\n\n"


@pytest.fixture
def files(tmp_path):
    """Writes train.bio, and val.bio where it is given."""

    def write(train=TRAIN, val=None):
        paths = []
        for name, text in (("train.bio", train), ("val.bio", val)):
            if text is not None:
                (tmp_path / name).write_text(text)
            paths.append(tmp_path / name if text is not None else None)
        return {"train": paths[0], "val": paths[1]}

    return write


class TestStrings:
    small = Strings(train=40, val=10, shortest=1, longest=6)

    def test_a_function_of_the_seed(self):
        first, same, other = (TagData(strings=self.small, seed=seed) for seed in (3, 3, 4))
        for k in range(10):
            for part in ("train", "val"):
                a, b = getattr(first, part)[(0, k)], getattr(same, part)[(1, k)]
                assert torch.equal(a["image"], b["image"])
                assert torch.equal(a["tags"], b["tags"])
        assert any(not torch.equal(first.train[(0, k)]["tags"], other.train[(0, k)]["tags"]) for k in range(10))
        assert not any(torch.equal(first.train[(0, k)]["image"], first.val[(0, k)]["image"]) for k in range(10))

    def test_the_first_strings_do_not_depend_on_how_many_there_are(self):
        more = TagData(strings=Strings(train=45, val=10, shortest=1, longest=6))
        fewer = TagData(strings=self.small)
        assert torch.equal(more.train[(0, 39)]["image"], fewer.train[(0, 39)]["image"])

    def test_the_grammar(self):
        """The counter moves on by 0, 1 or 2, as often as is said."""
        data = TagData(strings=Strings(train=400, val=1))
        moves = torch.cat([data.train[(0, k)]["tags"].diff() % 10 for k in range(400)])
        shares = np.bincount(moves.numpy(), minlength=10) / len(moves)
        assert shares[3:].sum() == 0
        for share, expected in zip(shares[:3], STEPS, strict=True):
            assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / len(moves))
        assert {len(data.train[(0, k)]["tags"]) for k in range(400)} == set(range(4, 13))

    def test_images_are_of_the_digits_that_the_tags_say(self):
        from sklearn.datasets import load_digits

        data = TagData(strings=Strings(train=20, val=1, noise=0, blotted=0))
        pool = load_digits()
        for k in range(20):
            for image, tag in zip(data.train[(0, k)]["image"], data.train[(0, k)]["tags"], strict=True):
                found = (pool.images == 16 * image.numpy()).all((1, 2))
                assert pool.target[found].tolist() == [int(tag)] * found.sum()
                assert found[:1200].sum() >= 1

    def test_blots(self):
        data = TagData(strings=Strings(train=200, val=1, noise=0, blotted=0.25))
        blank = torch.cat([(data.train[(0, k)]["image"] == 0.5).all((1, 2)) for k in range(200)])
        assert abs(blank.float().mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / len(blank))

    def test_batches(self):
        data = TagData(strings=self.small, batch_size=8)
        batch = next(iter(data.train_dataloader()))
        T = int(batch["lengths"].max())
        assert batch["image"].shape == (8, T, 8, 8)
        assert ((batch["tags"] == -100) == (torch.arange(T) >= batch["lengths"][:, None])).all()
        assert data.image_size == (8, 8)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"train": 0}, r"strings\.train: expected a positive integer, got 0"),
            ({"shortest": 5, "longest": 4}, r"strings\.longest: expected at least shortest, 5, got 4"),
            ({"noise": -1}, r"strings\.noise: expected at least 0, got -1"),
            ({"blotted": 1}, r"strings\.blotted: expected a number in \[0, 1\), got 1"),
        ],
    )
    def test_errors(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            Strings(**wrong)


class TestSentences:
    def test_inventories(self, files):
        data = TagData(**files(val=TRAIN))
        assert data.tags == ["O", "B-LOC", "B-PER", "I-LOC"]
        assert data.words == ["the"]  # the only one that occurs twice, in lower case
        assert "".join(data.characters) == "ANTYadehknorstw"
        assert TagData(**files(val=TRAIN), min_count=1).words == ["and", "anna", "new", "the", "yes", "york"]

    def test_batches(self, files):
        data = TagData(**files(val=TRAIN), batch_size=2)
        first, second = data.val_dataloader()
        assert first["tokens"] == [("Yes",), ("The", "New", "York")]  # short ones first
        assert first["tags"].tolist() == [[0, -100, -100], [0, 1, 3]]
        assert (first["lengths"].tolist(), second["index"].tolist()) == ([1, 3], [1])

    def test_words_without_a_tag_are_unobserved(self, tmp_path):
        line = "{}\t{}\t_\t{}\t_\t_\t_\t_\t_\t_\n"
        text = line.format(1, "to", "PART") + line.format(2, "be", "_") + "\n" + line.format(1, "be", "AUX") + "\n"
        (tmp_path / "x.conllu").write_text(text)
        data = TagData(tmp_path / "x.conllu", val=tmp_path / "x.conllu")
        assert data.train[(0, 0)]["tags"].tolist() == [1, -100]
        with pytest.raises(FormatError, match=r"x\.conllu: expected words with tags, found none that has one"):
            TagData(tmp_path / "x.conllu", val=tmp_path / "x.conllu", column="xpos")

    def test_a_split_is_drawn(self, files):
        text = "".join(f"w{k}\tO\n\n" for k in range(20))
        first, same, other = (TagData(**files(text), val_fraction=0.25, seed=seed) for seed in (0, 0, 1))
        words = [[s.tokens[0] for s in part.sentences] for d in (first, same, other) for part in (d.train, d.val)]
        assert (len(words[0]), len(words[1])) == (15, 5)
        assert not set(words[0]) & set(words[1])
        assert words[:2] == words[2:4]
        assert words[1] != words[5]

    @pytest.mark.parametrize(
        ("train", "val", "options", "message"),
        [
            (TRAIN, "Oh\tO\nno\tB-ORG\n", {}, r"val\.bio, line 2: expected a tag of the training .*, got 'B-ORG'"),
            (
                "a\tO\nb\tI-x\n",
                "a\tO\n",
                {"scheme": "BIO"},
                r"train\.bio, line 2: 'I-x' cannot follow 'O' in scheme BIO",
            ),
            ("a\tI-x\n", "a\tI-x\n", {"scheme": "BIO"}, r"train\.bio, line 1: 'I-x' cannot follow the start of a sent"),
            ("a\tB-x\nb\tE-x\n", "a\tB-x\n", {"scheme": "BIOES"}, r"val\.bio, line 1: 'B-x' cannot end a sentence"),
            (
                TRAIN,
                TRAIN,
                {"scheme": "BILOU"},
                r"train\.bio, line 3: 'I-LOC' cannot end a sentence in BILOU",
            ),
            (
                "a\tNOUN\n",
                "a\tNOUN\n",
                {"scheme": "BIO"},
                r"train\.bio: tags: expected O, B-.*got 'NOUN'; leave out data",
            ),
        ],
    )
    def test_files_that_do_not_fit(self, files, train, val, options, message):
        with pytest.raises(FormatError, match=message):
            TagData(**files(train, val), **options)

    def test_options(self, files):
        with pytest.raises(ValueError, match=r"data\.val: needs data\.train"):
            TagData(val="x")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"data\.scheme: needs data\.train"):
            TagData(scheme="BIO")
        with pytest.raises(ValueError, match=r"data\.batch_size: expected a positive integer, got 0"):
            TagData(batch_size=0)
        with pytest.raises(ValueError, match=r"data\.min_count: expected a positive integer, got 0"):
            TagData(min_count=0)
        with pytest.raises(ValueError, match=r"data\.val_fraction: expected a number in \(0, 1\), got 1"):
            TagData(**files(), val_fraction=1)
        with pytest.raises(ValueError, match=r"data\.train: expected at least 2 sentences to split, got 1"):
            TagData(**files("a\tO\n"))


class TestLengthBatches:
    lengths = tuple(k % 7 + 1 for k in range(100))

    def batches(self, shuffle=True, epoch=0, seed=0):
        keys = Keys(100, seed, shuffle=shuffle)
        keys.set_epoch(epoch)
        return list(LengthBatches(keys, self.lengths, 8))

    def test_every_key_once(self):
        for shuffle in (True, False):
            batches = self.batches(shuffle)
            assert sorted(index for batch in batches for _, index in batch) == list(range(100))
            assert len(batches) == len(LengthBatches(Keys(100, 0), self.lengths, 8)) == 13

    def test_little_padding(self):
        spread = [
            max(self.lengths[k] for _, k in batch) - min(self.lengths[k] for _, k in batch) for batch in self.batches()
        ]
        assert np.mean(spread) < 1

    def test_order_is_a_function_of_seed_and_epoch(self):
        assert self.batches() == self.batches()
        assert self.batches() != self.batches(epoch=1)
        assert self.batches() != self.batches(seed=1)
        sizes = [self.lengths[batch[0][1]] for batch in self.batches()]
        assert sizes != sorted(sizes)  # batches are shuffled too
