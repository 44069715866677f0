"""The command `attentkit`. A command is a paragraph: parse, call one function of the library, print.

Exit codes: 0 ok, 1 a run failed, 2 usage or configuration, 3 bad data, 130 interrupted with the state saved.
"""

import importlib
import io
import sys

import click

from attent_kit import __version__
from attent_kit.cli.plugin_files import plugin_option
from attent_kit.cli.streams import Streams, occupy_closed, plain_streams
from attent_kit.errors import AttentKitError, out_of_memory

COMMANDS = {
    "list": "Show the components that are installed.",
    "show": "Show the options of a component, with defaults.",
    "backbones": "Show the encoders and networks that segmentors can be built on.",
    "plugins": "List installed plugins, create one, or check one.",
    "phantom": "Write a labelled phantom: CT and MR of different patients.",
    "prepare": "Turn a data set into one prepared file per domain.",
    "check": "Look for what is wrong with a data set or a prepared file.",
    "train": "Train one method on two prepared domains, and score it.",
    "predict": "Segment NIfTI volumes or a DICOM series with a trained run.",
    "export": "Write a trained run as ONNX or torch.export, for other programs.",
    "pack": "Pack a trained run into one file, for other people.",
    "evaluate": "Score label maps against the truth, as several papers do.",
    "select": "Show which snapshot each selector chooses, and how well.",
    "shift": "Measure how far domains are apart before and after alignment.",
    "audit": "Measure what a method's translation does to anatomy.",
    "compare": "Run a table of methods, or the built-in one on the phantom.",
    "status": "Show how far a comparison is, from another terminal.",
    "cancel": "End the jobs of a comparison, each after saving.",
    "doctor": "Show what this machine offers, and what may be deleted.",
    "report": "Write the report of a comparison as one HTML file.",
}
"""One line for each command, so that `attentkit --help` imports none of them."""


class _Commands(click.Group):
    """Imports a command when it is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        # Not list(...): once the command of that name is imported, it is an attribute of this package.
        return [*COMMANDS]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"attent_kit.cli.{name}").command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from attent_kit.errors import did_you_mean

            context.fail(f"there is no command '{args[0]}'.{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="attentkit")
@plugin_option
def group() -> None:
    """Domain-adaptive medical image segmentation: AttENT, its baselines and yours.

    Start with `attentkit compare`: it trains five methods on a built-in phantom and prints the table.
    """


def main() -> None:
    """Run the command line and end the process with its exit code."""
    occupy_closed()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; every foreseeable failure is one sentence on stderr."""
    with plain_streams() as streams:
        return streams.end(_run(arguments, streams))


def _run(arguments: list[str], streams: Streams) -> int:
    try:
        return int(group.main(arguments, prog_name="attentkit", standalone_mode=False) or 0)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        words = io.StringIO()
        error.show(words)
        streams.tell(words.getvalue().rstrip("\n"))
        return error.exit_code
    except AttentKitError as error:
        streams.tell(f"{type(error).__name__}: {error}")
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        streams.tell("Interrupted. What is finished is saved: start the same command again to go on.")
        return 130
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        streams.tell(
            "RunError: there is too little memory for this. Lower a batch size or the size of the slices, or choose "
            "another --device; what was saved is unchanged."
        )
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        streams.tell(f"RunError: {place}{error.strerror or error}.")
        return 1
