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

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").glob("**/*.ipynb") if ".ipynb_checkpoints" not in p.parts)
CHAPTERS = {p.stem[3:]: int(p.stem[:2]) for p in NOTEBOOKS if re.match(r"\d\d_", p.name)}
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


def imports(source: str) -> set[str]:
    "Dotted names of every import in `source`, inside functions too; `from .x import y` gives inrformer.x and inrformer.x.y."
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["inrformer" if node.level else "", node.module]))
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


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_imports_only_lower_chapters(chapter):
    used = {name.split(".")[1] for name in imports(code(ROOT / "inrformer" / f"{chapter}.py")) if name.startswith("inrformer.")}
    higher = [name for name in used & set(CHAPTERS) if CHAPTERS[name] >= CHAPTERS[chapter]]
    assert not higher, f"{chapter} ({CHAPTERS[chapter]}) imports {higher}"


@pytest.mark.parametrize("chapter", [c for c, number in CHAPTERS.items() if number <= 6])
def test_lower_chapters_are_light(chapter):
    heavy = {name.split(".")[0] for name in imports(code(ROOT / "inrformer" / f"{chapter}.py"))} & {"accelerate", "pandas"}
    assert not heavy, f"{chapter} imports {heavy}"


@pytest.mark.parametrize("module", ["model", "fitting", "experiments"])
def test_import_needs_no_notebook_tools(module):
    script = f"""
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("plotly", "ipywidgets", "papermill", "nbdev"):
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)

sys.meta_path.insert(0, Block())
import inrformer.{module}
"""
    check(sys.executable, "-c", script, cwd=ROOT)


def test_wheel_builds_installs_and_imports(tree, tmp_path_factory):
    out, site, elsewhere = (tmp_path_factory.mktemp(name) for name in ("wheel", "site", "elsewhere"))
    check(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=tree)
    (wheel,) = out.glob("*.whl")
    check(sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", site, wheel, cwd=elsewhere)
    modules = sorted(p.stem for p in (ROOT / "inrformer").glob("*.py"))
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


def test_make_passes_parameters_on():
    line = check("make", "-n", "train", "HINT=64", "DATASET=my images/{split}", cwd=ROOT, LR="7").replace("'", "")
    assert "-p hint 64" in line and "-p dataset my images/{split}" in line
    assert "-p lr" not in line, "a parameter came from the environment"
    assert "-p hint 256" in check("make", "-n", "train", cwd=ROOT).replace("'", "")


def test_make_refuses_an_unknown_parameter():
    done = run("make", "-n", "train", "HNT=64", cwd=ROOT)
    assert done.returncode and "unknown variable HNT" in done.stderr and "HINT" in done.stderr
