"What holds for the repository as a whole: generated files agree with their sources, layers are kept, the wheel works."

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest
from conftest import ROOT

BIN = Path(sys.executable).parent
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").glob("**/*.ipynb") if ".ipynb_checkpoints" not in p.parts)
EXPORT = re.compile(r"^#\| default_exp ([\w.]+)", re.MULTILINE)
# make tells its children about itself: a make started from a test must not hear it
ENV = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}


def run(*args, cwd, **env) -> subprocess.CompletedProcess:
    return subprocess.run([str(a) for a in args], cwd=cwd, env=ENV | env, text=True, capture_output=True, stdin=subprocess.DEVNULL)


def check(*args, cwd, **env) -> str:
    done = run(*args, cwd=cwd, **env)
    assert done.returncode == 0, f"{args}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def tracked() -> list[str]:
    "Paths of the work tree that git tracks or would add."
    done = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT)
    if done.returncode:
        pytest.skip("needs a git work tree")
    return [f for f in sorted(set(done.stdout.splitlines())) if (ROOT / f).exists()]


@pytest.fixture
def tree(tracked, tmp_path) -> Path:
    "A copy of the work tree."
    for f in tracked:
        (tmp_path / f).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / f, tmp_path / f, follow_symlinks=False)
    return tmp_path


def imports(source: str, package: tuple[str, ...] = ("inrformer",)) -> set[str]:
    "Dotted names of every import in the `source` of a module of a package, inside functions too; `from .x import y` gives inrformer.x and inrformer.x.y."
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join(filter(None, [*above, node.module]))
            names |= {base} | {f"{base}.{a.name}" for a in node.names}
    return names


def code(path: Path) -> str:
    "The code of a module or of a notebook's cells."
    text = path.read_text()
    if path.suffix != ".ipynb":
        return text
    return "\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "code")


def test_export_and_clean_change_nothing(tree, tracked):
    check(BIN / "nbdev_export", cwd=tree)
    check(BIN / "nbdev_clean", cwd=tree)
    changed = [f for f in tracked if (tree / f).read_bytes() != (ROOT / f).read_bytes()]
    new = [str(p.relative_to(tree)) for p in (tree / "inrformer").rglob("*.py") if not (ROOT / p.relative_to(tree)).exists()]
    assert not changed + new, f"run `make export`: {changed + new} differ from what the notebooks give"


def test_readme_is_made_from_index(tree):
    check("make", "-s", "-o", ".venv/installed", "readme", f"BIN={BIN}", cwd=tree)
    assert (tree / "README.md").read_text() == (ROOT / "README.md").read_text(), "run `make readme`: README.md differs from nbs/index.ipynb"


@pytest.mark.parametrize("notebook", [p for p in NOTEBOOKS if json.loads(p.read_text())["metadata"].get("jupytext", {}).get("formats")], ids=lambda p: p.name)
def test_paired_text_agrees(notebook):
    def cells(path):
        return [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in jupytext.read(path).cells]

    text = notebook.parent / "_py" / f"{notebook.stem}.py"
    assert cells(notebook) == cells(text), f"run `make export`: {text.name} differs from {notebook.name}"


def chapters() -> dict[str, int]:
    "The modules that notebooks export, and where the site's sidebar puts them."
    shown = re.findall(r"[\w/]+\.ipynb", (ROOT / "_quarto.yml").read_text().partition("sidebar:")[2])
    found = {notebook: EXPORT.search(code(ROOT / "nbs" / notebook)) for notebook in shown}
    return {match[1]: place for place, match in enumerate(found.values()) if match}


def test_the_sidebar_has_every_chapter_in_the_order_of_its_number():
    exporting = {match[1]: p for p in NOTEBOOKS if (match := EXPORT.search(code(p)))}
    assert set(chapters()) == set(exporting)
    numbers = [exporting[name].name.partition("_")[0] for name in chapters() if exporting[name].name[:2].isdigit()]
    assert numbers == sorted(set(numbers))
    modules = {".".join(p.relative_to(ROOT / "inrformer").with_suffix("").parts) for p in (ROOT / "inrformer").rglob("*.py") if not p.name.startswith(("__init__", "_modidx"))}
    assert modules == set(exporting), "a module without a notebook, or the other way round"


@pytest.mark.parametrize("chapter", chapters())
def test_chapter_imports_only_earlier_chapters(chapter):
    places, path = chapters(), ROOT / "inrformer" / Path(*chapter.split(".")).with_suffix(".py")
    package = ("inrformer", *chapter.split(".")[:-1])
    used = {name.removeprefix("inrformer.") for name in imports(path.read_text(), package) if name.startswith("inrformer.")}
    later = [name for name in used & set(places) if places[name] >= places[chapter]]
    assert not later, f"{chapter} imports {later}, which the sidebar puts after it"


@pytest.mark.parametrize("chapter", ["inr", "kinds.siren", "symmetry", "fitting", "graph", "layers", "reader", "readers.inrformer", "objectives.classify", "training"])
def test_what_computes_needs_no_tables_and_no_pictures(chapter):
    "Chapters that a run's source is made of import nothing heavy; only figures and what stands after them know plotly and ipywidgets."
    heavy = {name.split(".")[0] for name in imports((ROOT / "inrformer" / Path(*chapter.split(".")).with_suffix(".py")).read_text())} & {"pandas", "matplotlib"}
    assert not heavy, f"{chapter} imports {heavy}"


def test_only_figures_and_panels_import_plotly_or_ipywidgets():
    drawing = {p.stem for p in (ROOT / "inrformer").rglob("*.py") if {name.split(".")[0] for name in imports(p.read_text())} & {"plotly", "ipywidgets", "anywidget"}}
    panels = {p.stem.partition("_")[2] for p in (ROOT / "nbs").glob("20*_*.ipynb")}
    assert {"figures", "widgets"} <= drawing <= {"figures", *panels}


@pytest.mark.parametrize("notebook", [p for p in NOTEBOOKS if p.stem != "00a_palette"], ids=lambda p: p.stem)
def test_numbers_with_a_sign_have_one_map(notebook):
    other = re.search(r"\b(RdBu|coolwarm|bwr|seismic|PuOr|PRGn|PiYG|BrBG|RdYlBu|RdYlGn|RdGy|Spectral|vlag|icefire)(_r)?\b", code(notebook))
    assert not other, f"{other[0]}: numbers with a sign are drawn with `signed()` of the palette"


def test_import_needs_no_notebook_tools():
    script = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("plotly", "ipywidgets", "papermill", "nbdev"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Block())
import inrformer.inspection, inrformer.__main__
"""
    check(sys.executable, "-c", script, cwd=ROOT)


@pytest.mark.parametrize("notebook", ["00_inr", "01_symmetry", "readers/inrformer"])
def test_lessons_have_short_cells(notebook):
    cells = [c for c in json.loads((ROOT / "nbs" / f"{notebook}.ipynb").read_text())["cells"] if c["cell_type"] == "code" and "#| export" in "".join(c["source"])]
    for cell in cells:
        lines = [line for line in "".join(cell["source"]).splitlines() if line.strip() and not line.startswith("#|")]
        if not all(line.startswith(("import ", "from ", "    ", ")")) for line in lines):
            assert len(lines) <= 15, f"{len(lines)} lines:\n" + "\n".join(lines)


def test_wheel_builds_installs_and_imports(tree, tmp_path_factory):
    out, site, elsewhere = (tmp_path_factory.mktemp(name) for name in ("wheel", "site", "elsewhere"))
    check(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=tree)
    (wheel,) = out.glob("*.whl")
    check(sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", site, wheel, cwd=elsewhere)
    modules = sorted(".".join(p.relative_to(ROOT / "inrformer").with_suffix("").parts) for p in (ROOT / "inrformer").rglob("*.py"))
    script = "import importlib; [importlib.import_module(f'inrformer.{m}') for m in %r]; import inrformer; print(inrformer.__file__)" % modules
    where = check(sys.executable, "-c", script, cwd=elsewhere, PYTHONPATH=str(site)).strip()
    assert Path(where).is_relative_to(site), f"imported {where}, not the wheel"
    missing = [p.name for p in (ROOT / "inrformer" / "demo").glob("*.*") if not (site / "inrformer" / "demo" / p.name).exists()]
    assert not missing, f"the wheel lacks demo files {missing}"


def test_files_name_no_machine_and_load_no_pickle(tracked):
    machine = re.compile(r"/(?:home|Users|root)/\w|/tmp/ipykernel_\d|[A-Z]:\\+Users" + (f"|{re.escape(str(ROOT))}" if len(ROOT.parts) > 2 else ""))
    pickle = re.compile(
        r"^\s*(?:import|from)\s+(?:c?pickle|dill|cloudpickle|joblib)\b|\ballow_pickle=True|\bread_pickle\(|torch\.load\((?![^\n]*weights_only=True)",
        re.MULTILINE,
    )
    for f in tracked:
        path = ROOT / f
        assert path.stat().st_size <= 1.5e6, f"{f} is larger than 1.5 MB"
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # not text
        found = machine.search(text)
        assert not found, f"{f} holds a path of one machine: {found[0]}"
        if path.suffix in (".py", ".ipynb"):
            found = pickle.search(code(path))
            assert not found, f"{f} loads pickled data: {found[0].strip()}"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("*.py")), ids=lambda p: p.name)
def test_skips_give_a_reason(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    calls = {id(node.func): node for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr in ("skip", "skipif", "xfail", "importorskip"):
            call = calls.get(id(node))
            given = call and (any(k.arg == "reason" for k in call.keywords) or node.attr == "skip" and call.args)
            assert given, f"{path.name}:{node.lineno}: {ast.unparse(node)} without a reason"


def test_make_passes_any_parameter_on():
    line = check("make", "-n", "train", "HINT=64", "DATASET=my images/{split}", "PAIR_DIM=8", cwd=ROOT, LR="7").replace("'", "")
    for words in ("hint=64", "dataset=my images/{split}", "pair_dim=8"):
        assert words in line
    assert "lr=" not in line, "a parameter came from the environment"
    (command,) = [line for line in check("make", "-n", "train", cwd=ROOT).splitlines() if "--page runs/train.ipynb" in line]
    assert "=" not in command


def test_make_refuses_an_unknown_parameter_before_anything_runs():
    done = run("make", "-o", ".venv/installed", "train", "HNT=64", f"BIN={BIN}", cwd=ROOT)
    assert done.returncode and "there is no parameter 'hnt'; did you mean 'hint'" in done.stderr and "at the run" not in done.stderr
    done = run("make", "-n", "test", "HINT=64", cwd=ROOT)
    assert done.returncode and "HINT: only `make train` takes parameters" in done.stderr


def test_the_makefile_and_the_page_hold_no_second_list_of_fields():
    from inrformer.config import field_types

    words = set(re.findall(r"[A-Z_]{3,}", (ROOT / "Makefile").read_text()))
    assert not {name for name in field_types() if name.upper() in words} - {"hint", "dataset"}
    (cell,) = [c for c in json.loads((ROOT / "nbs" / "train.ipynb").read_text())["cells"] if "parameters" in c["metadata"].get("tags", [])]
    named = set(re.findall(r"^(\w+):", "".join(cell["source"]), re.MULTILINE))
    assert named < set(field_types()) and len(named) <= 12
