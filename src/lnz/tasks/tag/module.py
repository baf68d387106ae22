"""The tagging task: a network that ends in a chain, beside one that ends in a softmax per position."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lnz.distributions import LinearChain
from lnz.io.sentences import Column
from lnz.nn import WordEncoder
from lnz.nn.tag_schemes import Scheme
from lnz.tasks.paired import PairedModule
from lnz.tasks.tag.feature_encoder import FeatureEncoder
from lnz.tasks.tag.feature_fit import FeatureLearning, Progress, fit_features
from lnz.tasks.tag.hf_encoder import HuggingFaceEncoder
from lnz.tasks.tag.image_encoder import ImageEncoder
from lnz.tasks.tag.measures import Measures
from lnz.tasks.tag.network import Tagger, inside
from lnz.tasks.tag.objectives import OBJECTIVES, Name
from lnz.tasks.tag.templates import DEFAULT
from lnz.tasks.tag.word_vectors import KnownWords
from lnz.typing import IGNORE

METHODS = ("softmax", "crf")
EncoderName = Literal["image", "words", "hf", "features"]


class TagModule(PairedModule):
    """Two networks of one architecture, from the same initial weights, on the same batches with the same dropout.

    ``softmax`` ends in an independent softmax per position, ``crf`` in a :class:`~lnz.nn.LinearChainCRF` that is
    trained by the ``objective``. They share no parameter: the losses are added, so that each network follows its own
    gradient. Predictions are best labellings.

    Args:
        tags: names of the tags.
        words: with an embedding, of the encoder "words".
        characters: with an embedding, of the encoder "words".
        image_size: height and width of each position's image, of the encoder "image".
        scheme: of tags that mark spans; the chain forbids what it forbids.
        column: of CoNLL-U, what the tags are.
        encoder: "image", two convolutions per position; "words", a convolution over characters and word embeddings,
            then a bidirectional LSTM; "hf", any encoder of Hugging Face's transformers, its features of the first
            piece of each word; "features", a weight per tag of each feature that ``templates`` find. By default,
            "image" for images and "words" for sentences.
        pretrained: of "hf", a name on Hugging Face's hub or a folder.
        vectors: of "words", a file of vectors that embeddings start from, as word2vec, GloVe or fastText (``.vec``)
            write it; they learn at ``pretrained_rate``.
        most_vectors: how many of the file's words are known beside the training words, from its start.
        width: of the features, of "image" and "words".
        word_width: of the words' embeddings.
        character_width: of what the characters of a word are turned into.
        channels: of the first convolution of "image".
        dropout: of "image" and "words".
        word_dropout: how often a word is left to its characters, in training.
        templates: of "features", such as "lower[-1]|lower[0]"; by default, some forty of words, their ends and shapes.
        learning: of "features". By default "lbfgs", full-batch; "adam", batch by batch, as networks are.
        objective: what the chain is trained by. "nll": maximum likelihood; "pseudolikelihood": each tag given its
            neighbours; "hinge", "label-adjustment": for the number of wrong tags, by best labellings.
        epsilon: of "label-adjustment".
        learning_rate: the peak of a one-cycle schedule of Adam.
        pretrained_rate: the same of pretrained weights.
        weight_decay: decoupled weight decay.
        clip: largest norm of the gradient of each network.
    """

    task = "tag"
    calibrated_by = "likelihood"

    def __init__(
        self,
        tags: Sequence[str],
        *,
        words: Sequence[str] = (),
        characters: Sequence[str] = (),
        image_size: tuple[int, int] | None = None,
        scheme: Scheme | None = None,
        column: Column = "upos",
        encoder: EncoderName | None = None,
        pretrained: str | None = None,
        vectors: Path | None = None,
        most_vectors: int = 50_000,
        width: int = 128,
        word_width: int = 64,
        character_width: int = 48,
        channels: int = 16,
        dropout: float = 0.3,
        word_dropout: float = 0.1,
        templates: Sequence[str] = DEFAULT,
        learning: FeatureLearning = FeatureLearning(),  # noqa: B008  (frozen)
        objective: Name = "nll",
        epsilon: float = 1.0,
        learning_rate: float = 5e-3,
        pretrained_rate: float = 5e-5,
        weight_decay: float = 1e-4,
        clip: float = 5.0,
        _description: Mapping[str, str] | None = None,
        _fine_words: bool = False,
    ) -> None:
        super().__init__()
        encoder = encoder or ("words" if image_size is None else "image")
        _check(encoder, image_size, pretrained, vectors, objective, epsilon, dropout, word_dropout, clip)
        learning = learning if isinstance(learning, FeatureLearning) else FeatureLearning(**learning)
        self.settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.settings |= {"tags": list(tags), "words": list(words), "characters": list(characters)}
        self.settings |= {"templates": list(templates), "learning": asdict(learning)}
        self.full_batch = learning.full_batch if encoder == "features" else None
        if self.full_batch is not None and objective != "nll":
            raise ValueError(f"model.learning: 'lbfgs' is for objective nll, got {objective!r}; 'adam' takes it")
        self.tags, self.objective, self.epsilon = list(tags), OBJECTIVES[objective], epsilon
        self.learning_rate, self.pretrained_rate, self.weight_decay = learning_rate, pretrained_rate, weight_decay
        self.clip = clip
        known = None
        if vectors is not None:
            known = KnownWords.read(vectors, words, most_vectors)
            words, word_width = known.words, known.table.shape[1]
            self.settings |= {"words": words, "word_width": word_width, "vectors": None, "_fine_words": True}
        self.fine_words = _fine_words or known is not None
        features: nn.Module
        if encoder == "image":
            assert image_size is not None
            features = ImageEncoder(image_size, channels, width, dropout)
        elif encoder == "words":
            features = WordEncoder(
                words,
                characters,
                width=width,
                word_width=word_width,
                character_width=character_width,
                dropout=dropout,
                word_dropout=word_dropout,
            )
            if known is not None:
                known.start(features)
        elif encoder == "features":
            features = FeatureEncoder(templates, len(tags))
        elif _description is not None:
            features = HuggingFaceEncoder.from_description(_description)
        else:
            assert pretrained is not None
            features = HuggingFaceEncoder.from_pretrained(pretrained)
        if isinstance(features, HuggingFaceEncoder):
            self.settings["_description"] = features.description
        self.crf = Tagger(features, len(tags), True, tags, scheme)
        self.softmax = Tagger(copy.deepcopy(features), len(tags), False)
        self.softmax.nodes.load_state_dict(self.crf.nodes.state_dict())
        self.softmax_measures, self.crf_measures = Measures(tags), Measures(tags)
        self.draw_key()

    @property
    def networks(self) -> dict[str, Tagger]:
        return {"softmax": self.softmax, "crf": self.crf}

    @property
    def measures(self) -> dict[str, Measures]:
        return {"softmax": self.softmax_measures, "crf": self.crf_measures}

    def setup(self, stage: str) -> None:
        """Features are those of the training sentences, unless a checkpoint has brought them."""
        for network in self.networks.values():
            if stage == "fit" and isinstance(network.encoder, FeatureEncoder) and not len(network.encoder.keys):
                network.encoder.learn_features([each.tokens for each in self.trainer.datamodule.train.sentences])  # type: ignore[attr-defined]
        if self.full_batch is not None and stage == "fit":
            if self.trainer.world_size > 1:
                raise ValueError("model.learning: 'lbfgs' runs in one process; 'adam' in several")
            self.trainer.fit_loop.max_epochs, self.trainer.limit_train_batches = 1, 1  # of steps that change nothing

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.full_batch is not None:
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            for method, network in self.networks.items():
                fit_features(network.cpu(), self.tags, data.train, data.val, self.full_batch, Progress(method))
            self.to(self.device)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        tags, lengths = batch["tags"], batch["lengths"]
        observed = (tags != IGNORE).sum().clamp(min=1)
        scores = {}
        for method, network in self.networks.items():
            with self.draws():
                scores[method] = network.nodes(network.encoder(batch))
        p = self.crf.joined(scores["crf"], lengths)
        losses = {
            "softmax": F.cross_entropy(scores["softmax"].flatten(0, 1), tags.flatten(), reduction="sum"),
            "crf": self.objective(p, tags, self.epsilon),
        }
        return self.added(losses, observed, len(lengths))

    @torch.no_grad()
    def beliefs(self, batch: Mapping[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        """Per method, the best tags ``int64 [B, T]`` (−100 over padding) and the probability of each ``[B, T, L]``."""
        found = {}
        for method, network in self.networks.items():
            p: LinearChain = network(batch).tempered(self.temperature(method))
            found[method] = (p.argmax(), p.node_marginals)
        return found

    def distributions(self, batch: Mapping[str, Any]) -> dict[str, tuple[LinearChain, Tensor]]:
        return {method: (network(batch), batch["tags"]) for method, network in self.networks.items()}

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        for method, (predicted, beliefs) in self.beliefs(batch).items():
            self.measures[method].update(beliefs, batch["tags"], predicted)

    def score(self, values: Mapping[str, Tensor]) -> Tensor:
        return values.get("f1", values["accuracy"])

    @torch.no_grad()
    def predict_step(self, batch: Mapping[str, Any], batch_idx: int) -> list[list[str]]:
        """The names of the best tags under the chain, one list per sequence."""
        kept = inside(batch["lengths"], int(batch["lengths"].max()))
        best = self.crf(batch).argmax()
        return [[self.tags[tag] for tag in row[there].tolist()] for row, there in zip(best, kept, strict=True)]

    def configure_optimizers(self) -> Any:
        if self.full_batch is not None:  # all is learnt when training starts
            return torch.optim.SGD(self.parameters(), 0.0)
        pretrained, own = [], []
        for name, parameter in self.named_parameters():
            given = ".encoder.model." in name or (self.fine_words and ".encoder.words." in name)
            (pretrained if given else own).append(parameter)
        groups, rates = [{"params": own}], [self.learning_rate]
        if pretrained:
            groups.append({"params": pretrained})
            rates.append(self.pretrained_rate)
        optimizer = torch.optim.AdamW(groups, self.learning_rate, weight_decay=self.weight_decay)
        steps = max(int(self.trainer.estimated_stepping_batches), 2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _check(
    encoder: str,
    image_size: tuple[int, int] | None,
    pretrained: str | None,
    vectors: Path | None,
    objective: str,
    epsilon: float,
    dropout: float,
    word_dropout: float,
    clip: float,
) -> None:
    """Raise where settings are wrong or do not go together."""
    if encoder not in get_args(EncoderName):
        raise ValueError(f"model.encoder: expected 'image', 'words', 'hf' or 'features', got {encoder!r}")
    if (encoder == "image") != (image_size is not None):
        needs = "images, which the composed strings have" if encoder == "image" else "sentences: give data.train"
        raise ValueError(f"model.encoder: {encoder!r} needs {needs}")
    if (encoder == "hf") != (pretrained is not None):
        raise ValueError("model.pretrained: expected a name or folder with model.encoder hf, and only there")
    if vectors is not None and encoder != "words":
        raise ValueError(f"model.vectors: expected a file with model.encoder words, got encoder {encoder!r}")
    if objective not in OBJECTIVES:
        raise ValueError(f"model.objective: expected one of {', '.join(OBJECTIVES)}, got {objective!r}")
    for name, value in {"epsilon": epsilon, "clip": clip}.items():
        if value <= 0:
            raise ValueError(f"model.{name}: expected a positive number, got {value}")
    for name, value in {"dropout": dropout, "word_dropout": word_dropout}.items():
        if not 0 <= value < 1:
            raise ValueError(f"model.{name}: expected a number in [0, 1), got {value}")
