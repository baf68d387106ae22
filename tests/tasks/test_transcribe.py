"""The parts of the transcription task: labels, tones, data, augmentation, module, judging."""

import itertools

import numpy as np
import pytest
import soundfile
import torch
from torchmetrics.text import CharErrorRate, WordErrorRate

from lnz import CTC, plot
from lnz.errors import FormatError, LnzError
from lnz.io.alignments import Interval, write_textgrid
from lnz.io.transcripts import Utterance
from lnz.tasks.transcribe.align import align, drawn
from lnz.tasks.transcribe.alphabet import Alphabet
from lnz.tasks.transcribe.augment import spec_augment
from lnz.tasks.transcribe.data import Recording, TranscribeData, split
from lnz.tasks.transcribe.judge import alignment_errors, distances, error_rates
from lnz.tasks.transcribe.module import TranscribeModule
from lnz.tasks.transcribe.report import Result, alignment_lines, rows_of
from lnz.tasks.transcribe.tones import HIGH, KEYS, LOW, Tones, compose

SMALL = Tones(train=6, val=3, digits=(2, 3))
RATE = 8000


@pytest.fixture
def folder(tmp_path):
    """Six recordings of noise, half a second each, with transcripts."""
    rng = np.random.default_rng(0)
    (tmp_path / "audio").mkdir()
    for k in range(6):
        soundfile.write(tmp_path / "audio" / f"r{k}.wav", 0.1 * rng.standard_normal(4000), RATE)
    (tmp_path / "t.tsv").write_text("".join(f"r{k}\tab b{'abc'[k % 3]}\n" for k in range(6)))
    return tmp_path


def module_of(labels=("a", "b"), units="words", **settings):
    return TranscribeModule(list(labels), units, RATE, width=8, dilations=(1,), **settings).eval()


class TestAlphabet:
    def test_characters(self):
        alphabet = Alphabet.of(["ba", "b c"], "characters")
        assert alphabet.labels == [" ", "a", "b", "c"]
        assert alphabet.encode("a b", "x").tolist() == [2, 1, 3]
        assert alphabet.decode(torch.tensor([1, 2, 1, 1, 3, -100])) == "a b"
        assert alphabet.words("ab c") == [("ab", 0, 2), ("c", 3, 4)]
        assert len(alphabet) == 5

    def test_words(self):
        alphabet = Alphabet.of(["two one", "one"], "words")
        assert alphabet.labels == ["one", "two"]
        assert alphabet.encode("two one", "x").tolist() == [2, 1]
        assert alphabet.decode(torch.tensor([2, 2, -100])) == "two two"
        assert alphabet.words("two one") == [("two", 0, 1), ("one", 1, 2)]

    @pytest.mark.parametrize(
        ("units", "spelt"), [("words", [" ", "ab", " ", "c", " "]), ("characters", list(" ab c "))]
    )
    def test_pauses(self, units, spelt):
        alphabet = Alphabet.of(["ab c"], units, pauses=True)
        target = alphabet.encode("ab c", "x")
        assert [alphabet.labels[k - 1] for k in target] == spelt
        assert alphabet.decode(target) == alphabet.decode(target[1:-1]) == "ab c"
        for word, first, last in alphabet.words("ab c"):
            assert "".join(spelt[first:last]) == word

    def test_unknown_labels_are_left_out_or_stars(self):
        alphabet = Alphabet([" ", "a", "b"], "characters")
        left_out = alphabet.spell("xa yz b", "r", "skip")
        assert left_out.labels == ["a", " ", " ", "b"]
        assert left_out.classes.tolist() == [2, 1, 1, 3]
        assert left_out.words == [("xa", 0, 1), ("b", 3, 4)]
        stars = alphabet.spell("xa yz b", "r", "star")
        assert stars.classes.tolist() == [4, 2, 1, 5, 4, 1, 3]  # neighbours differ
        assert stars.words == [("xa", 0, 2), ("yz", 3, 5), ("b", 6, 7)]
        assert torch.equal(alphabet.spell("ab", "r", "star").classes, alphabet.encode("ab", "r"))
        with pytest.raises(FormatError, match=r"r: 'xy' has none of the labels of the training texts: ' ' 'a' 'b'"):
            alphabet.spell("xy", "r", "skip")
        with pytest.raises(FormatError, match=r"r: 'y' is none of the labels"):
            alphabet.spell("ay", "r")

    def test_errors(self):
        with pytest.raises(FormatError, match=r"r.wav: 'x' is none of the labels of the training texts: 'a' 'b'"):
            Alphabet(["a", "b"], "characters").encode("abx", "r.wav")
        with pytest.raises(ValueError, match=r"units: expected 'characters' or 'words', got 'phones'"):
            Alphabet(["a"], "phones")


