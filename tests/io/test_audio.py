import numpy as np
import pytest
import soundfile
import torch

from lnz.errors import FormatError
from lnz.io import allowing
from lnz.io.audio import list_audio, read_audio

RATE = 8000


def tone(seconds=1.0, rate=RATE, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def wav(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    return tmp_path / "a.wav"


class TestRead:
    def test_samples_are_those_written(self, wav):
        samples, rate = read_audio(wav)
        assert rate == RATE
        assert samples.dtype == torch.float32
        np.testing.assert_allclose(samples.numpy(), tone(), atol=2**-15)

    @pytest.mark.parametrize("ending", ["flac", "aiff", "au", "caf", "w64", "ogg", "mp3"])
    def test_every_form(self, ending, tmp_path):
        soundfile.write(tmp_path / f"a.{ending}", tone(), RATE)
        samples, rate = read_audio(tmp_path / f"a.{ending}")
        assert (rate, len(samples)) == (RATE, RATE)
        inside = slice(2000, 6000)
        if ending in ("ogg", "mp3"):  # which hear no difference
            assert np.corrcoef(samples.numpy()[inside], tone()[inside])[0, 1] > 0.99
        else:
            np.testing.assert_allclose(samples.numpy()[inside], tone()[inside], atol=2**-15)

    def test_channels_are_averaged(self, tmp_path):
        soundfile.write(tmp_path / "two.wav", np.stack((tone(), -0.5 * tone()), 1), RATE)
        np.testing.assert_allclose(read_audio(tmp_path / "two.wav")[0].numpy(), 0.25 * tone(), atol=2**-14)

    @pytest.mark.parametrize("rate", [16000, 11025, 6000])
    def test_resampling_keeps_pitch_and_level(self, wav, rate):
        samples, got = read_audio(wav, rate)
        assert (got, len(samples)) == (rate, rate)
        inside = slice(rate // 10, -rate // 10)
        np.testing.assert_allclose(samples.numpy()[inside], tone(rate=rate)[inside], atol=0.01)

    @pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
    def test_a_stream_that_did_not_know_its_length(self, wav, size):
        """What ffmpeg and SoX write to a pipe."""
        data = bytearray(wav.read_bytes())
        at = data.index(b"data") + 4
        data[at : at + 4] = size.to_bytes(4, "little")
        wav.write_bytes(bytes(data))
        assert len(read_audio(wav)[0]) == RATE


class TestBadFiles:
    @pytest.mark.parametrize("ending", ["wav", "flac", "aiff", "au", "caf", "w64", "mp3"])
    def test_truncated(self, ending, tmp_path):
        path = tmp_path / f"a.{ending}"
        soundfile.write(path, tone(), RATE)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(
            FormatError, match=rf"a.{ending}: (truncated: its header says \d+ |cannot be read as audio)"
        ):
            read_audio(path)

    def test_truncated_wav_says_how_much_is_there(self, wav):
        wav.write_bytes(wav.read_bytes()[:-1000])
        with pytest.raises(FormatError, match=r"a.wav: truncated: its header says 16000 bytes, there are 15000"):
            read_audio(wav)

    def test_messages(self, tmp_path):
        cases = {
            "none.wav": (None, r"none.wav: expected an audio file, found nothing"),
            "empty.wav": (b"", r"empty.wav: cannot be read as audio \(it is empty\)"),
            "text.wav": (b"this is no audio", r"text.wav: cannot be read as audio \(format not recognised\)"),
        }
        for name, (content, message) in cases.items():
            if content is not None:
                (tmp_path / name).write_bytes(content)
            with pytest.raises(FormatError, match=message):
                read_audio(tmp_path / name)
        with pytest.raises(FormatError, match=r"expected an audio file, found a folder"):
            read_audio(tmp_path)
        soundfile.write(tmp_path / "silent.wav", tone()[:0], RATE)
        with pytest.raises(FormatError, match=r"silent.wav: expected audio, got a file of 0 samples"):
            read_audio(tmp_path / "silent.wav")
        soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), RATE, subtype="FLOAT")
        with pytest.raises(FormatError, match=r"nan.wav: expected finite samples"):
            read_audio(tmp_path / "nan.wav")


class TestLimits:
    """Small files are small work."""

    @pytest.mark.parametrize("rate", [1, 999, 1_000_001, 2**31 - 1])
    def test_rates_that_no_recording_has(self, tmp_path, rate):
        soundfile.write(tmp_path / "a.wav", tone()[:17], rate)
        with pytest.raises(FormatError, match=r"a.wav: expected a sample rate of 1,000 to 1,000,000 Hz, got "):
            read_audio(tmp_path / "a.wav", 16000)

    def test_a_ratio_of_rates_that_needs_a_filter_of_gigabytes(self, tmp_path):
        soundfile.write(tmp_path / "a.wav", tone()[:17], 999_983)
        with pytest.raises(FormatError, match=r"16,000 Hz has a simple ratio to, got 999,983 Hz"):
            read_audio(tmp_path / "a.wav", 16000)
        assert read_audio(tmp_path / "a.wav")[1] == 999_983
        for rate in (96_000, 44_099, 11_027, 192_000, 768_000):  # prime ones, too
            soundfile.write(tmp_path / "b.wav", tone()[:17], rate)
            assert read_audio(tmp_path / "b.wav", 16000)[1] == 16000

    def test_a_header_that_claims_more_than_memory(self, tmp_path):
        path = tmp_path / "a.flac"
        soundfile.write(path, tone(), RATE)
        data = bytearray(path.read_bytes()[:42])
        data[21:26] = b"\xff" * 5  # the low bits of the rate's word, and 2**36 − 1 samples
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"a.flac: (truncated|cannot be read as audio)"):
            read_audio(path)

    def test_silence_that_is_small_on_disk(self, tmp_path):
        path = tmp_path / "a.flac"
        soundfile.write(path, np.zeros(2**20), RATE)
        with (
            allowing(samples=2**16, per_byte=1),
            pytest.raises(
                FormatError,
                match=r"a.flac: expected at most 65,536 samples, got 1,048,576; lnz.io.allowing\(samples=…\)",
            ),
        ):
            read_audio(path)
        assert len(read_audio(path)[0]) == 2**20


class TestFolder:
    def test_hidden_files_are_passed_over(self, tmp_path):
        (tmp_path / ".cache").mkdir()
        for name in ("a.wav", "._a.wav", ".hidden.wav", ".cache/b.wav"):
            (tmp_path / name).touch()
        assert [path.name for path in list_audio(tmp_path)] == ["a.wav"]

    def test_below_and_in_order(self, tmp_path):
        (tmp_path / "x" / "y").mkdir(parents=True)
        for name in ("x/y/b.flac", "a.WAV", "notes.txt"):
            (tmp_path / name).touch()
        assert [path.name for path in list_audio(tmp_path)] == ["a.WAV", "b.flac"]

    def test_errors(self, tmp_path):
        with pytest.raises(FormatError, match=r"no: expected a folder of audio, found nothing"):
            list_audio(tmp_path / "no")
        with pytest.raises(FormatError, match=r"expected audio \(.*\.flac.*\), found none"):
            list_audio(tmp_path)
        (tmp_path / "x").mkdir()
        for name in ("a.wav", "x/a.flac"):
            (tmp_path / name).touch()
        with pytest.raises(FormatError, match=r"a.flac: a.wav has the same name"):
            list_audio(tmp_path)
        with pytest.raises(FormatError, match=r"a.wav: expected a folder of audio, found a file"):
            list_audio(tmp_path / "a.wav")
