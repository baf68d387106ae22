"""A chain CRF on any encoder of transformers, as a model of theirs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForTokenClassification, PreTrainedModel
from transformers.utils.generic import ModelOutput

from lnz.hf.config import CRFConfig
from lnz.hf.encoders import random_encoder, special_ids, without_pooling
from lnz.nn import Entity, LinearChainCRF
from lnz.nn.crf_inputs import as_switches
from lnz.nn.tag_schemes import Scheme
from lnz.typing import IGNORE


@dataclass
class CRFTokenClassifierOutput(ModelOutput):
    """What the model gives, all of it padded to the positions of its input, so that processes can gather it.

    Attributes:
        loss: −ln P(labels), reduced as the configuration says; where labels are given.
        logits: ``[B, T, L]``, the scores of each label at each position.
        tags: ``int64 [B, T]``, the best labels of the words under the chain; −100 elsewhere.
        marginals: ``[B, T, L]``, the probability of each label of each word; 0 elsewhere.
        score: ``[B]``, the score of the best labels.
        hidden_states, attentions: the encoder's, where asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    tags: Tensor | None = None
    marginals: Tensor | None = None
    score: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class CRFForTokenClassification(PreTrainedModel):
    """An encoder, a linear layer to the scores of labels, and a :class:`~lnz.nn.LinearChainCRF` over the words.

    Positions without a word (further pieces of a word, special tokens, padding) are left out of the chain exactly, in
    training and in prediction: their neighbours become neighbours. Those with a word are where ``word_mask`` is 1;
    without it, where labels are not −100; without labels, where the token is not among ``special_token_ids`` of the
    configuration, so that every piece counts as a word. Padding, by the attention mask, never has a word.

    Made by :meth:`from_encoder`, kept by ``save_pretrained``, loaded by ``from_pretrained`` of this class or of
    ``AutoModelForTokenClassification``, after ``import lnz.hf``.

    Args:
        config: see :meth:`CRFConfig.of`.
        encoder: with its weights; by default, random ones.
    """

    config_class = CRFConfig
    config: CRFConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the trainer divides by the steps of accumulation
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _keep_in_fp32_modules_strict = {"crf"}  # noqa: RUF012  (theirs)

    def __init__(self, config: CRFConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        num_labels = len(config.labels)
        self.encoder = random_encoder(config.encoder) if encoder is None else encoder
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.encoder.hidden_size, num_labels)
        self.crf = LinearChainCRF(
            num_labels,
            batch_first=True,
            tags=None if config.scheme is None else config.labels,
            scheme=cast("Scheme | None", config.scheme),
            latent_tags=True,
        )
        self.post_init()

    @classmethod
    def from_encoder(
        cls,
        model: PreTrainedModel,
        labels: Sequence[str],
        scheme: Scheme | Literal["auto"] | None = "auto",
        *,
        tokenizer: Any = None,
        special_token_ids: Iterable[int] | None = None,
        **settings: Any,
    ) -> CRFForTokenClassification:
        """The model over a pretrained encoder, which it shares the weights of; in the mode that the encoder is in.

        Args:
            model: as ``AutoModel.from_pretrained`` makes it. Its pooling layer, which tagging has no use for, is left
                out.
            labels: names of the labels, such as ``["O", "B-PER", "I-PER"]``.
            scheme: of the labels, whose rules the chain keeps: ``"BIO"``, ``"BIOES"``, ``"BILOU"``, ``"IOB1"``,
                ``"BMES"``; ``"auto"`` takes the one that the names are of, ``None`` forbids nothing.
            tokenizer: says which tokens are special ones.
            special_token_ids: the same as numbers; by default, those of the tokenizer, else of the encoder's
                configuration.
            settings: more of :class:`CRFConfig`.

        Raises:
            TypeError: no encoder of transformers.
            ValueError: an encoder with a decoder; labels that are not of the scheme.
        """
        if not isinstance(model, PreTrainedModel):
            raise TypeError(f"model: expected a model as AutoModel makes it, got {type(model).__name__}")
        if model.config.is_encoder_decoder:
            raise ValueError(f"model: expected an encoder alone, got {type(model).__name__}, which has a decoder")
        if special_token_ids is None:
            special_token_ids = special_ids(model.config, tokenizer)
        settings = {"pad_token_id": getattr(model.config, "pad_token_id", None)} | settings
        config = CRFConfig.of(model.config, labels, scheme, special_token_ids=set(special_token_ids), **settings)
        made = cls(config, without_pooling(model))
        made.classifier.to(model.dtype)
        made.crf.to(torch.promote_types(model.dtype, torch.float32))
        return made.train(model.training)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, LinearChainCRF):
            if not all(getattr(each, "_is_hf_initialized", False) for each in module.parameters()):
                module.reset_parameters()
        else:
            super()._init_weights(module)

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        word_mask: Tensor | None = None,
        labels: Tensor | None = None,
        allowed: Tensor | None = None,
        decode: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CRFTokenClassifierOutput | tuple[Any, ...]:
        """Scores, loss, best labels and marginals.

        Args:
            input_ids: ``int64 [B, T]``.
            attention_mask: ``[B, T]``, 0 over padding.
            token_type_ids: ``int64 [B, T]``, for encoders that take them, as the next two.
            position_ids: ``int64 [B, T]``.
            inputs_embeds: ``[B, T, width]``, in place of ``input_ids``.
            word_mask: ``[B, T]``, 1 or true where a position has a word: its first piece, say.
            labels: ``int64 [B, T]``. −100 where the word mask is 1 is a word whose label is unknown, which is summed
                over; without a word mask, −100 is a position without a word.
            allowed: bool ``[B, T, L]``, the possible labels of each position, in all that is computed.
            decode: whether to give tags, marginals and scores; by default, except in training with labels.
            return_dict: ``False`` gives a tuple of what there is.
            kwargs: for the encoder.

        Raises:
            TypeError, ValueError: a mask or labels of the wrong type, shape or value.
            InfeasibleError: labels that the scheme forbids; names the sentence, the position and the labels.
        """
        optional = {"token_type_ids": token_type_ids, "position_ids": position_ids, "inputs_embeds": inputs_embeds}
        kwargs |= {name: value for name, value in optional.items() if value is not None}
        outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        mask = self._words(logits, input_ids, attention_mask, word_mask, labels)
        loss = tags = marginals = score = None
        if labels is not None:
            reduction = cast("Any", self.config.reduction)
            loss = -self.crf(logits, labels, mask, reduction, allowed=allowed)
        if torch.compiler.is_exporting():
            tags = self.crf.best_tags(logits, mask, allowed=allowed)
            marginals = self.crf.tag_probabilities(logits, mask, allowed=allowed)
        elif decode if decode is not None else not (self.training and labels is not None):
            with torch.no_grad():
                tags, score = self.crf.decode(logits, mask, allowed=allowed, padding_value=IGNORE, return_scores=True)
                marginals = self.crf.marginals(logits, mask, allowed=allowed)
        found = CRFTokenClassifierOutput(
            loss=loss,
            logits=logits,
            tags=tags,
            marginals=marginals,
            score=score,
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
        )
        asked = self.config.return_dict if return_dict is None else return_dict
        return found if asked else found.to_tuple()

    @torch.no_grad()
    def entities(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        word_mask: Tensor | None = None,
        allowed: Tensor | None = None,
        **kwargs: Any,
    ) -> list[list[Entity]]:
        """The entities of the best labels of each sentence, ``(start, end, type, probability)``.

        Start and end are positions of the input; the probability is the exact posterior of the whole entity, see
        :meth:`lnz.nn.LinearChainCRF.entities`. Arguments are those of the call.

        Raises:
            ValueError: a model whose labels are of no scheme.
        """
        found = self(input_ids, attention_mask, word_mask=word_mask, decode=False, return_dict=True, **kwargs)
        mask = self._words(found.logits, input_ids, attention_mask, word_mask, None)
        return self.crf.entities(found.logits, mask, allowed=allowed)

    def _words(
        self,
        logits: Tensor,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        word_mask: Tensor | None,
        labels: Tensor | None,
    ) -> Tensor:
        """Which positions have a word, bool ``[B, T]``."""
        shape = logits.shape[:2]
        if word_mask is not None:
            mask = as_switches("word_mask", word_mask, shape)
        elif labels is not None:
            if labels.shape != shape:
                raise ValueError(f"labels: expected shape {list(shape)}, got {list(labels.shape)}")
            mask = labels != IGNORE
        elif input_ids is not None:
            mask = torch.ones_like(input_ids, dtype=torch.bool)
            for token in self.config.special_token_ids:
                mask = mask & (input_ids != token)
        else:
            mask = torch.ones(shape, dtype=torch.bool, device=logits.device)
        if attention_mask is not None and attention_mask.dim() == 2:
            mask = mask & (attention_mask != 0)
        return mask


AutoConfig.register(CRFConfig.model_type, CRFConfig, exist_ok=True)
AutoModelForTokenClassification.register(CRFConfig, CRFForTokenClassification, exist_ok=True)
