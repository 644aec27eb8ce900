"""Live progress: on a terminal it shows arms, steps, loss and time left; elsewhere nothing."""

from __future__ import annotations

import io

from rich.console import Console

from trainplan.lab.progress import Notes, TerminalProgress
from trainplan.lab.segments import Graph, Segment

GRAPH = Graph(
    segments={
        "a": Segment("a", 0, 0, 60, None, "constant", ends=False),
        "b": Segment("b", 0, 60, 100, "a", "wsd", ends=True),
    },
    chains={("constant", 0): ("a",), ("wsd", 0): ("a", "b")},
)


def test_a_terminal_shows_arms_steps_loss_and_time_left():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=110)
    with TerminalProgress(console) as shown:
        shown.stage("Comparing")
        shown.begin(GRAPH)
        shown.done("a")
        shown.progress("b", 80, 2.345)
        shown.warn("begun elsewhere")
        assert shown.steps_done == 80
        shown._progress.refresh()
    text = screen.getvalue()
    for part in ("Comparing", "80/100", "wsd, seed 0, steps 60-100", "20/40", "loss 2.345", "left"):
        assert part in text
    assert "Note: begun elsewhere" in text


def test_what_was_done_before_a_restart_counts_as_done():
    with TerminalProgress(Console(file=io.StringIO(), force_terminal=True)) as shown:
        shown.begin(GRAPH)
        shown.done("a")
        shown.done("b")
        assert shown.steps_done == 100
        shown.begin(GRAPH)
        assert shown.steps_done == 0


def test_elsewhere_only_warnings_are_said(capsys):
    notes = Notes()
    notes.stage("Comparing")
    notes.begin(GRAPH)
    notes.progress("a", 1, 2.0)
    notes.done("a")
    notes.warn("begun with torch 1.0")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "Note: begun with torch 1.0\n"
