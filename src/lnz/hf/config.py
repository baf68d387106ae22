"""What a CRF on an encoder is made from: the encoder's configuration, the labels and their scheme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

from transformers import AutoConfig, PreTrainedConfig

from lnz.nn.tag_schemes import Scheme, forbidding_arrays, scheme_of

LossReduction = Literal["mean", "token_mean", "sum"]


class CRFConfig(PreTrainedConfig):
    """The configuration of :class:`~lnz.hf.CRFForTokenClassification`; the labels are those of ``id2label``.

    Args:
        encoder: the configuration of the encoder, or its fields.
        scheme: of the labels, see :func:`~lnz.nn.transition_mask`; ``None`` forbids nothing.
        special_token_ids: tokens that are no words, where neither a word mask nor labels say which positions are.
        dropout: of the encoder's last hidden states, in training.
        reduction: of the loss: ``"mean"`` over sentences, ``"token_mean"`` over words, or ``"sum"``.
    """

    model_type = "lnz-crf"
    sub_configs: ClassVar[dict[str, Any]] = {"encoder": AutoConfig}  # type: ignore[misc]

    encoder: Any = None
    scheme: str | None = None
    special_token_ids: Any = ()
    dropout: float = 0.1
    reduction: str = "mean"

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.encoder, dict):
            self.encoder = AutoConfig.for_model(**self.encoder)
        if self.reduction not in get_args(LossReduction):
            raise ValueError(f"reduction: expected 'mean', 'token_mean' or 'sum', got {self.reduction!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a number in [0, 1), got {self.dropout}")
        self.special_token_ids = sorted(self.special_token_ids)
        super().__post_init__(**kwargs)

    @classmethod
    def of(
        cls,
        encoder: PreTrainedConfig,
        labels: Sequence[str],
        scheme: Scheme | Literal["auto"] | None = "auto",
        **settings: Any,
    ) -> CRFConfig:
        """The configuration of an encoder and named labels.

        Args:
            encoder: the encoder's configuration.
            labels: such as ``["O", "B-PER", "I-PER"]``.
            scheme: of the labels; ``"auto"`` takes the one that their names are of, if any.
            settings: more of this class or of all configurations.

        Raises:
            ValueError: labels that are not of the scheme, or one that comes twice.
        """
        if scheme == "auto":
            scheme = scheme_of(labels)
        if scheme is not None:
            forbidding_arrays(labels, scheme)  # checks them
        elif len(set(labels)) != len(labels):
            raise ValueError(f"labels: expected every name once, got {list(labels)}")
        names = dict(enumerate(labels))
        numbers = {label: k for k, label in names.items()}
        return cls(encoder=encoder.to_dict(), id2label=names, label2id=numbers, scheme=scheme, **settings)

    @property
    def labels(self) -> list[str]:
        """The names of the labels, by number."""
        return [self.id2label[k] for k in range(len(self.id2label))]  # type: ignore[index,arg-type]
