"""Texts as files, and what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest

from darknet_compat.errors import DataError
from darknet_compat.text.corpus import read_symbols, read_tokens


def test_bytes_and_tokens(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"a\xc3\xa9\n")
    assert read_symbols(path, 256).tolist() == [97, 195, 169, 10]
    path.write_bytes(b" 3 0\n12\t7\n")
    assert read_symbols(path, 13, tokenized=True).tolist() == [3, 0, 12, 7]
    assert read_symbols(path, 13, tokenized=True).dtype == np.int64


@pytest.mark.parametrize(
    ("text", "tokenized", "said"),
    [
        (b"", False, "an empty text; expected letters"),
        (b" \n", True, "an empty text; expected numbers of tokens"),
        (b"ab\0c", False, "offset 2: the byte is 0; expected 1 to 127"),
        (b"abc\xe9", False, "offset 3: the byte is 233; expected 1 to 127, as the network takes 128 symbols"),
        (b"1 2 128", True, "token 3 is 128; expected 0 to 127"),
        (b"1 -2", True, "token 2 is -2; expected 0 to 127"),
        (b"1 two 3", True, "token 2 is no whole number; expected numbers with space between them"),
        (b"1 99999999999999999999", True, "token 2 is no whole number"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, tokenized, said):
    path = tmp_path / "text"
    path.write_bytes(text)
    with pytest.raises(DataError, match=f"text: {said}"):
        read_symbols(path, 128, tokenized)


def test_no_such_text(tmp_path):
    with pytest.raises(DataError, match=r"none: No such file or directory; expected a text"):
        read_symbols(tmp_path / "none", 256)


def test_names_of_tokens(tmp_path):
    path = tmp_path / "tokens"
    path.write_bytes(b"the\n<NEWLINE>\n\ncat")
    assert read_tokens(path, 4) == [b"the", b"\n", b"", b"cat"]
    with pytest.raises(DataError, match="4 lines; expected 5"):
        read_tokens(path, 5)
