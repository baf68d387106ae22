"""The ONNX file gives the tags and the marginals of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra transformers")
runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")

from lnz.hf import export_onnx  # noqa: E402
from tests.hf import tiny  # noqa: E402


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_thousand_random_inputs(tmp_path: Path) -> None:
    """All tags equal, marginals to 1e-5, in batches of other sizes and lengths than the exported one."""
    model, file = tiny.model().train(), tmp_path / "model.onnx"
    export_onnx(model, file)
    assert model.training
    model.eval()
    session = runtime.InferenceSession(str(file))
    generator, seen = torch.Generator().manual_seed(0), 0
    while seen < 1000:
        B, T = (int(torch.randint(1, high, (), generator=generator)) for high in (40, tiny.LONGEST + 1))
        inputs = tiny.ids(B, T, seen)
        attention = (torch.arange(T) < torch.randint(1, T + 1, (B, 1), generator=generator)).long()
        words = (torch.rand(B, T, generator=generator) < 0.7).long()
        with torch.no_grad():
            expected = model(inputs, attention, word_mask=words)
        given = {"input_ids": inputs, "attention_mask": attention, "word_mask": words}
        found = session.run(["tags", "marginals"], {name: each.numpy() for name, each in given.items()})
        assert np.array_equal(found[0], expected.tags.numpy())
        np.testing.assert_allclose(found[1], expected.marginals.numpy(), rtol=0, atol=1e-5)
        seen += B
