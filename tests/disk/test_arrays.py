"""Tables of numbers in text, as arrays."""

import numpy as np
import pytest

from numpyro_diffusion.disk import arrays as files
from numpyro_diffusion.errors import DiffusionError


@pytest.mark.parametrize("head", ["", "a,b\n", '\ufeff"a","b"\n'])
def test_tables_are_read_with_names_or_without(tmp_path, head):
    path = tmp_path / "x.csv"
    path.write_text(head + "1,2.5\n\n-3e2, 4\n", encoding="utf-8")
    assert np.array_equal(files.read_array(path), [[1, 2.5], [-300, 4]])


BROKEN_TABLES = {
    "": "no rows of numbers", "a,b\n": "no rows of numbers", "1,2\n3\n": "line 2 of .* has 1 cells, others 2",
    "a,b\n1,x\n": "line 2 of .* has 'x' where a number", "a,b\n1,\n": "Leave out rows with missing values",
    ",a\n0,1\n": "index=False",
}  # fmt: skip


@pytest.mark.parametrize("text", BROKEN_TABLES)
def test_tables_that_are_none_say_where(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DiffusionError, match=BROKEN_TABLES[text]):
        files.read_array(tmp_path / "x.csv")
