"""Which tags may follow which in the schemes that mark spans, as scores that forbid the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Scheme = Literal["BIO", "IOB2", "IOB1", "BIOES", "IOBES", "BILOU", "BMES"]


class Letters(NamedTuple):
    """The letters of a scheme: those that begin a span, those that go on with one, those after which it must go on."""

    begin: str
    inside: str
    open: str = ""


SCHEMES = {
    "BIO": Letters("B", "I"),
    "IOB1": Letters("B", "I"),
    "BIOES": Letters("BS", "IE", "BI"),
    "BILOU": Letters("BU", "IL", "BI"),
    "BMES": Letters("BS", "ME", "BM"),
}
_OTHER_NAMES = {"IOB2": "BIO", "IOBES": "BIOES"}


def transition_mask(
    tags: Sequence[str], scheme: Scheme = "BIO", *, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores that are 0 where a scheme allows a tag at the start, at the end, and after another; −inf where not.

    Args:
        tags: such as ``["O", "B-PER", "I-PER"]``: ``O``, or a letter of the scheme, a hyphen and the type of the span.
            Under ``"BMES"`` the letter may stand alone, as where words are segmented.
        scheme:
            - ``"BIO"``, also called ``"IOB2"``: begin, inside, outside; every span begins with B.
            - ``"IOB1"``: a span begins with I; with B only directly after another of its type (Ramshaw & Marcus 1995).
            - ``"BIOES"``, also called ``"IOBES"``: its end and spans of a single token have letters of their own.
            - ``"BILOU"``: the same, called last and unit.
            - ``"BMES"``: the same, the inside called middle.
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
    name = scheme_name(scheme)
    twice = [tag for k, tag in enumerate(tags) if tag in tags[:k]]
    if twice:
        raise ValueError(f"tags: expected every name once, got {twice[0]!r} twice")
    letters, parsed = SCHEMES[name], [parsed_tag(tag, name) for tag in tags]
    outside = "O", ""
    starts = [_follows(outside, tag, name) for tag in parsed]
    ends = [letter not in tuple(letters.open) for letter, _ in parsed]
    follows = [[_follows(a, b, name) for b in parsed] for a in parsed]
    return _forbidding(starts), _forbidding(ends), _forbidding(follows).reshape(len(tags), len(tags))


def scheme_name(scheme: str) -> str:
    """The name under which the rules of a scheme are kept here: ``"BIO"`` of ``"IOB2"``, say."""
    name = _OTHER_NAMES.get(scheme, scheme)
    if name not in SCHEMES:
        *known, last = map(repr, (*SCHEMES, *_OTHER_NAMES))
        raise ValueError(f"scheme: expected {', '.join(known)} or {last}, got {scheme!r}")
    return name


def scheme_of(tags: Sequence[str]) -> Scheme | None:
    """The first scheme that all ``tags`` are of; ``None`` where they mark no spans.

    Names alone do not tell IOB1 from BIO, which is taken, unless a type has no tag that begins it.
    """
    for name, letters in SCHEMES.items():
        try:
            parsed = {parsed_tag(tag, name) for tag in tags} - {("O", "")}
        except ValueError:
            continue
        begun = {kind for letter, kind in parsed if letter in letters.begin}
        if parsed and (name == "IOB1" or begun == {kind for _, kind in parsed}):
            return name  # type: ignore[return-value]
    return None


def _follows(a: tuple[str, str], b: tuple[str, str], scheme: str) -> bool:
    """Whether tag ``b``, a letter and a type, may follow ``a``; at the start, what may follow ``O``."""
    letters, same = SCHEMES[scheme], a[0] != "O" and a[1] == b[1]
    if scheme == "IOB1":
        return b[0] != "B" or same
    goes_on = b[0] in letters.inside
    if a[0] in letters.open:
        return goes_on and same
    return not goes_on or (same and not letters.open)


def parsed_tag(tag: str, scheme: str) -> tuple[str, str]:
    """Letter and type of a tag, under the name that :func:`scheme_name` gives."""
    letter, hyphen, kind = tag.partition("-")
    letters = tuple(SCHEMES[scheme].begin + SCHEMES[scheme].inside)
    if tag == "O" or (letter in letters and (kind or (scheme == "BMES" and not hyphen))):
        return letter, kind
    alone = ", or the letter alone" if scheme == "BMES" else ""
    raise ValueError(f"tags: expected O, {'-…, '.join(letters)}-… of scheme {scheme}{alone}, got {tag!r}")


def _forbidding(allowed: Sequence[bool] | Sequence[Sequence[bool]]) -> np.ndarray:
    return np.where(np.array(allowed, bool), 0.0, -np.inf)
