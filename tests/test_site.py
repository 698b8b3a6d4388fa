"The site: every page is processed, its numbers come from records and code, its links lead somewhere."

import argparse
import csv
import json
import os
import re
import shlex
import shutil
import stat
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from conftest import alone_at_runs
import yaml
from test_repo import BIN, NOTEBOOKS, ROOT, check, run, tracked, tree  # noqa: F401

from inrformer.__main__ import COMMANDS
from inrformer.config import check_names, config_from, flat, identity, parse_fields, run_id
from inrformer.demo import PARTS
from inrformer.experiments import EXPERIMENTS, experiment, protocols_of
from inrformer.images import TEST_IDS
from inrformer.reader import READERS
from inrformer.records import paired, records
from inrformer.runs import source_digest

PAGES = {p.relative_to(ROOT / "nbs").as_posix(): nbformat.read(p, 4) for p in NOTEBOOKS}
SITE = yaml.safe_load((ROOT / "_quarto.yml").read_text())["website"]


def entries(node):
    "Every page that a part of the site's configuration names."
    if isinstance(node, dict):
        return entries(list(node.values()))
    if isinstance(node, list):
        return [name for part in node for name in entries(part)]
    return [node] if isinstance(node, str) and node.endswith(".ipynb") else []


def option(cell, name):
    "A cell's Quarto option, or None."
    found = re.search(rf'^#\| {name}: *"?(.*?)"?$', cell.source, re.M) if cell.cell_type == "code" else None
    return found and found[1]


def text_of(cell):
    "What a cell's outputs say in words: tables and sentences, not pictures, nor blanks between tags, which a page may leave out."
    data = [o.get("data", {}) for o in cell.outputs]
    said = (next((d[kind] for kind in ("text/html", "text/markdown", "text/plain") if kind in d), None) for d in data if "image/png" not in d)
    return [text and re.sub(r">\s+<", "><", text) for text in said]


def execute(names, root):
    "The code cells of each page, executed in one kernel in their project, none with names of another; without what is not for a test, as `eval: false` says."
    pages = {name: [c for c in nbformat.read(root / "nbs" / name, 4).cells if c.cell_type == "code" and option(c, "eval") != "false"] for name in names}
    notebook = nbformat.v4.new_notebook(metadata=PAGES["index.ipynb"].metadata)
    for cells in pages.values():
        notebook.cells += [nbformat.v4.new_code_cell("%reset -f"), *cells]
    kernel = dict(env=os.environ | dict(PYTHONPATH=str(root)))
    nbclient.NotebookClient(notebook, timeout=300, resources=dict(metadata=dict(path=str(root / "nbs")))).execute(**kernel)
    return pages


def test_the_sidebar_has_every_page():
    assert sorted(entries(SITE["sidebar"])) == sorted(PAGES), "list new pages in _quarto.yml"
    assert {"workbench.ipynb", "howto.ipynb"} <= set(entries(SITE["navbar"])) <= set(PAGES)


def test_the_site_leads_on_and_is_known_by_a_picture():
    assert SITE["page-navigation"] and SITE["open-graph"] and SITE["twitter-card"]
    assert all((ROOT / SITE[name]).is_file() for name in ("favicon", "image")), "make docs copies figures beside the pages"


