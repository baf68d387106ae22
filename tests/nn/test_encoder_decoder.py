import pytest
import torch

from lnz.nn import EncoderDecoder


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 16), (31, 45)])
def test_any_size(size):
    net = EncoderDecoder(3, 5, width=8)
    scores = net(torch.randn(2, 3, *size))
    assert scores.shape == (2, 5, *size)
    scores.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_parameters_of_the_default():
    assert 1e6 < sum(p.numel() for p in EncoderDecoder(3, 11).parameters()) < 2e6


@pytest.mark.parametrize("training", [True, False])
def test_an_image_is_scored_alike_in_every_batch(training):
    torch.manual_seed(0)
    net, images = EncoderDecoder(1, 2, width=8, depth=2).double().train(training), torch.randn(3, 1, 9, 6).double()
    torch.testing.assert_close(net(images)[1:2], net(images[1:2]), rtol=1e-9, atol=1e-12)


def test_sees_far_and_near():
    torch.manual_seed(0)
    image = torch.randn(1, 1, 40, 40, requires_grad=True)
    (seen,) = torch.autograd.grad(EncoderDecoder(1, 2, width=8)(image)[0, 0, 20, 20], image)
    assert seen[0, 0, 20, 20] != 0
    assert seen[0, 0, 0, 0] != 0


def test_channels_double_up_to_eight_times_the_width():
    net = EncoderDecoder(3, 2, width=8, depth=5)
    assert [level[0][0].out_channels for level in net.down] == [16, 32, 64, 64, 64]


@pytest.mark.parametrize("name", ["in_channels", "num_labels", "width", "depth"])
def test_bad_arguments(name):
    with pytest.raises(ValueError, match=f"{name}: expected a positive integer, got 0"):
        EncoderDecoder(**{"in_channels": 3, "num_labels": 2, name: 0})
    with pytest.raises(ValueError, match=r"image: expected shape \[B, 3, H, W\], got \[2, 1, 4, 4\]"):
        EncoderDecoder(3, 2)(torch.zeros(2, 1, 4, 4))
