"""From text to entities: characters, words, exact probabilities, windows of long texts; words to pieces and batches."""

from __future__ import annotations

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs the extra transformers")

from lnz.hf import CRFDataCollator, CRFTokenClassificationPipeline, encode_words  # noqa: E402
from lnz.hf.words import longest_input  # noqa: E402
from tests.hf import tiny  # noqa: E402

TEXT = "the cats,  sleeping a b"
LONG = "the cats sleeping a b , the cats sleeping . sleeping b a cats a b the , b a"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny.tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture(scope="module")
def pipe(model, tokenizer):
    return CRFTokenClassificationPipeline(model=model, tokenizer=tokenizer, task="crf-token-classification")


def test_is_registered(model, tokenizer, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    pipe = transformers.pipeline("crf-token-classification", model=str(tmp_path))
    assert type(pipe) is CRFTokenClassificationPipeline
    assert pipe(TEXT)


def test_characters_and_words_of_entities(model, tokenizer, pipe) -> None:
    found = pipe(TEXT)
    pieces = ["[CLS]", "the", "cat", "##s", ",", "sleep", "##ing", "a", "b", "[SEP]"]
    inputs = torch.tensor([[tiny.PIECES.index(piece) for piece in pieces]])
    words = torch.tensor([[0, 1, 1, 0, 1, 1, 0, 1, 1, 0]])
    (expected,) = model.entities(inputs, word_mask=words)
    characters = {1: (0, 3), 2: (4, 8), 4: (8, 9), 5: (11, 19), 7: (20, 21), 8: (22, 23)}
    places = list(characters)
    assert len(found) == len(expected) > 1
    for got, (start, end, kind, probability) in zip(found, expected, strict=True):
        last = max(place for place in places if place < end)
        assert (got["start"], got["end"]) == (characters[start][0], characters[last][1])
        assert got["word"] == TEXT[got["start"] : got["end"]]
        assert got["entity_group"] == kind
        assert got["score"] == pytest.approx(probability, abs=1e-6)
        assert (got["first_word"], got["last_word"]) == (places.index(start), places.index(last))


def test_split_words(pipe) -> None:
    words = ["the", "cats", ",", "sleeping", "a", "b"]
    found, expected = pipe(words, is_split_into_words=True), pipe(" ".join(words))
    assert same(found, expected)
    both = pipe([words, words[:2]], is_split_into_words=True)
    assert same(both[0], expected)
    assert same(both[1], pipe("the cats"))


def same(found, expected) -> bool:
    return [{**each, "score": 0} for each in found] == [{**each, "score": 0} for each in expected] and [
        each["score"] for each in found
    ] == pytest.approx([each["score"] for each in expected], abs=1e-5)


def test_words_that_the_tokenizer_drops_are_unknown(pipe) -> None:
    assert same(
        [{**each, "word": "", "start": 0, "end": 0} for each in pipe(["the", "\u200d", "b"], is_split_into_words=True)],
        [{**each, "word": "", "start": 0, "end": 0} for each in pipe(["the", "[UNK]", "b"], is_split_into_words=True)],
    )


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_batches_change_nothing(pipe, batch_size: int) -> None:
    texts = [LONG, "", TEXT, "a", LONG + " the cats", "b a"]
    for found, text in zip(pipe(texts, batch_size=batch_size), texts, strict=True):
        assert same(found, pipe(text))
    assert pipe("") == []


def test_texts_longer_than_the_encoder(model, tokenizer, pipe) -> None:
    """Each word's scores are those of the window with most context; the chain is one over all words."""
    words = LONG.split()
    pieces = [(k, piece) for k, word in enumerate(words) for piece in tokenizer.tokenize(word)]
    room, step = 10, 5
    windows = [pieces[at : at + room] for at in range(0, len(pieces), step)]
    windows = windows[: 1 + next(k for k, window in enumerate(windows) if window[-1] == pieces[-1])]
    first = {word: max(k for k in range(len(pieces)) if [w for w, _ in pieces].index(word) == k) for word in range(20)}
    scores = torch.zeros(1, len(words), len(tiny.LABELS))
    for word in range(len(words)):
        choices = []
        for k, window in enumerate(windows):
            at = first[word] - k * step
            if 0 <= at < len(window):
                choices.append((min(at + 1, len(window) - at), -k, at))
        _, k, at = max(choices)
        tokens = ["[CLS]", *(piece for _, piece in windows[-k]), "[SEP]"]
        inputs = torch.tensor([[tiny.PIECES.index(token) for token in tokens]])
        scores[0, word] = model(inputs, decode=False).logits[0, at + 1]
    (expected,) = model.crf.entities(scores)
    found = pipe(LONG)
    assert [(each["first_word"], each["last_word"] + 1, each["entity_group"]) for each in found] == [
        each[:3] for each in expected
    ]
    assert [each["score"] for each in found] == pytest.approx([each.probability for each in expected], abs=1e-5)
    assert same(pipe(words, is_split_into_words=True), found)
    assert found[-1]["end"] > 60


def test_labels_of_no_scheme_are_given_word_by_word(tokenizer) -> None:
    model = tiny.model(["D", "N", "V"])
    found = transformers.pipeline("crf-token-classification", model=model, tokenizer=tokenizer)(TEXT)
    assert [each["word"] for each in found] == ["the", "cats", ",", "sleeping", "a", "b"]
    assert [each["index"] for each in found] == list(range(6))
    assert all(each["entity"] in "DNV" and 1 / 3 < each["score"] <= 1 for each in found)


def test_bad_input(pipe) -> None:
    with pytest.raises(TypeError, match="inputs: expected a text, got int"):
        pipe([3])
    with pytest.raises(TypeError, match="expected is_split_into_words alone, got aggregation_strategy"):
        pipe(TEXT, aggregation_strategy="simple")
    with pytest.raises(TypeError, match="inputs: expected words, for is_split_into_words=True, got 'the cats'"):
        pipe("the cats", is_split_into_words=True)


class TestEncodeWords:
    def test_words_are_at_their_first_pieces(self, tokenizer) -> None:
        ids = {label: k for k, label in enumerate(tiny.LABELS)}
        found = encode_words(tokenizer, [["the", "cats"], ["\u200d"]], [["O", "B-X"], [None]], label2id=ids)
        assert found["word_mask"] == [[0, 1, 1, 0, 0], [0, 1, 0]]
        assert found["labels"] == [[-100, 0, 1, -100, -100], [-100] * 3]
        assert found["input_ids"][1] == [2, 1, 3]

    def test_words_beyond_the_longest_are_cut_off(self, tokenizer) -> None:
        words = LONG.split()
        found = encode_words(tokenizer, [words], max_length=8)
        assert [len(found[name][0]) for name in found] == [8] * len(found)
        assert "labels" not in found

    def test_bad_input(self, tokenizer) -> None:
        with pytest.raises(TypeError, match="tokenizer: expected a fast tokenizer, got int"):
            encode_words(3, [["a"]])
        with pytest.raises(ValueError, match="tags: expected 1 in sentence 0, a tag per word, got 2"):
            encode_words(tokenizer, [["a"]], [["O", "O"]], label2id={"O": 0})
        with pytest.raises(ValueError, match="tags: expected one of O, got 'X' in sentence 0"):
            encode_words(tokenizer, [["a"]], [["X"]], label2id={"O": 0})
        with pytest.raises(ValueError, match="label2id: expected the numbers of the tags"):
            encode_words(tokenizer, [["a"]], [["X"]])

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_batches(self, tmp_path, side: str) -> None:
        tokenizer = tiny.tokenizer(tmp_path, padding_side=side)
        columns = encode_words(tokenizer, [["the", "cats"], ["a"]], [["O", "O"], ["O"]], label2id={"O": 0})
        examples = [{name: values[k] for name, values in columns.items()} for k in range(2)]
        batch = CRFDataCollator(tokenizer)(examples)
        attention = batch["attention_mask"].bool()
        assert batch["labels"].shape == batch["word_mask"].shape == batch["input_ids"].shape == (2, 5)
        for name in ("labels", "word_mask"):
            assert batch[name][1, attention[1]].tolist() == columns[name][1]
        assert set(batch["labels"][~attention].tolist()) == {-100}
        assert set(batch["word_mask"][~attention].tolist()) == {0}


def test_positions_after_the_padding_index_are_fewer() -> None:
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.RobertaConfig(**sizes, intermediate_size=8, max_position_embeddings=14)
    endless = type("Tokenizer", (), {"model_max_length": 10**30})
    encoder = transformers.RobertaModel(config)
    assert longest_input(encoder, endless) == 12
    encoder(torch.full((1, 12), 5))
    assert longest_input(tiny.bert(), endless) == 12
