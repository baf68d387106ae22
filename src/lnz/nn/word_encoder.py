"""Features of the words of a sentence, from their characters, the words themselves, and the words around."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

LONGEST = 20
"""Characters of a word that are seen: of longer ones the first and the last half as many."""


class WordEncoder(nn.Module):
    """A convolution over characters and an embedding of each word, then bidirectional LSTMs over the sentence.

    The form of Ma and Hovy (2016), small. A word that is not among ``words`` is known by its characters alone; so that
    this is learnt, words are left out at random in training. The first half of the features has read the sentence up to
    the word, the other half from its end.

    Args:
        words: in lower case, those with an embedding.
        characters: those with an embedding.
        tags: those with an embedding, where words come with tags; by default, they do not.
        width: of the features; half of it in each direction.
        word_width: of the words' embeddings.
        character_width: of the characters' features.
        tag_width: of the tags' embeddings.
        layers: of LSTMs, one on top of the other.
        dropout: of the input and output of each.
        word_dropout: how often a word's embedding is that of an unknown word, in training.
    """

    def __init__(
        self,
        words: Sequence[str],
        characters: Sequence[str],
        *,
        tags: Sequence[str] = (),
        width: int = 200,
        word_width: int = 64,
        character_width: int = 48,
        tag_width: int = 32,
        layers: int = 1,
        dropout: float = 0.33,
        word_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"width: expected an even positive integer, got {width}")
        if layers < 1:
            raise ValueError(f"layers: expected a positive integer, got {layers}")
        self.width, self.word_dropout = width, word_dropout
        self.word_number = {word: k for k, word in enumerate(words, 1)}  # 0 is unknown
        self.character_number = {character: k for k, character in enumerate(characters, 2)}  # 0 none, 1 unknown
        self.words = nn.Embedding(1 + len(words), word_width)
        self.characters = nn.Embedding(2 + len(characters), 32, padding_idx=0)
        self.convolution = nn.Conv1d(32, character_width, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.tag_number = {tag: k for k, tag in enumerate(tags, 1)}  # 0 is unknown
        self.tags = nn.Embedding(1 + len(tags), tag_width) if tags else None
        given = word_width + character_width + (tag_width if tags else 0)
        self.ahead, self.back = (nn.LSTM(given, width // 2, batch_first=True) for _ in range(2))
        self.deeper = nn.ModuleList(
            nn.ModuleList(nn.LSTM(width, width // 2, batch_first=True) for _ in range(2)) for _ in range(layers - 1)
        )

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """Features ``[B, T, width]`` of a batch.

        Args:
            batch: ``tokens``, the words of each sentence, ``lengths`` ``int64 [B]``, and ``pos``, the tags of the words
                of each sentence, where tags have embeddings; ``None`` and tags that have none are unknown.
        """
        sentences: Sequence[Sequence[str]] = batch["tokens"]
        number: dict[str, int] = {}  # of the different words of the batch: characters are convolved once for each
        places = [torch.tensor([number.setdefault(word, len(number)) for word in words]) for words in sentences]
        place = nn.utils.rnn.pad_sequence(places, batch_first=True).to(self.words.weight.device)
        numbers = torch.tensor([self.word_number.get(word.lower(), 0) for word in number], device=place.device)[place]
        if self.training and self.word_dropout:
            numbers = numbers.masked_fill(torch.rand(numbers.shape, device=place.device) < self.word_dropout, 0)
        spelled = self._spelled(list(number), place.device)
        inputs = [self.words(numbers), spelled[place]]
        if self.tags is not None:
            tags = [torch.tensor([self.tag_number.get(tag, 0) for tag in of]) for of in batch["pos"]]
            inputs.append(self.tags(nn.utils.rnn.pad_sequence(tags, batch_first=True).to(place.device)))
        features = self.dropout(torch.cat(inputs, -1))
        turn = _backwards(batch["lengths"], place.shape[1])  # on the CPU, in half the time that packed sequences take
        for ahead, back in ((self.ahead, self.back), *self.deeper):  # type: ignore[misc]
            after = _taken(back(_taken(features, turn))[0], turn)
            features = self.dropout(torch.cat((ahead(features)[0], after), -1))
        return features

    def _spelled(self, words: Sequence[str], device: torch.device) -> Tensor:
        """What the characters say of each word, ``[U, character_width]``."""
        rows = [torch.tensor([self.character_number.get(c, 1) for c in _shortened(word)]) for word in words]
        characters = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
        convolved = self.convolution(self.characters(characters).transpose(1, 2))
        return convolved.masked_fill((characters == 0)[:, None], -torch.inf).amax(2)


def _backwards(lengths: Tensor, steps: int) -> Tensor:
    """The order of steps that reverses each sequence and leaves its padding behind it, ``int64 [B, T]``."""
    step, last = torch.arange(steps, device=lengths.device), lengths[:, None] - 1
    return torch.where(step <= last, last - step, step)


def _taken(features: Tensor, order: Tensor) -> Tensor:
    return features.gather(1, order.unsqueeze(2).expand(-1, -1, features.shape[2]))


def _shortened(word: str) -> str:
    half = LONGEST // 2
    return word if len(word) <= LONGEST else word[:half] + word[-half:]
