"""The tables as LaTeX with booktabs, ours and published apart, ready for \\input."""

from collections.abc import Sequence

from attent_kit.report.published import PublishedTable
from attent_kit.report.shown import columns_in_parts
from attent_kit.report.table import Table

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"\ensuremath{\pm}", "†": r"\ensuremath{\dagger}",
    "\n": " ", "\r": " ", "\t": " ",
}  # fmt: skip


def escape(text: str) -> str:
    """Text as LaTeX prints it; letters of other scripts are left to the reader's engine and fonts."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text if letter.isprintable() or letter in _SPECIAL)


def latex(made: Sequence[Table], published: Sequence[PublishedTable]) -> str:
    """All tables, one environment each, without rows that have no scores; \\usepackage{booktabs} stands in the
    document."""
    parts = ["% Tables of attentkit, for \\usepackage{booktabs}. Best of each column in bold, bounds aside."]
    for table in made:
        rows = []
        for (label, cells), stamp in zip(table.rows, table.stamps, strict=True):
            if not table.shows(label):
                continue
            texts = [(escape(text), best) for text, best in table.texts(label, cells)]
            marked = [rf"\textbf{{{text}}}" if best else text for text, best in texts]
            rows.append([escape(label), *marked, escape(stamp)])
        parts.append(_environment(table.title, (*table.columns, "selection"), rows, table.notes))
    for entry in published:
        rows = [[escape(label), *map(escape, entry.cells(label))] for label in entry.rows]
        spread = f", ± {entry.of}" if entry.of else ""
        title = f"{entry.kind.capitalize()}, {entry.direction}: {entry.metric}, {entry.unit}{spread}. {entry.citation}"
        parts.append(_environment(title, (*entry.organs, "average"), rows, ()))
    return "\n\n".join(parts) + "\n"


def _environment(caption: str, organs: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    said = " ".join([caption if caption.endswith(".") else f"{caption}.", *notes])
    head = ["method", *map(escape, organs)]
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape(said)}}}"]
    for number, columns in enumerate(columns_in_parts(range(len(head)))):
        lines += [r"\par\medskip"] * (number > 0) + [
            rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}", r"\toprule",
            " & ".join(head[n] for n in columns) + r" \\", r"\midrule",
            *(_line([row[n] for n in columns]) for row in rows), r"\bottomrule", r"\end{tabular}",
        ]  # fmt: skip
    return "\n".join([*lines, r"\end{table}"])


def _line(cells: Sequence[str]) -> str:
    r"""A row of a tabular. \midrule and \\ before it would take [ or * at its beginning for their own."""
    line = " & ".join(cells) + r" \\"
    return "{}" + line if line.lstrip().startswith(("[", "*")) else line
