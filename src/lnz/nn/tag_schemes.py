"""Which tags may follow which in the schemes that mark spans, as scores that forbid the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Scheme = Literal["BIO", "BIOES", "BILOU"]

_STARTS = {"BIO": "B", "BIOES": "BS", "BILOU": "BU"}
_GOES_ON = {"BIO": "", "BIOES": "BI", "BILOU": "BI"}  # after these the span must go on; in BIO it may
_INSIDE = {"BIO": "I", "BIOES": "IE", "BILOU": "IL"}


def transition_mask(
    tags: Sequence[str], scheme: Scheme = "BIO", *, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores that are 0 where a scheme allows a tag at the start, at the end, and after another; −inf where not.

    Args:
        tags: such as ``["O", "B-PER", "I-PER"]``: ``O``, or a letter of the scheme, a hyphen and the type of the span.
        scheme: ``"BIO"`` (begin, inside, outside; every span begins with B), ``"BIOES"`` (its end and spans of a
            single token have letters of their own) or ``"BILOU"`` (the same, called last and unit).
        dtype: that of the scores, to be added to those of a model; ``None`` is torch's default one.

    Returns:
        ``start [L]``, ``end [L]`` and ``transitions [L, L]``, from each tag to the next.

    Raises:
        ValueError: an unknown scheme, a tag that is not of the scheme, or one that comes twice.
    """
    start, end, transitions = (torch.from_numpy(array) for array in forbidding_arrays(tags, scheme))
    dtype = torch.get_default_dtype() if dtype is None else dtype
    return start.to(dtype), end.to(dtype), transitions.to(dtype)


def forbidding_arrays(tags: Sequence[str], scheme: Scheme) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Those of :func:`transition_mask` as arrays, which no device and no mode of torch has a say in."""
    if scheme not in _STARTS:
        raise ValueError(f"scheme: expected 'BIO', 'BIOES' or 'BILOU', got {scheme!r}")
    twice = [tag for k, tag in enumerate(tags) if tag in tags[:k]]
    if twice:
        raise ValueError(f"tags: expected every name once, got {twice[0]!r} twice")
    parsed = [_parsed(tag, scheme) for tag in tags]
    starts = [letter == "O" or letter in _STARTS[scheme] for letter, _ in parsed]
    ends = [letter not in _GOES_ON[scheme] or not letter for letter, _ in parsed]
    follows = [[_follows(a, b, scheme) for b in parsed] for a in parsed]
    return _forbidding(starts), _forbidding(ends), _forbidding(follows).reshape(len(tags), len(tags))


def _follows(a: tuple[str, str], b: tuple[str, str], scheme: Scheme) -> bool:
    within = b[0] in _INSIDE[scheme]
    if a[0] in _GOES_ON[scheme]:
        return within and a[1] == b[1]
    if within:
        return scheme == "BIO" and a[0] in "BI" and a[1] == b[1]
    return True


def _parsed(tag: str, scheme: Scheme) -> tuple[str, str]:
    letter, _, kind = tag.partition("-")
    if tag == "O" or (kind and letter in tuple(_STARTS[scheme] + _INSIDE[scheme])):
        return letter, kind
    letters = "-…, ".join(_STARTS[scheme] + _INSIDE[scheme])
    raise ValueError(f"tags: expected O, {letters}-… of scheme {scheme}, got {tag!r}")


def _forbidding(allowed: Sequence[bool] | Sequence[Sequence[bool]]) -> np.ndarray:
    return np.where(np.array(allowed, bool), 0.0, -np.inf)