class TestTones:
    def test_each_key_sounds_when_it_says(self):
        """Inside an interval, its two tones are the loudest; between intervals, it is silent."""
        tones = Tones(noise=0.0, digits=(12, 12), length=(0.2, 0.25))
        wave, text, intervals = compose(tones, np.random.default_rng(3))
        assert [interval.label for interval in intervals] == text.split()
        assert set(text.split()) <= set(KEYS)
        silent = np.ones(len(wave), dtype=bool)
        for start, end, key, *_ in intervals:
            first, last = round(start * RATE), round(end * RATE)
            spectrum = np.abs(np.fft.rfft(wave.numpy()[first:last] * np.hanning(last - first)))
            hertz = np.arange(len(spectrum)) * RATE / (last - first)
            row, column = divmod(KEYS.index(key), 3)
            for pitch, others in ((LOW[row], hertz < 1075), (HIGH[column], hertz >= 1075)):
                assert hertz[(spectrum * others).argmax()] == pytest.approx(pitch, rel=0.025)
            silent[first:last] = False
        inside = np.abs(wave.numpy()[~silent]).mean()
        assert np.abs(wave.numpy()[silent]).mean() < 0.3 * inside  # clicks

    def test_are_functions_of_the_seed(self):
        first, same, other = (TranscribeData(tones=SMALL, seed=seed) for seed in (0, 0, 1))
        assert torch.equal(first.train[0].waveform, same.train[0].waveform)
        assert first.train[0].text != other.train[0].text
        assert first.train[0].text != first.val[0].text

    def test_errors(self):
        for wrong, message in (
            ({"train": 0}, r"tones.train: expected a positive integer, got 0"),
            ({"digits": (3, 2)}, r"tones.digits: expected two positive numbers in order, got \[3, 2\]"),
            ({"pause": (0.0, 1.0)}, r"tones.pause: expected two positive numbers in order, got \[0.0, 1.0\]"),
            ({"sample_rate": 2000}, r"tones.sample_rate: expected at least 4000 Hz, got 2000"),
            ({"noise": -1.0}, r"tones.noise: expected at least 0, got -1.0"),
        ):
            with pytest.raises(ValueError, match=message):
                Tones(**wrong)


