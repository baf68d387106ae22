"""Features of words: padding, both directions, characters, tags, layers."""

import pytest
import torch

from lnz.nn import WordEncoder


def encoder_of(**kwargs):
    torch.manual_seed(0)
    return WordEncoder(["the", "cat"], list("thecaTHECA"), width=8, **kwargs)


def features_of(encoder, *sentences):
    return encoder({"tokens": sentences, "lengths": torch.tensor([len(s) for s in sentences])})


def test_padding_changes_nothing():
    encoder = encoder_of().eval()
    alone = features_of(encoder, ("the", "cat"))
    beside = features_of(encoder, ("the", "cat"), ("the", "cat", "the", "dog"))
    torch.testing.assert_close(beside[0, :2], alone[0])


def test_both_directions_are_seen():
    encoder = encoder_of().eval()
    first, second = features_of(encoder, ("the", "cat", "the"), ("the", "cat", "cat"))
    assert not torch.equal(first[0], second[0])
    torch.testing.assert_close(first[:2, :4], second[:2, :4])  # what lies ahead is seen by the other half only


def test_equals_a_bidirectional_lstm_on_packed_sequences():
    encoder = encoder_of(dropout=0.0, word_dropout=0.0)
    sentences = [("the", "cat", "ate"), ("cat",)]
    reference = torch.nn.LSTM(112, 4, batch_first=True, bidirectional=True)
    for suffix, lstm in (("", encoder.ahead), ("_reverse", encoder.back)):
        for name, value in lstm.state_dict().items():
            getattr(reference, name + suffix).data.copy_(value)
    spelled = encoder._spelled(["the", "cat", "ate"], torch.device("cpu"))
    known = encoder.words(torch.tensor([1, 2, 0]))
    words = torch.cat((known, spelled), 1)
    packed = torch.nn.utils.rnn.pack_sequence([words, words[1:2]])
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(reference(packed)[0], batch_first=True)
    found = features_of(encoder, *sentences)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1, 0], expected[1, 0])


def test_unknown_words_differ_by_their_characters():
    encoder = encoder_of().eval()
    first, second = features_of(encoder, ("hat",), ("ate",))
    assert not torch.equal(first, second)
    never, seen = features_of(encoder, ("ζζ",), ("ξξ",))
    assert torch.equal(never, seen)


def test_word_dropout():
    encoder = encoder_of(dropout=0.0, word_dropout=1.0).train()
    words = encoder.words.weight
    features_of(encoder, *[("the", "cat")] * 30).sum().backward()
    assert words.grad[0].abs().sum() > 0
    assert words.grad[1:].abs().sum() == 0


def test_tags():
    encoder = encoder_of(tags=["N", "V"], tag_width=3).eval()
    batch = {"tokens": [("the", "cat"), ("the",)], "lengths": torch.tensor([2, 1])}

    def of(*pos):
        return encoder({**batch, "pos": pos})

    assert encoder.ahead.input_size == 64 + 48 + 3
    assert not torch.equal(of(("N", "N"), ("N",)), of(("V", "N"), ("N",)))
    assert torch.equal(of((None, "N"), ("N",)), of(("X", "N"), ("N",)))  # neither is known


def test_layers():
    """Each reads the features of the one below, in both directions; padding changes nothing."""
    encoder = encoder_of(layers=3).eval()
    alone = features_of(encoder, ("the", "cat"))
    beside = features_of(encoder, ("the", "cat"), ("the", "cat", "the", "dog"))
    torch.testing.assert_close(beside[0, :2], alone[0])
    one = features_of(encoder, ("the", "cat", "the"), ("the", "cat", "cat"))
    assert not torch.equal(one[0, 0, :4], one[1, 0, :4])  # the second layer ahead has seen what the first one back saw
    assert len(encoder.deeper) == 2


def test_errors():
    with pytest.raises(ValueError, match="width: expected an even positive integer, got 5"):
        WordEncoder([], [], width=5)
    with pytest.raises(ValueError, match="layers: expected a positive integer, got 0"):
        WordEncoder([], [], layers=0)
