"""Hugging Face's transformers: any encoder with a chain CRF on top, as a model of theirs (extra ``transformers``)."""

try:
    import transformers as _  # noqa: F401
except ImportError as error:
    raise ImportError("lnz.hf needs transformers: pip install 'lnz[transformers]'") from error

from lnz.hf.collator import CRFDataCollator
from lnz.hf.config import CRFConfig
from lnz.hf.export import export_onnx
from lnz.hf.metrics import EntityMetrics
from lnz.hf.model import CRFForTokenClassification, CRFTokenClassifierOutput
from lnz.hf.pipeline import CRFTokenClassificationPipeline
from lnz.hf.words import encode_words

__all__ = [
    "CRFConfig",
    "CRFDataCollator",
    "CRFForTokenClassification",
    "CRFTokenClassificationPipeline",
    "CRFTokenClassifierOutput",
    "EntityMetrics",
    "encode_words",
    "export_onnx",
]