class TestData:
    def test_a_folder(self, folder):
        data = TranscribeData(folder / "audio", transcripts=folder / "t.tsv", sample_rate=RATE, val_fraction=0.3)
        assert (len(data.train), len(data.val)) == (4, 2)
        assert data.units == "characters"
        assert data.labels == [" ", "a", "b", "c"]
        (batch,) = data.val_dataloader()
        assert batch["waveform"].shape == (2, 4000)
        assert batch["labels"].shape == (2, 5)
        assert batch["samples"].tolist() == [4000, 4000]
        np.testing.assert_allclose(
            batch["waveform"][0].numpy(), soundfile.read(data.val[0].audio, dtype="float32")[0], atol=1e-6
        )

    def test_read_again_each_time_or_kept(self, folder):
        options = {"transcripts": folder / "t.tsv", "sample_rate": 6000}
        kept, read = (TranscribeData(folder / "audio", in_memory=keep, **options) for keep in (True, False))
        assert read.train[0].waveform is None
        assert torch.equal(kept.train[0].load(6000), read.train[0].load(6000))
        assert kept.train[0].samples == read.train[0].samples == 3000

    def test_a_list_of_validation_recordings(self, folder):
        (folder / "val.txt").write_text("r1.wav\n\nr4\n")
        data = TranscribeData(folder / "audio", transcripts=folder / "t.tsv", val_list=folder / "val.txt")
        assert [recording.name for recording in data.val] == ["r1", "r4"]
        assert [recording.name for recording in data.train] == ["r0", "r2", "r3", "r5"]

    def test_known_bounds(self, folder):
        write_textgrid(folder / "r0.TextGrid", 0.5, {"words": [Interval(0.1, 0.2, "ab"), Interval(0.2, 0.4, "ba")]})
        data = TranscribeData(folder / "audio", transcripts=folder / "t.tsv", alignments=folder)
        gold = {recording.name: recording.gold for recording in (*data.train, *data.val)}
        assert [interval[:3] for interval in gold["r0"]] == [(0.1, 0.2, "ab"), (0.2, 0.4, "ba")]
        assert gold["r1"] == []

    def test_order_is_a_function_of_seed_and_epoch(self):
        def order(seed, epoch):
            loader = TranscribeData(tones=SMALL, seed=seed).train_dataloader()
            loader.sampler.set_epoch(epoch)
            return [index for batch in loader for index in batch["index"].tolist()]

        assert order(0, 0) == order(0, 0)
        assert sorted(order(0, 0)) == list(range(6))
        assert len({tuple(order(0, epoch)) for epoch in range(5)}) > 1

    def test_errors(self, folder):
        audio, options = folder / "audio", {"transcripts": folder / "t.tsv"}
        with pytest.raises(ValueError, match=r"data.transcripts: needs data.audio"):
            TranscribeData(**options)
        with pytest.raises(ValueError, match=r"data.batch_size: expected a positive integer, got 0"):
            TranscribeData(batch_size=0)
        with pytest.raises(ValueError, match=r"data.sample_rate: expected a positive number of Hz, got 0"):
            TranscribeData(audio, **options, sample_rate=0)
        with pytest.raises(ValueError, match=r"data.val_fraction: expected a number in \(0, 1\), got 1.0"):
            TranscribeData(audio, **options, val_fraction=1.0)
        with pytest.raises(ValueError, match=r"data.audio: expected at least 2 recordings to split, got 1"):
            split([Utterance(audio / "r0.wav", "ab")], None, 0.5, 0)
        val = folder / "val.txt"
        for content, message in (
            ("r9\n", r"val.txt, line 1: no recording named 'r9'"),
            ("\n", r"val.txt: expected one recording name per line, found none"),
        ):
            val.write_text(content)
            with pytest.raises(FormatError, match=message):
                TranscribeData(audio, **options, val_list=val)
        val.write_text("".join(f"r{k}\n" for k in range(6)))
        with pytest.raises(ValueError, match=r"data.val_list: names every recording"):
            TranscribeData(audio, **options, val_list=val)
        with pytest.raises(FormatError, match=r"none.txt: expected a readable file, got: no such file"):
            TranscribeData(audio, **options, val_list=folder / "none.txt")

    def test_wrong_bounds(self, folder):
        options = {"transcripts": folder / "t.tsv", "alignments": folder}
        write_textgrid(folder / "r0.TextGrid", 0.5, {"words": [Interval(0.1, 0.2, "ab")]})
        with pytest.raises(FormatError, match=r"r0.TextGrid: expected the words of the transcript, 'ab ba', got 'ab'"):
            TranscribeData(folder / "audio", **options)
        write_textgrid(folder / "r0.TextGrid", 0.5, {"phones": []})
        with pytest.raises(FormatError, match=r"r0.TextGrid: expected a tier 'words', got 'phones'"):
            TranscribeData(folder / "audio", **options)

    def test_a_label_that_training_never_shows(self, folder):
        (folder / "t.tsv").write_text("".join(f"r{k}\t{'ab' if k else 'xb'}\n" for k in range(6)))
        (folder / "val.txt").write_text("r0\n")
        with pytest.raises(FormatError, match=r"r0: 'x' is none of the labels of the training texts: 'a' 'b'"):
            TranscribeData(folder / "audio", transcripts=folder / "t.tsv", val_list=folder / "val.txt")


