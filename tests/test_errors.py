"""Errors are one line, whatever they quote."""

import pytest

from gcnn_cli.errors import GcnnError, InputError


@pytest.mark.parametrize("spoiled", ["a\nb", "a\rb", "\x1b[2Jgone", "a\x00", "\u2028", "\u202eb.mha", "\udcff"])
def test_what_would_break_the_line_or_command_the_terminal_is_shown(spoiled: str) -> None:
    text = str(InputError(f"{spoiled}: cannot be read"))
    assert text.isprintable()
    assert text.encode("utf-8")
    assert "\\" in text


def test_other_text_is_left_as_it_is() -> None:
    text = "/data/Lunge rechts/ä 肺  CT.mha: 1 × 2\u00a0mm … don't"
    assert str(GcnnError(text)) == text
