"""The encoder of Hugging Face's transformers, with a tiny BERT of random weights that the test makes."""

import sys

import pytest
import torch

from lnz.cli import main
from lnz.errors import FormatError
from lnz.io.sentences import read_sentences
from lnz.tasks.tag.hf_encoder import HuggingFaceEncoder
from lnz.tasks.tag.module import TagModule
from tests.cli.runs import QUIET, results

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sleep", "##ing", "a", "b"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a BERT of two layers and its tokenizer."""
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'lnz[transformers]'")
    path = tmp_path_factory.mktemp("bert")
    (path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    tokenizer = transformers.BertTokenizerFast(vocab=str(path / "vocab.txt"), model_max_length=12)
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(PIECES),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=12,
    )
    transformers.BertModel(config).save_pretrained(path)
    return path


def batch(*sentences):
    return {"tokens": sentences, "lengths": torch.tensor([len(words) for words in sentences])}


class TestEncoder:
    def test_features_are_those_of_first_pieces(self, folder):
        encoder = HuggingFaceEncoder.from_pretrained(str(folder)).eval()
        found = encoder(batch(("the", "cats", "sleeping", "a")))
        ids = [[PIECES.index(piece) for piece in ("[CLS]", "the", "cat", "##s", "sleep", "##ing", "a", "[SEP]")]]
        hidden = encoder.model(input_ids=torch.tensor(ids)).last_hidden_state[0]
        torch.testing.assert_close(found[0], hidden[[1, 2, 4, 6]])

    def test_is_made_to_be_trained(self, folder):
        """With the dropout that its configuration asks for."""
        encoder = HuggingFaceEncoder.from_pretrained(str(folder))
        first, second = (encoder(batch(("a", "b"))) for _ in range(2))
        assert not torch.equal(first, second)

    def test_padding_changes_nothing(self, folder):
        encoder = HuggingFaceEncoder.from_pretrained(str(folder)).eval()
        alone = encoder(batch(("a", "b")))
        beside = encoder(batch(("a", "b"), ("the", "cats", "sleeping", "the", "cats")))
        torch.testing.assert_close(beside[0, :2], alone[0])

    def test_words_that_the_tokenizer_drops_are_unknown(self, folder):
        encoder = HuggingFaceEncoder.from_pretrained(str(folder)).eval()
        dropped, unknown = encoder(batch(("a", "\u200d", "b"))), encoder(batch(("a", "[UNK]", "b")))
        torch.testing.assert_close(dropped, unknown)

    def test_too_long(self, folder):
        encoder = HuggingFaceEncoder.from_pretrained(str(folder))
        with pytest.raises(ValueError, match=r"expected sentences of at most 12 pieces, got 13: 'a b a b"):
            encoder(batch(("a", "b") * 5 + ("a",)))

    def test_no_such_model(self, folder, tmp_path):
        with pytest.raises(FormatError, match=r"model\.pretrained: cannot load '.*nowhere'"):
            HuggingFaceEncoder.from_pretrained(str(tmp_path / "nowhere"))

    def test_comes_back_without_its_files(self, folder):
        encoder = HuggingFaceEncoder.from_pretrained(str(folder)).eval()
        again = HuggingFaceEncoder.from_description(encoder.description).eval()
        again.load_state_dict(encoder.state_dict())
        sentence = batch(("the", "cats", "\u200d", "xyz"), ("a",))
        torch.testing.assert_close(again(sentence), encoder(sentence))
        assert again.longest == encoder.longest == 12


def test_two_rates(folder):
    """Pretrained weights learn by their own, smaller rate."""
    module = TagModule(["A", "B"], encoder="hf", pretrained=str(folder), learning_rate=1e-2, pretrained_rate=1e-4)
    module._trainer = type("Trainer", (), {"estimated_stepping_batches": 10})()
    own, pretrained = module.configure_optimizers()["optimizer"].param_groups
    assert pretrained["max_lr"] == 1e-4
    count = sum(parameter.numel() for parameter in pretrained["params"])
    assert count == 2 * sum(parameter.numel() for parameter in module.crf.encoder.model.parameters())
    assert own["max_lr"] == 1e-2


def test_fits_and_predicts(folder, tmp_path):
    (tmp_path / "x.bio").write_text("the\tD\ncats\tN\nsleeping\tV\n\na\tD\ncat\tN\n\n" * 6)
    options = ["--data.train", tmp_path / "x.bio", "--model.encoder", "hf", "--model.pretrained", folder]
    fast = ["--trainer.max_epochs", 2, "--trainer.accelerator", "cpu", "--output", tmp_path / "run"]
    assert main(["fit", "tag", *map(str, (*options, *fast)), *QUIET]) == 0
    assert len(results(tmp_path / "run")[0]["history"]) == 2
    for file in folder.iterdir():  # the checkpoint holds all that is needed
        file.rename(file.with_name("moved-" + file.name))
    try:
        arguments = ["--text", tmp_path / "x.bio", "--output", tmp_path / "y.bio"]
        assert main(["predict", *map(str, (tmp_path / "run", *arguments))]) == 0
    finally:
        for file in folder.iterdir():
            file.rename(file.with_name(file.name.removeprefix("moved-")))
    assert len(read_sentences(tmp_path / "y.bio")) == 12


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"hf needs transformers: pip install 'lnz\[transformers\]'"):
        TagModule(["A", "B"], encoder="hf", pretrained="x")