class TestSpecAugment:
    def test_hides_stripes_of_bounded_width(self, generator):
        features = torch.ones(50, 100, 20)
        lengths = torch.full((50,), 60)
        found = spec_augment(features, lengths, generator, time_masks=1, mel_masks=0)
        frames = (found == 0).all(-1)
        assert torch.equal(frames, (found == 0).any(-1))
        assert not frames[:, 60:].any()
        assert 0 < int(frames.sum(1).max()) <= 6  # a tenth of the recording
        bands = (spec_augment(features, lengths, generator, 0, 1) == 0).all(1)
        assert 0 < int(bands.sum(1).max()) <= 6
        assert set(bands.sum(1).tolist()) == set(range(7))

    def test_none(self, generator):
        features = torch.ones(2, 10, 5)
        assert torch.equal(spec_augment(features, torch.tensor([10, 3]), generator, 0, 0), features)


class TestModule:
    def test_company_changes_nothing(self, generator):
        module = module_of(recurrent=4)
        waveform = torch.randn(2, 4000, generator=generator)
        both = module(waveform, torch.tensor([4000, 2500]))
        alone = module(waveform[1:, :2500])
        assert alone.lengths.tolist() == both.lengths[1:].tolist() == [16]
        torch.testing.assert_close(both.logits[1, :16], alone.logits[0], atol=1e-5, rtol=1e-5)
        assert module.frames(torch.tensor([4000, 2500])).tolist() == both.lengths.tolist()

    def test_comes_back_from_a_checkpoint(self, generator):
        module = module_of(prior_scale=0.3)
        module.log_prior.copy_(torch.tensor([-0.1, -0.2, -0.3]))
        checkpoint = {"state_dict": module.state_dict()}
        module.on_save_checkpoint(checkpoint)
        again = TranscribeModule.from_checkpoint(checkpoint, "last.ckpt")
        waveform = torch.randn(1, 2000, generator=generator)
        assert torch.equal(again(waveform).logits, module(waveform).logits)
        assert torch.equal(again.prior, module.log_prior)
        assert again.alphabet.labels == ["a", "b"]
        with pytest.raises(
            FormatError, match=r"x.ckpt: expected a checkpoint of lnz fit transcribe, got task 'segment'"
        ):
            TranscribeModule.from_checkpoint({"lnz": {"task": "segment"}, "state_dict": {}}, "x.ckpt")
        checkpoint["state_dict"].pop("head.linear.bias")
        with pytest.raises(FormatError, match=r"x.ckpt: does not belong to this version of lnz"):
            TranscribeModule.from_checkpoint(checkpoint, "x.ckpt")

    def test_resolution(self):
        assert module_of().seconds_per_frame == pytest.approx(0.02)
        assert module_of(stride=4, hop=0.005).seconds_per_frame == pytest.approx(0.02)

    def test_names_recordings_that_are_too_short(self):
        """0.1 s are 11 frames of the spectrogram, 6 of the network; 'a a a a' needs 7."""
        recording = Recording("short", "a a a a", 800)
        module, targets = module_of(), {"short": torch.tensor([1, 1, 1, 1])}
        (told,) = module.too_short([recording], targets)
        assert told == "short: 4 labels, 3 of them repeats, need 7 frames, got 6"
        assert module.too_short([Recording("short", "a a a a", 960)], targets) == []

    def test_errors(self):
        for wrong, message in (
            ({"prior_scale": -0.1}, r"model.prior_scale: expected at least 0, got -0.1"),
            ({"beam": 0}, r"model.beam: expected a positive integer, got 0"),
            ({"time_masks": -1}, r"model.time_masks: expected at least 0, got -1"),
            ({"stride": 3}, r"stride: expected a power of 2, got 3"),
        ):
            with pytest.raises(ValueError, match=message):
                TranscribeModule(["a"], "words", RATE, **wrong)


