"""Best taggings and probabilities that export: those of decode and marginals, for other batches and lengths too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lnz.nn import LinearChainCRF

L = 5


class Decoder(nn.Module):
    def __init__(self, crf: LinearChainCRF) -> None:
        super().__init__()
        self.crf = crf

    def forward(self, emissions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.crf.best_tags(emissions, mask), self.crf.tag_probabilities(emissions, mask)


def layer(batch_first: bool = True, **options: object) -> LinearChainCRF:
    torch.manual_seed(0)
    crf = LinearChainCRF(L, batch_first, **options)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.normal_()
    return crf


def inputs(B: int, T: int, batch_first: bool = True) -> tuple[Tensor, Tensor]:
    """Emissions, and a mask with holes and, in a large batch, empty rows."""
    emissions, mask = torch.randn(B, T, L), torch.rand(B, T) < 0.6
    return (emissions, mask) if batch_first else (emissions.transpose(0, 1), mask.T)


def unpadded(tags: Tensor, batch_first: bool = True) -> list[list[int]]:
    return [[tag for tag in row if tag != -100] for row in (tags if batch_first else tags.T).tolist()]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("options", [{}, {"tags": ["O", "B-x", "I-x", "B-y", "I-y"]}], ids=["free", "BIO"])
def test_is_what_decode_finds(batch_first: bool, options: dict[str, object]) -> None:
    crf = layer(batch_first, **options)
    for T in (0, 1, 2, 9):
        emissions, mask = inputs(50, T, batch_first)
        tags = crf.best_tags(emissions, mask)
        assert tags.dtype == torch.int64
        assert torch.equal(tags != -100, mask)
        assert unpadded(tags, batch_first) == crf.decode(emissions, mask)
        assert unpadded(crf.best_tags(emissions), batch_first) == crf.decode(emissions)


def test_where_no_tagging_is_possible_there_is_none() -> None:
    crf = LinearChainCRF(2, True, tags=["B-x", "E-x"], scheme="BIOES")  # spans of two tokens only
    tags = crf.best_tags(torch.randn(4, 4, 2), torch.arange(4) < torch.tensor([[4], [3], [2], [1]]))
    assert tags.tolist() == [[0, 1, 0, 1], [-100] * 4, [0, 1, -100, -100], [-100] * 4]
    mask = torch.arange(4) < torch.tensor([[4], [3], [2], [1]])
    probabilities = crf.tag_probabilities(torch.randn(4, 4, 2), mask)
    assert probabilities.argmax(-1)[0].tolist() == [0, 1, 0, 1]
    assert probabilities.sum((1, 2)).tolist() == [4, 0, 2, 0]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("options", [{}, {"tags": ["O", "B-x", "I-x", "B-y", "I-y"]}], ids=["free", "BIO"])
def test_probabilities_are_marginals(batch_first: bool, options: dict[str, object]) -> None:
    crf = layer(batch_first, **options).double()
    for T in (0, 1, 2, 9):
        emissions, mask = inputs(50, T, batch_first)
        emissions = emissions.double().masked_fill(~mask.unsqueeze(-1), torch.nan)
        torch.testing.assert_close(crf.tag_probabilities(emissions, mask), crf.marginals(emissions, mask))
        emissions = torch.randn_like(emissions)
        torch.testing.assert_close(crf.tag_probabilities(emissions), crf.marginals(emissions))
        allowed = torch.rand_like(emissions) < 0.5
        allowed[..., 0] = True
        found = crf.tag_probabilities(emissions, mask, allowed=allowed)
        torch.testing.assert_close(found, crf.marginals(emissions, mask, allowed=allowed))


def test_long_sequences_in_float32() -> None:
    crf, emissions = layer(), 100 * torch.randn(2, 3000, L, generator=torch.Generator().manual_seed(0))
    assert crf.best_tags(emissions).tolist() == crf.decode(emissions)
    torch.testing.assert_close(crf.tag_probabilities(emissions), crf.marginals(emissions), rtol=0, atol=1e-5)


def test_exports_with_any_batch_and_any_number_of_steps() -> None:
    crf, any_size = layer(), torch.export.Dim.DYNAMIC
    shapes = {name: {0: any_size, 1: any_size} for name in ("emissions", "mask")}
    program = torch.export.export(Decoder(crf), inputs(3, 6), dynamic_shapes=shapes).module()
    for B, T in ((1, 1), (7, 20)):
        emissions, mask = inputs(B, T)
        tags, probabilities = program(emissions, mask)
        assert torch.equal(tags, crf.best_tags(emissions, mask))
        torch.testing.assert_close(probabilities, crf.tag_probabilities(emissions, mask))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_onnx_file_finds_what_decode_finds(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    crf = layer(tags=["O", "B-x", "I-x", "B-y", "I-y"])
    any_size, file = torch.export.Dim.DYNAMIC, str(tmp_path / "decoder.onnx")
    shapes = {name: {0: any_size, 1: any_size} for name in ("emissions", "mask")}
    torch.onnx.export(Decoder(crf).eval(), inputs(3, 6), file, dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = runtime.InferenceSession(file)
    for B, T in ((1, 1), (3, 6), (40, 25)):
        emissions, mask = inputs(B, T)
        tags, found = session.run(None, {"emissions": emissions.numpy(), "mask": mask.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), crf.marginals(emissions, mask), rtol=0, atol=1e-5)
        assert unpadded(torch.from_numpy(tags)) == crf.decode(emissions, mask)
        assert torch.equal(torch.from_numpy(tags) != -100, mask)