# Quarto names a page without its number, links pages by those names, and takes a leading / for the site's own folder
QUARTO = """#!{python}
import re
from pathlib import Path

from nbconvert import HTMLExporter

exporter = HTMLExporter(template_name="basic")
for page in [*Path().glob("*.ipynb"), *Path().glob("*/*.ipynb")]:
    html = re.sub(r"[0-9][0-9][a-z]*_([a-z]*)[.]ipynb", r"\\1.html", exporter.from_filename(page)[0]).replace(".ipynb", ".html")
    to = Path("_docs") / page.parent / (re.sub("^[0-9].*?_", "", page.stem) + ".html")
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(html.replace('="/', '="./' if page.parent == Path() else '="../'))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The site as `make docs` leaves it, with a stand-in for Quarto: nbdev processes every page, and the stand-in turns each into plain HTML."
    done = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT)
    if done.returncode:
        pytest.skip("needs a git work tree")
    root, programs = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("bin")
    for f in filter(lambda f: (ROOT / f).exists(), done.stdout.splitlines()):
        (root / f).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / f, root / f, follow_symlinks=False)
    quarto = programs / "quarto"
    quarto.write_text(QUARTO.format(python=sys.executable))
    quarto.chmod(quarto.stat().st_mode | stat.S_IXUSR)
    check("make", "-s", "-o", ".venv/installed", "docs", f"BIN={BIN}", cwd=root, PATH=f"{programs}{os.pathsep}{os.environ['PATH']}", PYTHONPATH=str(root))
    return root


def test_nbdev_processes_every_page(site):
    for name in PAGES:
        cells = nbformat.read(site / "_proc" / name, 4).cells
        assert cells[0].cell_type == "raw" and "title:" in cells[0].source, f"{name} has no title"
        assert "colab" not in cells[1].source, "a badge without an address"
        assert not [o for c in cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"], name
        labels = [label for c in PAGES[name].cells if (label := option(c, "label"))]
        assert labels == [label for c in cells if (label := option(c, "label"))], f"{name} lost a label"


def test_links_of_the_rendered_site(site):
    for page in (site / "_docs").rglob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"', page.read_text()):
            target = (page.parent / link).resolve()
            assert target.exists() and target.is_relative_to(site / "_docs"), f"{page.name} links to {link}"


ADDRESSED = """
import sys
from nbdev.process import read_nb
from nbdev.processors import FilterDefaults
from nbdev.quarto import refresh_quarto_yml

refresh_quarto_yml()
for name in sys.argv[1:]:
    page = read_nb(f"nbs/{name}.ipynb")
    FilterDefaults()(page)
    print(page.cells[1].source, end="---" if name == sys.argv[1] else "")
