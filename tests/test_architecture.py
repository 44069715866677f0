"""What may import what, read from the source; and what an import costs, seen from a fresh interpreter."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FRAME = ROOT / "attent_kit"
BUILTIN = ROOT / "plugins" / "attentkit_builtin"

# Lowest first: a part of attent_kit imports parts of lower rows, and itself.
LAYERS = [
    {"__init__", "errors"},
    {"guard", "naming", "reading"},
    {
        "config",
        "files",
        "hookspecs",
        "image_pool",
        "mixing",
        "objectives",
        "registry",
        "schedules",
        "teacher",
        "tracker",
    },
    {"backbone", "describe", "launcher", "scaffold"},
    {"interfaces", "report", "selectors"},
    {"asked", "build", "data", "options"},
    {"contrast", "layouts", "metrics"},
    {"engine"},
    {"plugins"},
    {"door", "testing"},
    {"cli", "pytest_plugin"},
    {"__main__"},
]
WINGS = {
    "data": [
        {"workers"},
        {"scans"},
        {"sets", "space"},
        {"doubts", "phantom", "prepared"},
        {"prepare"},
        {"check"},
    ],
    "engine": [
        {"run"},
        {"snapshots"},
        {"train"},
        {"apply"},
        {"backbones", "compare"},
        {"jobs", "publish", "study"},
        {"conduct"},
    ],
}
"""The folders of the two large parts, lowest first: a wing imports wings of lower rows, and itself."""
OPEN_TO_PLUGINS = {
    "__init__",
    "backbone",
    "config",
    "contrast",
    "errors",
    "image_pool",
    "interfaces",
    "launcher",
    "layouts",
    "mixing",
    "objectives",
    "options",
    "schedules",
    "selectors",
    "teacher",
    "testing",
    "tracker",
}
"""Parts of attent_kit that the built-ins may use; of the package itself they use `hookimpl` alone."""
FOR_LAYOUTS = {
    "CHAOS_GREY_BANDS", "CLEAR_EVIDENCE", "DICOM_ENDINGS", "Entry", "LabelMap", "Layout", "Pair", "SPLITS", "Scan", "Series",
    "TASK_ORGANS", "Volume", "choose_series", "find_pairs", "find_series", "integers", "is_dicom", "is_label",
    "natural", "read_labels", "read_picture", "read_series", "read_volume", "same_grid", "slice_order_evidence",
    "SegmentationFile", "find_segmentations", "read_segmentation",
    "csv_in", "json_in", "organ_called", "plainly", "text_of",
}  # fmt: skip
"""What layouts may use of the frame, by way of attent_kit.layouts: each name is a promise to strangers."""
ORDINARY_WORDS = {
    ("cli/predict.py", "entropy"), ("data/prepared/believed.py", "pixel"), ("data/prepare/cases.py", "pixel"),
    ("engine/train/health.py", "entropy"),
    ("engine/apply/volumes.py", "entropy"), ("engine/apply/inputs.py", "entropy"),
    ("engine/train/kept.py", "entropy"), ("engine/publish/panels.py", "entropy"),
    ("engine/publish/slices.py", "entropy"),
    ("data/prepared/file.py", "pixel"),
    ("metrics/protocols.py", "pixel"), ("metrics/protocols.py", "sifa"), ("report/shift.py", "entropy"),
}  # fmt: skip
"""Strings that happen to be the name of an alignment: the entropy of an answer, a pixel and its size in mm, and the way in
which SIFA scores."""


MOST_PARAMETERS = 7
LONGEST_FUNCTION = 60
"""Lines, with signature and docstring."""


def sources(*folders):
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def imported(path):
    """(module, name) of every import in a file, wherever in it: `import a.b` is ("a.b", None).

    Not those under `if TYPE_CHECKING:`, which name the types of what a file hands through and are never run.
    """
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unread = {
        inner for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body for inner in ast.walk(statement)
    }  # fmt: skip
    for node in (node for node in ast.walk(tree) if node not in unread):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by the full name, not relatively."
            found += [(node.module, alias.name) for alias in node.names]
    return found


def parts_of_the_frame(path):
    """Parts of attent_kit that a file imports: "data" of attent_kit.data.scans.volumes, "__init__" of the package itself."""
    parts = {path.with_suffix("").name for path in FRAME.iterdir() if path.name != "__pycache__"}
    found = set()
    for module, name in imported(path):
        words = module.split(".")
        if words[0] == "attent_kit":
            found.add(words[1] if len(words) > 1 else name if name in parts else "__init__")
    return found


def python(program, *arguments):
    """What a program prints as JSON in an interpreter of its own."""
    command = [sys.executable, "-c", program, *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def brought_in_by(*modules):
    """Top-level packages outside the standard library that importing these modules loads."""
    program = (
        "import sys, json, importlib; before = set(sys.modules)\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "after = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(json.dumps(sorted(after - set(sys.stdlib_module_names))))"
    )
    return set(python(program, *modules))


def module_name(path):
    words = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


# Directions


def test_the_frame_never_imports_a_plugin():
    for path in sources(FRAME):
        for module, _ in imported(path):
            assert not module.startswith("attentkit_"), f"{path.name} imports {module}"


def test_every_part_of_the_frame_has_its_layer():
    parts = {path.relative_to(FRAME).with_suffix("").parts[0] for path in sources(FRAME)}
    assert parts == set.union(*LAYERS)


@pytest.mark.parametrize("height", range(len(LAYERS)))
def test_imports_point_downwards(height):
    below = set.union(set(), *LAYERS[:height])
    for path in sources(FRAME):
        part = path.relative_to(FRAME).with_suffix("").parts[0]
        if part in LAYERS[height]:
            above = parts_of_the_frame(path) - below - {part}
            assert not above, f"{path.relative_to(ROOT)} imports {', '.join(sorted(above))} from its own layer or above"


def wing_of(path, part):
    return path.relative_to(FRAME / part).with_suffix("").parts[0]


def wings_imported(path, part):
    """Wings of a part of attent_kit that a file imports: "run" of attent_kit.engine.run.folder."""
    found = set()
    for module, name in imported(path):
        words = module.split(".")
        if words[:2] == ["attent_kit", part]:
            found.add(words[2] if len(words) > 2 else name)
    return found


@pytest.mark.parametrize("part", WINGS)
def test_every_wing_has_its_place(part):
    wings = {wing_of(path, part) for path in sources(FRAME / part)} - {"__init__"}
    assert wings == set.union(*WINGS[part])


@pytest.mark.parametrize(("part", "height"), [(part, h) for part, rows in WINGS.items() for h in range(len(rows))])
def test_wings_import_downwards(part, height):
    below = set.union(set(), *WINGS[part][:height])
    for path in sources(FRAME / part):
        if (wing := wing_of(path, part)) in WINGS[part][height]:
            above = wings_imported(path, part) - below - {wing}
            assert not above, f"{path.relative_to(ROOT)} imports {', '.join(sorted(above))} from its own row or above"


def test_the_built_ins_use_only_what_every_plugin_may_use():
    for path in sources(BUILTIN):
        beyond = parts_of_the_frame(path) - OPEN_TO_PLUGINS
        assert not beyond, f"{path.relative_to(ROOT)} imports {', '.join(sorted(beyond))}"
        assert {name for module, name in imported(path) if module == "attent_kit"} <= {"hookimpl"}


def test_what_layouts_may_use_is_this_list_and_the_built_ins_use_all_of_it():
    from attent_kit import layouts

    assert set(layouts.__all__) == FOR_LAYOUTS and len(layouts.__all__) == len(FOR_LAYOUTS)
    names = {name for module, name in imported(FRAME / "layouts.py") if module != "attent_kit"}
    used = {name for path in sources(BUILTIN) for module, name in imported(path) if module == "attent_kit.layouts"}
    assert names == used == FOR_LAYOUTS


def test_text_files_have_one_reader():
    """What `reading` does not parse is: our own CSV, in the one place for it, and what a check in a test process says."""
    for path in [*sources(FRAME), *sources(BUILTIN)]:
        place = path.relative_to(FRAME).as_posix() if path.is_relative_to(FRAME) else ""
        if place == "reading.py" or place.startswith("testing/"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                call = f"{node.value.id}.{node.attr}"
                assert node.value.id != "tomllib", f"{path.name} uses {call}: use reading.toml_in"
                assert call not in ("json.loads", "json.load"), f"{path.name} uses {call}: use reading.json_in"
                if place != "report/rows.py":
                    assert call not in ("csv.reader", "csv.DictReader"), f"{path.name} uses {call}: use reading.csv_in"


def test_methods_do_not_import_methods():
    for path in sources(BUILTIN / "alignments"):
        for module, name in imported(path):
            assert "alignments" not in f"{module}.{name}".split("."), f"{path.name} imports {module}"


def test_the_frame_knows_no_method_by_name():
    methods = {path.stem for path in (BUILTIN / "alignments").glob("*.py")} - {"__init__"}
    assert "attent" in methods and len(methods) >= 8
    found = set()
    for path in sources(FRAME):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in methods:
                found.add((path.relative_to(FRAME).as_posix(), node.value))
    assert found <= ORDINARY_WORDS


def test_no_file_is_long():
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines())
        for path in sources(FRAME, ROOT / "plugins", ROOT / "tests", ROOT / "benchmarks")
    }
    assert [str(path) for path, length in lengths.items() if length > 450] == []


def functions(path):
    """(node, class that it is in or None) of every function and method of a file; functions within functions are theirs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.Module):
            owner = node if isinstance(node, ast.ClassDef) else None
            yield from ((child, owner) for child in node.body if isinstance(child, ast.FunctionDef))


