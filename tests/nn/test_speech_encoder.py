import pytest
import torch

from lnz.nn import SpeechEncoder


@pytest.mark.parametrize("recurrent", [0, 6])
@pytest.mark.parametrize("stride", [1, 2, 4])
class TestEncoder:
    def test_shape(self, stride, recurrent, generator):
        encoder = SpeechEncoder(5, 8, stride, (1, 2), recurrent)
        lengths = torch.tensor([13, 1, 8])
        hidden, found = encoder(torch.randn(3, 13, 5, generator=generator), lengths)
        assert hidden.shape == (3, -(-13 // stride), encoder.num_hidden)
        assert encoder.num_hidden == (12 if recurrent else 8)
        assert torch.equal(found, encoder.frames(lengths))
        for row, length in zip(hidden, found, strict=True):
            assert not row[length:].any()

    def test_padding_and_company_change_nothing(self, stride, recurrent, generator):
        encoder = SpeechEncoder(5, 8, stride, (1, 3), recurrent)
        features = torch.randn(2, 21, 5, generator=generator)
        both, lengths = encoder(features, torch.tensor([21, 10]))
        alone, (length,) = encoder(features[1:, :10], torch.tensor([10]))
        assert length == lengths[1]
        torch.testing.assert_close(both[1, :length], alone[0])


def test_sees_both_sides_as_far_as_it_says():
    """A state hangs on the frames around its own, by kernels of 5 and their dilations, and on no other."""
    encoder = SpeechEncoder(1, 4, 2, (1, 2)).double()
    features = torch.randn(1, 60, 1, dtype=torch.float64, requires_grad=True)
    hidden, _ = encoder(features, torch.tensor([60]))
    hidden[0, 15].sum().backward()
    seen = features.grad[0, :, 0].nonzero().flatten()
    reach = 2 + 2 + 2 * (2 * 1 + 2 * 2)
    assert (int(seen.min()), int(seen.max())) == (30 - reach, 30 + reach)


def test_a_recurrent_layer_sees_all():
    encoder = SpeechEncoder(1, 4, 2, (), 3).double()
    features = torch.randn(1, 60, 1, dtype=torch.float64, requires_grad=True)
    encoder(features, torch.tensor([60]))[0][0, 15].sum().backward()
    assert (features.grad != 0).all()


def test_errors():
    for wrong, message in (
        ({"stride": 3}, r"stride: expected a power of 2, got 3"),
        ({"width": 0}, r"width: expected a positive integer, got 0"),
        ({"dilations": (1, 0)}, r"dilations: expected positive integers, got \[1, 0\]"),
        ({"recurrent": -1}, r"recurrent: expected at least 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            SpeechEncoder(5, **wrong)
    with pytest.raises(ValueError, match=r"features: expected shape \[B, T, 5\], got \[1, 3, 4\]"):
        SpeechEncoder(5)(torch.zeros(1, 3, 4), torch.tensor([3]))
