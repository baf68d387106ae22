"""What tests of formats share."""

import pytest


@pytest.fixture
def write(tmp_path):
    """A file of a text or of bytes; returns its path."""

    def written(text, name="x.conllu"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return written
