import pytest
import torch

from lnz.nn import ConvNet


def test_keeps_height_and_width():
    assert ConvNet(3, 8, (1, 2))(torch.randn(2, 3, 7, 5)).shape == (2, 8, 7, 5)


@pytest.mark.parametrize("dilations", [(1,), (1, 1), (1, 2, 4)])
def test_sees_its_receptive_field_and_no_more(dilations):
    torch.manual_seed(0)
    net = ConvNet(1, 8, dilations).eval()
    side = net.receptive_field
    image = torch.randn(1, 1, side + 8, side + 8, requires_grad=True)
    centre = (side + 8) // 2
    (seen,) = torch.autograd.grad(net(image)[0, :, centre, centre].sum(), image)
    rows = seen[0, 0].abs().sum(1).nonzero().flatten()
    columns = seen[0, 0].abs().sum(0).nonzero().flatten()
    half = side // 2
    assert (rows.min(), rows.max()) == (centre - half, centre + half)
    assert (columns.min(), columns.max()) == (centre - half, centre + half)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"width: expected a positive integer, got 0"):
        ConvNet(1, 0)
    with pytest.raises(ValueError, match=r"dilations: expected positive integers, at least one, got \[1, 0\]"):
        ConvNet(1, 4, (1, 0))
    with pytest.raises(ValueError, match=r"image: expected shape \[B, 3, H, W\], got \[2, 1, 4, 4\]"):
        ConvNet(3, 4)(torch.zeros(2, 1, 4, 4))


def test_one_channel_is_enough() -> None:
    net = ConvNet(3, width=1, dilations=(1,))
    assert net(torch.zeros(2, 3, 4, 5)).shape[:2] == (2, 1)
    with pytest.raises(ValueError, match="width: expected a positive integer, got 0"):
        ConvNet(3, width=0)
