"""The filterbank against published values and a NumPy formula of its own; what features do not depend on."""

import math

import numpy as np
import pytest
import torch

from lnz.nn import LogMel, mel_filterbank
from lnz.nn.log_mel import hertz_to_mel, mel_to_hertz

# librosa.mel_frequencies(n_mels=40), from its documentation
LIBROSA = """0. 85.317 170.635 255.952 341.269 426.586 511.904 597.221 682.538 767.855 853.173 938.49 1024.856 1119.114
1222.042 1334.436 1457.167 1591.187 1737.532 1897.337 2071.84 2262.393 2470.47 2697.686 2945.799 3216.731 3512.582
3835.643 4188.417 4573.636 4994.285 5453.621 5955.205 6502.92 7101.009 7754.107 8467.272 9246.028 10096.408 11025."""


class TestScale:
    def test_published_frequencies(self):
        found = mel_to_hertz(np.linspace(0, hertz_to_mel(11025.0), 40))
        np.testing.assert_allclose(found, [float(word) for word in LIBROSA.split()], atol=6e-4)

    def test_published_points(self):
        """``librosa.hz_to_mel(60)`` is 0.9, and of 110, 220, 440: 1.65, 3.3, 6.6; the break is at 15."""
        hertz = np.array([60.0, 110.0, 220.0, 440.0, 1000.0, 6400.0])
        mel = np.array([0.9, 1.65, 3.3, 6.6, 15.0, 42.0])
        np.testing.assert_allclose(hertz_to_mel(hertz), mel)
        np.testing.assert_allclose(mel_to_hertz(mel), hertz)


class TestFilterbank:
    @pytest.mark.parametrize(("rate", "num_fft", "num_mels"), [(8000, 256, 40), (16000, 512, 80), (22050, 2048, 128)])
    def test_by_interpolation(self, rate, num_fft, num_mels):
        """Each filter is the interpolation of a triangle through its three corners, over half the width of its base."""
        frequencies = np.arange(num_fft // 2 + 1) * rate / num_fft

        def hertz(m):
            return m * 200 / 3 if m < 15 else 1000 * 6.4 ** ((m - 15) / 27)

        top = 15 + 27 * math.log(rate / 2000) / math.log(6.4)
        corners = [hertz(top * k / (num_mels + 1)) for k in range(num_mels + 2)]
        expected = [
            np.interp(frequencies, corners[k : k + 3], (0, 1, 0)) / ((corners[k + 2] - corners[k]) / 2)
            for k in range(num_mels)
        ]
        found = mel_filterbank(rate, num_fft, num_mels)
        np.testing.assert_allclose(found.numpy(), np.array(expected), atol=1e-7)

    def test_unit_area(self):
        """Over a fine grid of frequencies the integral of each filter is 1."""
        filters = mel_filterbank(16000, 2**15, 40)
        np.testing.assert_allclose(filters.sum(1).numpy() * 16000 / 2**15, 1, rtol=2e-3)

    def test_too_many_bands(self):
        with pytest.raises(
            ValueError, match=r"num_mels: 200 bands up to 4000 Hz are too narrow .* every 31.25 Hz: \d+"
        ):
            mel_filterbank(8000, 256, 200)


class TestFeatures:
    def test_shape_and_frames(self, generator):
        features, frames = LogMel(8000)(torch.randn(2, 1000, generator=generator), torch.tensor([1000, 799]))
        assert features.shape == (2, 13, 40)
        assert frames.tolist() == [13, 10]
        assert LogMel(8000).frames(torch.tensor([0, 79, 80])).tolist() == [1, 1, 2]
        assert not features[1, 10:].any()

    def test_padding_and_company_change_nothing(self, generator):
        mel = LogMel(8000)
        waveform = torch.randn(2, 2000, generator=generator)
        waveform[1, 1234:] = 7.0  # beyond the end
        both, frames = mel(waveform, torch.tensor([2000, 1234]))
        alone, (count,) = mel(waveform[1:, :1234])
        assert count == frames[1]
        torch.testing.assert_close(both[1, :count], alone[0])

    def test_loudness_changes_nothing(self, generator):
        waveform = torch.randn(1, 2000, generator=generator)
        torch.testing.assert_close(LogMel(8000)(waveform)[0], LogMel(8000)(20 * waveform)[0], atol=1e-4, rtol=1e-4)

    def test_normalised(self, generator):
        features = LogMel(8000)(torch.randn(1, 4000, generator=generator))[0][0]
        torch.testing.assert_close(features.mean(0), torch.zeros(40), atol=1e-5, rtol=0)
        torch.testing.assert_close(features.std(0, unbiased=False), torch.ones(40))

    def test_a_tone_is_where_and_when_it_is(self):
        """1 kHz from 0.3 s to 0.5 s."""
        t = torch.arange(8000) / 8000
        waveform = torch.sin(2 * torch.pi * 1000 * t) * ((t >= 0.3) & (t < 0.5))
        energy = LogMel(8000, normalise=False)(waveform[None])[0][0]
        band = int(energy[40].argmax())
        corners = mel_to_hertz(np.linspace(0, hertz_to_mel(4000.0), 42))
        assert corners[band] < 1000 < corners[band + 2]
        loud = (energy[:, band] > energy[40, band] - 3).nonzero().flatten()
        assert (int(loud.min()), int(loud.max())) == (30, 50)

    def test_silence_is_finite(self):
        assert torch.equal(LogMel(8000)(torch.zeros(1, 1000))[0], torch.zeros(1, 13, 40))

    def test_dynamic_range(self, generator):
        waveform = torch.randn(1, 8000, generator=generator)
        waveform[:, 4000:] *= 1e-9
        energy = LogMel(8000, dynamic_range=60, normalise=False)(waveform)[0]
        assert float((energy.max() - energy.min()) * 10 / math.log(10)) == pytest.approx(60, abs=1e-3)

    def test_errors(self):
        with pytest.raises(ValueError, match=r"sample_rate: expected a positive number, got 0"):
            LogMel(0)
        with pytest.raises(ValueError, match=r"hop: expected at least one sample at 8000 Hz, got 1e-05 s"):
            LogMel(8000, hop=1e-5)
        with pytest.raises(ValueError, match=r"waveform: expected floating point \[B, N\], got torch.float32 \[100\]"):
            LogMel(8000)(torch.zeros(100))