class Spoken(torch.nn.Module):
    """Stands for a network: one-hot logits of given frames, sure of what it says."""

    def __init__(self, module, frames, classes):
        super().__init__()
        self.module, self.frames = module, frames
        self.logits = 50.0 * torch.nn.functional.one_hot(torch.tensor(frames), classes).float()[None]

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)

    def forward(self, waveform, samples=None):
        return CTC(self.logits)


class TestAlign:
    def test_frames_are_around_their_centres(self):
        """Blank, a, a, blank, b: with 20 ms per frame, a is from 10 ms to 50 ms, b from 70 ms to the end."""
        sure = Spoken(module_of(), [0, 1, 1, 0, 2], 3)
        found = align(sure, torch.zeros(640), "a b", "r")
        assert found.duration == pytest.approx(0.08)
        assert [(i.label, round(i.start, 6), round(i.end, 6)) for i in found.words] == [
            ("a", 0.01, 0.05),
            ("b", 0.07, 0.08),
        ]
        assert [interval.confidence for interval in found.words] == pytest.approx([1, 1])
        assert found.log_prob == pytest.approx(0, abs=1e-6)
        assert found.tiers.keys() == {"words"}

    def test_words_span_their_characters(self):
        module = module_of([" ", "a", "b"], "characters")
        sure = Spoken(module, [0, 2, 0, 3, 1, 2, 0], 4)  # ⊥ a ⊥ b space a ⊥
        found = align(sure, torch.zeros(1000), "ab a", "r")
        assert [(i.label, round(i.start, 6), round(i.end, 6)) for i in found.words] == [
            ("ab", 0.01, 0.07),
            ("a", 0.09, 0.11),
        ]
        assert [interval.label for interval in found.tiers["characters"]] == ["a", "b", "a"]

    def test_pauses_are_in_no_tier(self):
        module = module_of([" ", "a", "b"], "characters", pauses=True)
        sure = Spoken(module, [1, 1, 2, 3, 1], 4)
        found = align(sure, torch.zeros(800), "ab", "r")
        assert [(i.label, round(i.start, 6), round(i.end, 6)) for i in found.words] == [("ab", 0.03, 0.07)]
        assert [interval.label for interval in found.characters] == ["a", "b"]

    def test_the_prior_counts_but_not_in_the_probability(self, generator):
        waveform = torch.randn(1600, generator=generator)
        plain, scaled = (module_of(prior_scale=scale) for scale in (0.0, 1.0))
        scaled.load_state_dict(plain.state_dict())
        scaled.log_prior.copy_(torch.tensor([0.0, -9.0, -9.0]))
        a, b = (align(module, waveform, "a b", "r") for module in (plain, scaled))
        assert a.log_prob == b.log_prob
        # with blank much less probable, the labels fill the recording
        assert sum(i.end - i.start for i in b.words) == pytest.approx(b.duration)
        assert sum(i.end - i.start for i in a.words) < b.duration

    def test_errors(self):
        message = r"r.wav: 3 labels, 2 of them repeats, do not fit into 0.05 s, 3 frames of the model: they need 5"
        with pytest.raises(LnzError, match=message):
            align(module_of(), torch.zeros(400), "a a a", "r.wav")
        with pytest.raises(FormatError, match=r"r.wav: 'c' is none of the labels"):
            align(module_of(), torch.zeros(400), "c", "r.wav")

    def test_a_star_stands_for_any_label_but_no_silence(self):
        """Blank, a, blank, b b, blank, a of a text whose second word is unknown."""
        sure = Spoken(module_of(), [0, 1, 0, 2, 2, 0, 1, 0], 3)
        found = align(sure, torch.zeros(1280), "a what a", "r", "star")
        assert [(i.label, round(i.start, 6), round(i.end, 6)) for i in found.words] == [
            ("a", 0.01, 0.03),
            ("what", 0.05, 0.09),
            ("a", 0.11, 0.13),
        ]
        assert found.log_prob == pytest.approx(0, abs=1e-6)
        skipped = align(sure, torch.zeros(1280), "a what b a", "r", "skip")
        assert [word.label for word in skipped.words] == ["a", "b", "a"]

    def test_labels_of_a_picture_do_not_cover_each_other(self):
        """Ten words in half a second of two: the long one gets a line of its own."""
        said = ["yes", "no", "yes", "extraordinary", "no", "a", "b", "c", "dd", "e"]
        tier = [Interval(0.06 * k, 0.06 * k + 0.05, word) for k, word in enumerate(said)]
        figure = plot.alignment([torch.zeros(100, 40)], [2.0], [{"words": tier}])
        figure.draw_without_rendering()
        texts = figure.axes[1].texts
        assert [text.get_text() for text in texts] == said
        boxes = [text.get_window_extent() for text in texts]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        dense = [Interval(0.01 * k, 0.01 * k + 0.01, "word") for k in range(200)]
        figure = plot.alignment([torch.zeros(100, 40)], [2.0], [{"words": dense}])
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in figure.axes[1].texts]
        assert 20 < len(boxes) < 200
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))

    def test_picture(self, generator):
        module, waveform = module_of(), torch.randn(1600, generator=generator)
        figure = drawn(module, [("r", waveform, align(module, waveform, "a b", "r").tiers)])
        spectrogram, words = figure.axes
        assert np.ptp(spectrogram.images[0].get_array()) > 0
        assert [text.get_text() for text in words.texts] == ["a", "b"]
        assert plot.png(figure).startswith(b"\x89PNG")