"""


def test_one_field_of_the_settings_links_the_repository(tree):
    settings = tree / "settings.ini"
    settings.write_text(settings.read_text().replace("git_url =", "git_url = https://github.com/some/where"))
    badge, none = check(BIN / "python", "-c", ADDRESSED, "workbench", "howto", cwd=tree, PYTHONPATH=str(tree)).split("---")
    assert "(https://colab.research.google.com/github/some/where/blob/main/nbs/workbench.ipynb)" in badge and "colab" not in none
    (name,) = yaml.safe_load((tree / "_quarto.yml").read_text())["metadata-files"]
    assert yaml.safe_load((tree / "nbs" / name).read_text())["website"]["repo-url"] == "https://github.com/some/where"


def test_make_docs_says_how_to_get_quarto(tree):
    if shutil.which("quarto"):
        pytest.skip("quarto is here")
    done = run("make", "-s", "-o", ".venv/installed", "docs", f"BIN={BIN}", cwd=tree)
    assert done.returncode and "https://quarto.org" in done.stdout and not (tree / "_docs").exists()


@pytest.mark.parametrize("name", PAGES)
def test_the_first_cell_is_title_and_description(name):
    first = next(c for c in PAGES[name].cells if c.cell_type == "markdown")
    assert re.fullmatch(r"# .+\n\n> .+(\n\n- \w+: .+)*", first.source.strip()), f"{name}: nbdev drops what else the first cell says"


@pytest.mark.parametrize("name", PAGES)
def test_labels_come_from_code(name):
    labels = [label for c in PAGES[name].cells if (label := option(c, "label"))]
    assert len(set(labels)) == len(labels)
    for cell in PAGES[name].cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"\{[^}]*#(tbl|fig)-", cell.source), f"{name}: a label in a markdown cell"
            missing = set(re.findall(r"@((?:tbl|fig)-[\w-]+)", cell.source)) - set(labels)
            assert not missing, f"{name} refers to {missing}"
        elif label := option(cell, "label"):
            kind = label.split("-")[0]
            assert kind in ("tbl", "fig") and option(cell, f"{kind}-cap"), f"{name}: {label} has no caption"


@pytest.mark.parametrize("name", PAGES)
def test_every_figure_has_a_text(name):
    for cell in PAGES[name].cells:
        if cell.cell_type == "code" and any("image/png" in o.get("data", {}) for o in cell.outputs):
            assert len(option(cell, "fig-alt") or "") > 40, f"{name}: a figure without fig-alt: {cell.source[:80]}"
        for alt in re.findall(r"!\[(.*?)\]\(", cell.source if cell.cell_type == "markdown" else ""):
            assert len(alt) > 40, f"{name}: a picture without a text"


@pytest.mark.parametrize("name", PAGES)
def test_no_table_of_results_is_typed(name):
    for cell in PAGES[name].cells:
        if cell.cell_type == "markdown":
            typed = [line for line in cell.source.splitlines() if line.startswith("|") and re.search(r"\d\.\d|\d ?%", line)]
            assert not typed, f"{name}: typed numbers in a table: {typed[0]}"


def anchors(name):
    "The anchors of a page's headings."
    heads = [h for c in PAGES[name].cells if c.cell_type == "markdown" for h in re.findall(r"^#+ (.+)$", c.source, re.M)]
    return {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in heads}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    text = "\n".join(c.source for c in PAGES[name].cells if c.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", link):
            continue
        target, _, anchor = link.partition("#")
        place = ROOT / "nbs" / (Path(name).parent / target if target else name)
        assert place.exists(), f"{name} links to {link}"
        page = os.path.relpath(place, ROOT / "nbs")
        assert not anchor or page in PAGES and anchor in anchors(page), f"{name}: no heading {anchor} in {page}"


def commands():
    "Every line of shell on a page, and every example in a help."
    for name, page in PAGES.items():
        for cell in page.cells:
            if cell.cell_type == "markdown":
                for block in re.findall(r"^```sh\n(.*?)^```", cell.source, re.M | re.S):
                    yield from ((name, line) for line in block.splitlines() if line.strip())
    for name, (_, command) in COMMANDS.items():
        yield from ((f"{name} --help", line.strip()) for line in command.__doc__.splitlines() if line.strip().startswith("inrformer "))


@pytest.mark.parametrize(("name", "line"), list(commands()))
def test_commands_are_right(name, line):
    words = shlex.split(line, comments=True)
    if words[:1] == ["make"]:
        done = run("make", "-n", "-o", ".venv/installed", *words[1:], cwd=ROOT)
        assert done.returncode == 0, f"{name}: {line}\n{done.stderr}"
        fields = [word.partition("=") for word in words[2:]]
        parse_fields([f"{field.lower()}={value}" for field, _, value in fields])
    if "-p" in words:
        check_names([field for flag, field in zip(words, words[1:]) if flag == "-p"])
    if "inrformer" in words:
        command, *arguments = words[words.index("inrformer") + 1 :]
        parser = argparse.ArgumentParser()
        COMMANDS[command][0](parser)
        options = parser.parse_args(arguments)
        if command in ("train", "config"):
            parse_fields(options.fields)
        if command == "sweep":
            parse_fields(options.set), experiment(options.name, options.protocol)


def test_tables_regenerate_from_the_records():
    with alone_at_runs():
        pages = execute([n for n, page in PAGES.items() if n == "verify.ipynb" or any((option(c, "label") or "").startswith("tbl-") for c in page.cells)], ROOT)
    for name, cells in pages.items():
        executed = {c.id: text_of(c) for c in cells}
        for cell in PAGES[name].cells:
            table = (option(cell, "label") or "").startswith("tbl-") or name == "verify.ipynb" and cell.id in executed and any(text_of(cell))
            if table or cell.cell_type == "code" and any("text/markdown" in o.get("data", {}) for o in cell.outputs):
                assert any(text_of(cell)) and executed[cell.id] == text_of(cell), f"run `make results`: {cell.source[:80]!r} of {name} does not say what the records say"


def test_the_run_page_shows_a_committed_record():
    shown = "".join("".join(filter(None, text_of(c))) for c in PAGES["train.ipynb"].cells if c.cell_type == "code")
    demo = json.loads((ROOT / "inrformer" / "demo" / "record.json").read_text())
    assert set(demo.pop("files")) == set(PARTS), "the record of the demo says what else is in it"
    committed = next((r for r in records("digits") if r["run_id"] == demo["run_id"]), None)
    assert committed == demo, "run `make demo`: figures/records has not the run whose model ships"
    assert flat(demo["config"])["head"] == "translate" and demo["reads"] == "target INR", "index.ipynb says what the shipped head reads"
    assert demo["run_id"] in shown, "run `make demo`: train.ipynb shows another run"
    for key, value in demo["summary"].items():
        assert f"{value:.4g}" in shown if isinstance(value, float) else str(value) in shown, f"run `make demo`: train.ipynb shows another {key}"
    errors = [o for c in PAGES["train.ipynb"].cells if c.cell_type == "code" for o in c.outputs if o.output_type in ("error", "stream")]
    assert not errors, "train.ipynb holds progress bars or errors"


def test_published_numbers_have_a_source():
    with open(ROOT / "figures" / "published.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"Table 1", "Table 2", "Table 3"} <= {r["table"] for r in rows}
    for r in rows:
        assert 10 < float(r["accuracy"]) < 100 and r["protocol"] and r["source"], r
    _, configs = experiment("table3", "cifar10-full")
    named = {r["row"] for r in rows if r["table"] == "Table 3"}
    assert len(named) == 9 and {pair.row for pair in paired(configs, [])} == named - {"baseline", "other inits"}


def answers(right, n=1000):
    "Answers to n INRs, of which the first are right."
    return dict(answers=[int(k < right) for k in range(n)], labels=[1] * n, ids=list(range(TEST_IDS, TEST_IDS + n)))


def reads_of(cfg):
    "What the answers of a config's reader come from, which its choices tell."
    reader = object.__new__(READERS[cfg.reader])
    vars(reader)["config"] = cfg.architecture
    return reader.reads


def made_up(rows, right=lambda k: 500 + k):
    "Records whose right answers, of a thousand, count up, as if every row had run."
    found = []
    for k, row in enumerate(rows):
        cfg = config_from(row)
        config = identity(cfg)
        if cfg.inputs.dataset != "digits":
            config["inputs"]["dataset"] = "made-up"
        summary = dict(test_edit_made=right(k) / 1000, test_edit_affine=0.1, val_accuracy=0.4, test_accuracy=right(k) / 1000, test_other_accuracy=right(k) / 2000, psnr=30.0, psnr_test=30.0, parameters=1000 * (k + 1), protocol=cfg.protocol,
                       train_seconds=60.0, dataset="made-up", fit_seconds=1.0)
        found.append(dict(
            run_id=run_id(cfg), config=config, env=dict(threads=1, processes=1, torch="made up", device="made up", precision="fp32"), source=source_digest(cfg.reader, cfg.objective, "siren"), inrs=dict(kind="siren", recipe="r", bits="b"),
            reads=reads_of(cfg), summary=summary, history=[dict(epoch=e, cross_entropy=1 / e, val_cross_entropy=1.5, crop_error=1 / e, val_accuracy=0.4, lr=2e-3) for e in (1, 2)],
            answers={"test": answers(right(k)), "test-other": answers(right(k) // 2)}))
    return found


RESULTS = ("ablations.ipynb", "index.ipynb", "readers_table.ipynb", "beyond.ipynb")


def shown(tree):
    "What the cells of each page of results say in words, by their labels, executed in that tree."
    return [{option(c, "label") or c.id: "".join(filter(None, text_of(c))) for c in cells} for cells in execute(RESULTS, tree).values()]


EXECUTED = [(name, protocol) for name in EXPERIMENTS for protocol in protocols_of(name)]


def test_the_results_pages_show_whatever_is_on_record(tree):
    "With a record of every row, one failure and one run of other source, no row is missing but the failed one, and the numbers are those of the records."
    for path in (tree / "figures" / "records").glob("*.jsonl"):
        path.unlink()
    for name, protocol in EXECUTED:
        label, rows = experiment(name, protocol)
        found = made_up(rows)
        if label == "table3-cifar10-small":
            found[2] = {k: found[2][k] for k in ("run_id", "config")} | dict(summary=None, error="MemoryError: too small")
            found[1]["source"] = "of another day"
        if label == "digits":
            found[-1]["summary"]["val_accuracy"] = None
        if name == "unread":
            for given in (r["answers"]["test"] for r in found):
                given["ids"] = [k + 500 for k in given["ids"]]
        (tree / "figures" / "records" / f"{label}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found))
    cells, index, readers, beyond = shown(tree)
    assert "not yet run" not in "".join(text for label, text in cells.items() if label.startswith(("tbl-", "fig-")))
    small = cells["tbl-table3-small"]
    assert "failed: MemoryError: too small" in small and "made-up" in small and "other source: 1 of 3 runs" in small
    _, rows = experiment("table3", "digits")
    mean = sum(0.5 + 0.001 * k for k, row in enumerate(rows) if row.get("aux") is False) / 5
    assert f"{100 * mean:.2f} (" in cells["tbl-table3-digits"] and "+0.10 (" in cells["tbl-table3-digits"]
    assert "25.00" in cells["tbl-table3-full"] and "one seed: no verdict" in cells["tbl-table3-full"], "the last row is the first row's runs on other inits"
    assert re.search(r"-0\.1 \([^;]*on 8×8 digits, one shared start", cells["f0und008"]) and "What of it is attention?" in cells["f0und008"] and "Who reads most?" in cells["f0und008"] and "INRFormer, size tiny, reads 50.0 %" in cells["982ad4c6"] and "Not yet run" not in cells["f0und002"]
    assert "In the paper 3.1 points, -0.1 on `digits`" in cells["de69f976"] and "Does it still learn?" in cells["de69f976"]
    assert "better" in "".join(cells.values()) and "<details>" in cells["tbl-ids"] and run_id(config_from(rows[0])) in cells["tbl-ids"]
    assert "100.00" in cells["tbl-unread"] and "1.20" in cells["tbl-unread"], "all of the known images, and 0, 6 and 12 of the 500 others"
    assert "fit 5" in cells["tbl-refits"] and "all 5" in cells["tbl-refits"] and "DeepSets − INRFormer" in cells["tbl-refits"]
    assert "not yet run" not in index["tbl-measured"]
    assert "not yet run" not in "".join(text for label, text in readers.items() if label.startswith(("tbl-", "fig-")))
    of_a_zoo = ("tbl-adapt", "tbl-own", "tbl-regress", "fig-beyond")  # whose records no experiment can make up without a folder
    assert "not yet run" not in "".join(text for label, text in beyond.items() if label.startswith(("tbl-", "fig-")) and label not in of_a_zoo)
    assert "95.2" in beyond["tbl-pairs-mnist"] and "views: starts" in beyond["tbl-views"] and "not told apart" in beyond["tbl-questions"] + beyond["tbl-edit"]
    assert "INRFormer is right in" in readers["1ead0001"] and "not ranked" in readers["tbl-authors"]
    assert "NG-T, 64 probes" in readers["tbl-matched"]
    assert "+1.90 (+0.82 to +2.98)" in readers["tbl-verdicts"] and "not told apart" in readers["tbl-verdicts"] and "one seed: no verdict" in readers["tbl-verdicts"]


def test_without_records_everything_is_not_yet_run(tree):
    for path in (tree / "figures" / "records").glob("*.jsonl"):
        path.unlink()
    for label, text in (said for page in shown(tree) for said in page.items()):
        if label.startswith("tbl-") and label not in ("tbl-others", "tbl-tried", "tbl-trials", "tbl-first-rows"):  # of the literature, of trials and of configs
            assert re.search("not yet run", text, re.I), f"{label} has numbers from nowhere"


def test_the_results_open_with_what_was_found():
    "Sentences and one figure come first; rows that nobody has run stand last; no row or column is called as in code."
    said = [(option(c, "label"), "".join(filter(None, text_of(c)))) for c in PAGES["ablations.ipynb"].cells if c.cell_type == "code" and c.outputs]
    assert re.search("INRFormer, size tiny, reads .* of the test INRs right|Nothing has been run", said[0][1]) and said[0][1].count(". ") <= 2 and [label for label, _ in said if label][:2] == ["fig-found", "tbl-found"]
    for label, table in said:
        rows = re.findall("<tr.*?</tr>", table, re.S)
        missing = [bool(re.search(">0 of", row)) for row in rows if "<td>" in row]
        assert missing == sorted(missing), f"{label}: an empty row above another"
        assert label == "tbl-tried" or not re.search(r"<th>(?!CIFAR)[^<]*(_[a-z]|\b(head|reader|depth) \w)", table or ""), f"{label} names rows as code does"


def test_the_readme_shows_how_it_is_used_and_not_how_it_was_made():
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert code and not [part for part in code if "def " in part or "records" in part]


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / "README.md").read_text())
    assert len(links) > 30
    assert not [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]


def test_workflows_pin_their_actions():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        used = re.findall(r"uses: *(\S+)", path.read_text())
        assert used and all(re.search(r"@[0-9a-f]{40}$", action) for action in used), path.name
        assert yaml.safe_load(path.read_text())["permissions"] == dict(contents="read"), path.name


def test_pages_are_light():
    for path in NOTEBOOKS:
        assert Path(path).stat().st_size < 800_000, f"{path.name} is too large to read over a slow line"
