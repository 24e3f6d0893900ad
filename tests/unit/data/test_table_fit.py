"""What the training rows of a table decide."""

from batchscape.data.table_files import TableFile
from batchscape.data.table_fit import MISSING, Levels


def test_levels_are_numbered_in_order_of_appearance():
    levels = Levels(TableFile("t.csv", "data.path", ["x"], frozenset()), "x")
    assert levels.encode(["b", "a", None, "b"]).tolist() == [0, 1, MISSING, 0]
    assert levels.encode(["c", "a"]).tolist() == [2, 1]
    assert levels.names == ["b", "a", "c"]
    assert dict(levels.counts) == {0: 2, 1: 2, 2: 1}
