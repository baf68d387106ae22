"""From text to entities with exact probabilities, as a pipeline of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import ChunkPipeline

from lnz.hf.model import CRFForTokenClassification
from lnz.hf.words import known_words, longest_input

TASK = "crf-token-classification"


@dataclass(frozen=True)  # a tuple would not come through the pipeline as it is
class Sentence:
    """A text and the characters, from and to, of each of its words."""

    text: str
    words: list[tuple[int, int]]


class CRFTokenClassificationPipeline(ChunkPipeline):
    """Entities of texts, by ``transformers.pipeline("crf-token-classification", model=…, tokenizer=…)``.

    Called with a text, a list of texts, or, with ``is_split_into_words=True``, the words of a text or a list of such.
    Words of a text are those of the tokenizer; each is tagged at its first piece. A text of more pieces than the
    encoder takes is encoded in windows that overlap by half; each word's scores are those of the window with most
    context around it, and the chain is one over the whole text.

    Gives per text a list of dictionaries, one per entity of the best labels: ``entity_group``, its type; ``score``, the
    exact posterior probability that there is this entity, with this type and these ends; ``word``, its text; ``start``
    and ``end``, its characters; ``first_word`` and ``last_word``, numbers of its words. Where labels are of no scheme,
    one per word: ``entity``, its label; ``score``, the probability of that; ``word``, ``start``, ``end``, ``index``.
    Split words are joined by single spaces for ``start`` and ``end``.
    """

    model: CRFForTokenClassification  # type: ignore[assignment]
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.model, CRFForTokenClassification):
            raise TypeError(f"model: expected a CRFForTokenClassification, got {type(self.model).__name__}")

    def _sanitize_parameters(
        self, is_split_into_words: bool | None = None, **unknown: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown:
            raise TypeError(f"{TASK}: expected is_split_into_words alone, got {', '.join(unknown)}")
        split = {} if is_split_into_words is None else {"is_split_into_words": is_split_into_words}
        return split, {}, {}

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """The entities of a text, or of each of a list of texts."""
        split = kwargs.get("is_split_into_words", self._preprocess_params.get("is_split_into_words", False))
        if split and isinstance(inputs, (list, tuple)) and all(isinstance(word, str) for word in inputs):
            found: Any = super().__call__([list(inputs)], **kwargs)
            return found[0]
        return super().__call__(inputs, **kwargs)

    def preprocess(self, input_: Any, is_split_into_words: bool = False) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """The windows of a text, each with the numbers of the words that are taken from it."""
        tokenizer: Any = self.tokenizer
        longest = longest_input(self.model.encoder, tokenizer)
        stride = max(0, (longest - tokenizer.num_special_tokens_to_add()) // 2)
        windows = {"truncation": True, "max_length": longest, "stride": stride, "return_overflowing_tokens": True}
        if is_split_into_words:
            if isinstance(input_, str) or not all(isinstance(word, str) for word in input_):
                raise TypeError(f"inputs: expected words, for is_split_into_words=True, got {input_!r}")
            known = known_words(tokenizer, [input_])
            encoded = tokenizer(known, is_split_into_words=True, return_offsets_mapping=True, **windows)
            sentence = Sentence(" ".join(input_), _joined(input_))
        else:
            if not isinstance(input_, str):
                raise TypeError(f"inputs: expected a text, got {type(input_).__name__}")
            encoded = tokenizer([input_], return_offsets_mapping=True, **windows)
            sentence = Sentence(input_, _characters(encoded))
        taken = _words_taken(encoded)
        names = [name for name in encoded if name in tokenizer.model_input_names]
        for k, words in enumerate(taken):
            yield {
                **{name: torch.tensor([encoded[name][k]]) for name in names},
                "word": torch.tensor([words]),
                "sentence": sentence if k == 0 else None,
                "is_last": k == len(taken) - 1,
            }

    def _forward(self, input_tensors: Mapping[str, Any], **_: Any) -> dict[str, Any]:  # type: ignore[override]
        inputs = dict(input_tensors)
        kept = {name: inputs.pop(name) for name in ("word", "sentence", "is_last")}
        found = self.model(**inputs, word_mask=kept["word"] > 0, decode=False, return_dict=True)
        return {"logits": found.logits, **kept}

    def postprocess(self, model_outputs: Sequence[Mapping[str, Any]], **_: Any) -> list[dict[str, Any]]:  # type: ignore[override]
        """Entities, or words, of the windows of one text."""
        sentence: Sentence = model_outputs[0]["sentence"]
        if not sentence.words:
            return []
        logits: Tensor = model_outputs[0]["logits"]
        emissions = logits.new_zeros(1, len(sentence.words), logits.shape[-1])
        for window in model_outputs:
            there = window["word"][0] > 0
            emissions[0, window["word"][0][there] - 1] = window["logits"][0][there]
        emissions = emissions.to(self.model.crf.transitions.device)
        return self._words(sentence, emissions) if self.model.crf.scheme is None else self._spans(sentence, emissions)

    def _spans(self, sentence: Sentence, emissions: Tensor) -> list[dict[str, Any]]:
        found = []
        for first, after, kind, probability in self.model.crf.entities(emissions)[0]:
            start, end = sentence.words[first][0], sentence.words[after - 1][1]
            place = {"word": sentence.text[start:end], "start": start, "end": end}
            words = {"first_word": first, "last_word": after - 1}
            found.append({"entity_group": kind, "score": probability, **place, **words})
        return found

    @torch.no_grad()
    def _words(self, sentence: Sentence, emissions: Tensor) -> list[dict[str, Any]]:
        (tags,), marginals = self.model.crf.decode(emissions), self.model.crf.marginals(emissions)[0].tolist()
        return [
            {
                "entity": self.model.config.labels[tag],
                "score": marginals[k][tag],
                "word": sentence.text[start:end],
                "start": start,
                "end": end,
                "index": k,
            }
            for k, (tag, (start, end)) in enumerate(zip(tags, sentence.words, strict=True))
        ]


def _joined(words: Sequence[str]) -> list[tuple[int, int]]:
    """Where the words are in their text, joined by spaces."""
    places, start = [], 0
    for word in words:
        places.append((start, start + len(word)))
        start += len(word) + 1
    return places


def _characters(encoded: Any) -> list[tuple[int, int]]:
    """The characters of each word of a text, from those of its pieces in all windows."""
    places: dict[int, tuple[int, int]] = {}
    for k, offsets in enumerate(encoded["offset_mapping"]):
        for word, (start, end) in zip(encoded.word_ids(k), offsets, strict=True):
            if word is not None:
                before = places.get(word, (start, end))
                places[word] = min(before[0], start), max(before[1], end)
    return [places[word] for word in sorted(places)]


def _words_taken(encoded: Any) -> list[list[int]]:
    """Per window and piece, 1 + the number of the word whose scores are taken there; 0 elsewhere.

    Each word is taken at its first piece, from the window in which the nearer end is farthest away. The first window
    that has a word begins it, as windows overlap.
    """
    number: dict[int, int] = {}  # of words, less those that have no piece
    starts: dict[int, int] = {}
    best: dict[int, tuple[int, int, int]] = {}  # pieces to the nearer end, window, place
    for k, offsets in enumerate(encoded["offset_mapping"]):
        ids = encoded.word_ids(k)
        for place, (word, (start, _)) in enumerate(zip(ids, offsets, strict=True)):
            if word is None or (place and ids[place - 1] == word):
                continue
            number.setdefault(word, len(number))
            if start == starts.setdefault(word, start):  # else a later piece, at the start of a window
                context = min(place, len(ids) - 1 - place)
                if context > best.get(word, (-1,))[0]:
                    best[word] = context, k, place
    taken = [[0] * len(ids) for ids in encoded["input_ids"]]
    for word, (_, k, place) in best.items():
        taken[k][place] = 1 + number[word]
    return taken


PIPELINE_REGISTRY.supported_tasks.pop(TASK, None)  # where this module is imported again
PIPELINE_REGISTRY.register_pipeline(TASK, CRFTokenClassificationPipeline, pt_model=CRFForTokenClassification)
