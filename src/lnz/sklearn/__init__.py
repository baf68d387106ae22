"""Estimators of scikit-learn (extra ``sklearn``)."""

try:
    import sklearn as _  # noqa: F401
except ImportError as error:
    raise ImportError("lnz.sklearn needs scikit-learn: pip install 'lnz[sklearn]'") from error

from lnz.sklearn.crf import CRF

__all__ = ["CRF"]