def is_public(node, owner):
    hidden = [name for name in (node.name, owner.name if owner else "") if name.startswith("_") and name != "__init__"]
    return not hidden


def is_command(node):
    """Whether click calls it: a command has an argument for each option, which it parses."""
    calls = [decorator.func for decorator in node.decorator_list if isinstance(decorator, ast.Call)]
    return any(isinstance(call, ast.Attribute) and call.attr == "command" for call in calls)


def parameters(node, owner):
    a = node.args
    named = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
    bound = owner is not None and not any(getattr(d, "id", "") == "staticmethod" for d in node.decorator_list)
    return len(named) - bound


def test_no_public_function_has_more_than_seven_parameters():
    many = {
        f"{path.relative_to(FRAME).as_posix()} {node.name}"
        for path in sources(FRAME)
        for node, owner in functions(path)
        if is_public(node, owner) and not is_command(node) and parameters(node, owner) > MOST_PARAMETERS
    }
    assert not many, "an options model takes what is more"


def test_functions_of_the_engine_fit_a_screen():
    long = {
        f"{path.relative_to(FRAME).as_posix()} {node.name}"
        for path in sources(FRAME / "engine")
        for node, _ in functions(path)
        if node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    }
    assert not long, "a paragraph of it is a function of its own"


# One word for one idea