class TestJudge:
    def test_error_rates_are_those_of_torchmetrics(self):
        data = TranscribeData(tones=SMALL)
        module = module_of(data.labels, beam=4)
        with torch.no_grad():
            module.head.linear.bias[0] = -3.0
        rates = error_rates(module, data.val)
        gold = [recording.text for recording in data.val]
        found = [module.alphabet.decode(module(recording.waveform[None]).greedy()[0]) for recording in data.val]
        assert any(found)
        cer, wer = CharErrorRate(), WordErrorRate()
        assert rates["greedy"]["cer"] == pytest.approx(float(cer(found, gold)))
        assert rates["greedy"]["wer"] == pytest.approx(float(wer(found, gold)))
        assert rates["beam"].keys() == rates["greedy"].keys()

    def test_distances(self):
        found = distances([10, -30], [60, 0])
        assert (found["mean"], found["median"], found["words"]) == (25, 20, 2)
        assert (found["start_median"], found["end_median"]) == (-10, 30)
        assert (found["within_20"], found["within_50"], found["within_100"]) == (0.5, 0.75, 1.0)
        assert distances([], []) == {}

    def test_alignment_errors(self):
        gold = [Interval(0.0, 0.05, "a"), Interval(0.07, 0.08, "b")]
        known = Recording("r", "a b", 640, torch.zeros(640), None, gold)
        sure = Spoken(module_of(), [0, 1, 1, 0, 2], 3)
        assert alignment_errors(sure, [known])["mean"] == pytest.approx(2.5)
        unknown = Recording("r", "a b", 640, torch.zeros(640))
        assert alignment_errors(sure, [unknown]) == {}


def test_report_numbers():
    def result(seed, cer, alignment, left_out=0):
        measures = {name: {"cer": cer, "wer": 0.5, "texts": 1.0} for name in ("greedy", "beam")}
        return Result(seed, measures, alignment, [10, 2], left_out, 0.3, 0.02, 8, 1.0, [])

    greedy, beam = rows_of([result(0, 0.1, {}), result(1, 0.3, {})])
    assert (greedy.name, beam.name) == ("greedy", "beam of 8")
    assert greedy.cells[0] == "20.00 ± 14.14"
    off = distances([10, -30], [60, 0])
    first, second = alignment_lines([result(0, 0.1, off), result(1, 0.1, {}, left_out=3)])
    assert "25 ms off on average, median 20 ms, 50.0 % within 20 ms" in first
    assert "starts -10 ms, ends +30 ms" in first
    assert "3 training recordings are too short" in second
