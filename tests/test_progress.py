"""The bar keeps out of the way of the results."""

import sys
import types

from caption_generator.common.console import progress


def test_in_a_terminal_the_bar_leaves_stdout_to_the_captions(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert list(progress(["a", "b"], unit="image")) == ["a", "b"]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "2/2" in shown.err and "image" in shown.err


def test_in_a_notebook_the_bar_is_part_of_the_results(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    list(progress(["a", "b"]))
    shown = capsys.readouterr()
    assert "2/2" in shown.out
    assert shown.err == ""