def public_classes(path):
    """Top-level classes and aliases of types; not what is imported, constants, or the variables of generic types."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp):
            yield from (
                target.id for target in node.targets if isinstance(target, ast.Name) and not target.id.isupper()
            )


def test_no_two_classes_have_one_name():
    owners = {}
    for path in sources(FRAME, ROOT / "plugins"):
        if not {"tests", "templates"} & {*path.relative_to(ROOT).parts}:
            for name in (name for name in public_classes(path) if not name.startswith("_")):
                owners.setdefault(name, []).append(path.relative_to(ROOT).as_posix())
    assert {"Alignment", "AttENT", "Grid", "ReportDone", "FDA"} <= owners.keys()
    assert {name: files for name, files in owners.items() if len(files) > 1} == {}


# The folder of a run


OF_OTHERS = {
    ("engine/compare/cells.py", ".lock"), ("engine/train/fit.py", ".lock"), ("engine/jobs/book.py", ".lock"),
    ("engine/jobs/staging.py", ".lock"),
    ("engine/compare/results.py", "scores.csv"), ("report/render.py", "scores.csv"),
    *(("engine/apply/pack.py", name) for name in ("config.toml", "domain.json", "env.json")),
}  # fmt: skip
"""Names that other things have, too: the locks of a comparison's data, of a shared stage, of a queue and of a copy on a node, the
scores of a comparison, and the files of a pack."""


def names_used(path, files, folders):
    """Those of the file names that stand in texts which are neither docstrings nor sentences, and of the folders that paths
    are made of."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield from (name for name in files if name in node.value and " " not in node.value.strip())
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            yield from (name for name in folders if name == node.right.value)


