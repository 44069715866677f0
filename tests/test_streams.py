"""Standard streams that are closed, full, or whose reader went away; and anybody's names on a terminal."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from attent_kit.cli.streams import Lasting, Plain
from attent_kit.engine.run.folder import RunFolder
from support.commands import SUITE, train_words

COMMAND = [sys.executable, "-m", "attent_kit"]
FULL = "/dev/full"


def shell(words, redirections, folder):
    """The command behind `exec` with such redirections: its exit code, stdout and stderr."""
    line = f'exec "$@" {redirections}'
    done = subprocess.run(
        ["sh", "-c", line, "sh", *COMMAND, *map(str, words)],
        capture_output=True, text=True, cwd=folder, timeout=300, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr and "Exception ignored" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("redirections", "code", "out", "err"),
    [
        (">&-", 0, "", "source_only"),
        ("2>&-", 0, "source_only", ""),
        ("<&-", 0, "source_only", ""),
        (">&- 2>&- <&-", 0, "", ""),
        pytest.param(
            f">{FULL}", 1, "", "standard output", marks=pytest.mark.skipif(not Path(FULL).exists(), reason="")
        ),
    ],
)
def test_a_listing_goes_where_somebody_reads_it(redirections, code, out, err, tmp_path):
    found = shell(["list", "alignments", "--json"], redirections, tmp_path)
    assert found[0] == code and out in found[1] and err in found[2]
    assert bool(found[1]) == bool(out) and bool(found[2]) == bool(err)


@pytest.mark.parametrize(("redirections", "place"), [(">&-", 2), ("2>&-", 1)])
@pytest.mark.parametrize(("words", "code"), [(["status", "nowhere"], 2), (["nonsense"], 2), (["train", "x"], 2)])
def test_an_error_is_told_where_it_can_be(words, code, redirections, place, tmp_path):
    found = shell(words, redirections, tmp_path)
    assert found[0] == code and "rror: " in found[place]


def test_training_outlives_whoever_read_it_and_says_what_is_lost(prepared, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    words = train_words(prepared, tmp_path / "run", "--json")
    done = subprocess.run([*COMMAND, *words], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300)
    os.close(writing)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "standard output" in done.stderr
    assert RunFolder(tmp_path / "run").answers().scores.is_file()


def test_a_comparison_of_several_processes_needs_no_open_stream(prepared, tmp_path):
    suite = SUITE.format(prepared=prepared).replace('["mr2ct", "ct2mr"]', '["mr2ct"]').replace("[0, 1]", "[0]")
    (tmp_path / "tiny.toml").write_text(suite)
    words = ["compare", "tiny.toml", "--out", "out", "--devices", "cpu,cpu", "-m", "source_only,attent"]
    found = shell(words, ">&- 2>&- <&-", tmp_path)
    assert found == (0, "", "") and (tmp_path / "out" / "report.html").is_file()


class Ascii:
    encoding, text = "ascii", ""

    def write(self, text):
        self.text += text.encode(self.encoding).decode()

    def isatty(self):
        return False


def test_letters_that_an_output_cannot_show_are_written_as_escapes():
    stream = Ascii()
    Plain(Lasting(stream)).write("Küche\n")
    assert stream.text == "K\\xfcche\n"


# Terminals

HOSTILE = "\x1b]0;owned\x07\x1b[2Jname\x9b31m"
SHOW = """
import sys
from attent_kit.cli import live, output
from attent_kit.cli.streams import plain_streams
from attent_kit.engine.run.status import CellState
name = sys.argv[1]
with plain_streams():
    output.print_table(name, [name], [[name]])
    output.console().print(name, markup=False)
    output.console().print(live.view([CellState(name, name, 0, ".", "failed", None, None, name)]))
    with output.bars((name, 3)) as (bar,):
        bar.to(1, name)
        bar.say(name)
    with live.live_grid([]) as say:
        say(name)
    print(name, file=sys.stderr)
"""


def on_a_terminal(command, environment=None):
    """All that a command writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", **(environment or {})}
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:  # what Linux says at the end
            break
        if not block:
            break
        written += block
    os.close(ours)
    assert process.wait(60) == 0, written
    return written.decode(errors="replace")


def test_nobodys_name_moves_the_cursor_of_a_terminal():
    shown = on_a_terminal([sys.executable, "-c", SHOW, HOSTILE])
    assert len(re.findall(r"owned.{0,4}\\x1b\[2J", shown)) >= 6
    assert "\x1b]0" not in shown and "\x07" not in shown and "\x9b" not in shown and "\x1b[2Jname" not in shown
    assert "\x1b[" in shown  # ours


def test_watching_ends_when_nobody_reads_any_more(tmp_path):
    """A run that waits for ever: without a reader, whoever watches it would, too."""
    folder = tmp_path / "out" / "mr2ct" / "attent" / "seed0"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('seed = 0\n[alignment]\nname = "attent"\n')
    reading, writing = os.pipe()
    os.close(reading)
    words = ["status", tmp_path / "out", "--watch"]
    done = subprocess.run([*COMMAND, *map(str, words)], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert done.returncode == 1 and "standard output" in done.stderr
