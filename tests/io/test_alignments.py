import json

import pytest

from lnz.errors import FormatError
from lnz.io.alignments import Interval, read_textgrid, write_json, write_textgrid

TIERS = {
    "words": [Interval(0.1, 0.3, "one", 0.9), Interval(0.3, 0.71234567, 'a "b"', 0.5)],
    "characters": [Interval(0.0, 0.123456789, "ü")],
}


@pytest.fixture
def grid(tmp_path):
    write_textgrid(tmp_path / "a.TextGrid", 1.25, TIERS)
    return tmp_path / "a.TextGrid"


class TestTextGrid:
    def test_round_trip(self, grid):
        again = read_textgrid(grid)
        assert list(again) == ["words", "characters"]
        for name, intervals in TIERS.items():
            assert [interval[:3] for interval in again[name]] == [interval[:3] for interval in intervals]

    def test_is_what_praat_writes(self, grid):
        lines = [line.strip() for line in grid.read_text().splitlines()]
        assert lines[:2] == ['File type = "ooTextFile"', 'Object class = "TextGrid"']
        for line in ("xmax = 1.25", "size = 2", "intervals: size = 4", 'text = "one"', 'text = "a ""b"""', 'text = ""'):
            assert line in lines

    def test_nothing_said(self, tmp_path):
        write_textgrid(tmp_path / "b.TextGrid", 1.0, {"words": []})
        assert read_textgrid(tmp_path / "b.TextGrid") == {"words": []}

    def test_errors(self, grid, tmp_path):
        with pytest.raises(FormatError, match=r"none.TextGrid: expected a TextGrid, found nothing"):
            read_textgrid(tmp_path / "none.TextGrid")
        text = grid.read_text()
        for size in (0, 20, 200, 600, len(text) - 30):
            grid.write_text(text[:size])
            with pytest.raises(FormatError, match=r"a.TextGrid: cannot be read as a TextGrid"):
                read_textgrid(grid)
        grid.write_text("hello")
        with pytest.raises(FormatError, match=r"a.TextGrid: cannot be read as a TextGrid"):
            read_textgrid(grid)


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"text": "one ü"}, TIERS)
    read = json.loads((tmp_path / "a.json").read_text())
    assert read["text"] == "one ü"
    assert read["words"][0] == {"label": "one", "start": 0.1, "end": 0.3, "confidence": 0.9}
    assert [each["label"] for each in read["characters"]] == ["ü"]