def test_only_the_folder_of_a_run_names_what_lies_in_it():
    owner = FRAME / "engine" / "run" / "folder.py"
    calls = [node for node in ast.walk(ast.parse(owner.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    names = {call.args[0].value for call in calls if getattr(call.func, "id", "") == "_Named"}
    files, folders = {name for name in names if "." in name}, {name for name in names if "." not in name}
    assert {"config.toml", "scores.csv", "segmentor.safetensors", ".lock"} <= files
    assert {"cost.json", "shift.json", "translation_audit.csv", "translation_audit.json"} <= files
    assert folders == {"predictions", "selections", "snapshots"}
    found = set()
    for path in sources(FRAME):
        if path != owner:
            found |= {(path.relative_to(FRAME).as_posix(), name) for name in names_used(path, files, folders)}
    assert found == OF_OTHERS


# What an import costs


def test_the_package_brings_in_pluggy_and_nothing_else():
    assert brought_in_by("attent_kit") == {"attent_kit", "pluggy"}


def test_the_command_line_starts_without_torch_and_pydantic():
    assert brought_in_by("attent_kit.cli").isdisjoint({"torch", "pydantic", "numpy", "rich"})


def test_listing_components_imports_none_of_them():
    program = (
        "import sys, json, io, contextlib; from attent_kit.cli import run\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    codes = [run(['--help']), run(['list']), run(['plugins'])]\n"
        "loaded = [m for m in ('torch', 'pydantic', 'numpy') if m in sys.modules]\n"
        "print(json.dumps([codes, loaded, 'source_only' in out.getvalue()]))"
    )
    assert python(program) == [[0, 0, 0], [], True]


def test_reports_metrics_and_layouts_need_no_torch():
    modules = [module_name(path) for path in sources(FRAME / "report", FRAME / "metrics")]
    modules += ["attent_kit.layouts"]
    assert {"attent_kit.report.table", "attent_kit.metrics.surface"} <= set(modules)
    loaded = brought_in_by(*modules)
    assert "numpy" in loaded
    assert "torch" not in loaded


def test_no_tracker_is_imported_before_it_is_used():
    modules = [module_name(path) for path in sources(FRAME / "cli", FRAME / "engine", BUILTIN / "trackers")]
    assert "attentkit_builtin.trackers.wandb" in {name.removeprefix("plugins.") for name in modules}
    loaded = brought_in_by(*(name.removeprefix("plugins.") for name in modules))
    assert "torch" in loaded
    assert loaded.isdisjoint({"tensorboard", "wandb", "mlflow"})


def test_no_command_brings_in_torch_or_a_plugin_before_it_runs():
    commands = [module_name(path) for path in sources(FRAME / "cli")]
    assert "attent_kit.cli.train" in commands
    assert brought_in_by(*commands).isdisjoint({"torch", "attentkit_builtin"})


def test_without_the_plugins_folder_the_registry_is_empty_and_says_so():
    program = (
        "import sys, os, json\n"
        "sys.modules['attentkit_builtin'] = None\n"
        "os.environ['ATTENTKIT_PLUGINS'] = 'builtin'\n"
        "import attent_kit\n"
        "from attent_kit.plugins import load\n"
        "from attent_kit.errors import UnknownComponent\n"
        "try: load().registry.alignment('attent')\n"
        "except UnknownComponent as error: sentence = str(error)\n"
        "print(json.dumps([len(load().registry), [broken.name for broken in load().quarantined], sentence]))"
    )
    components, broken, sentence = python(program)
    assert (components, broken) == (0, ["builtin"])
    assert sentence.startswith("no alignment is called 'attent'.")
