"The workbench as a person meets it: JupyterLab and Voila in a real browser."

import io
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from PIL import Image

from inrformer.demo import load_demo
from inrformer.inspection import TOLERANCE, demo_source
from inrformer.readers.inrformer import BROKEN
from inrformer.steps import write_steps

BIN = Path(sys.executable).parent
PATIENCE = 180  # seconds; a busy machine is slow, and nothing here measures speed
STAGES = {  # where each variant breaks first
    "neuron-index embedding": "nodes", "per-entry statistics": "weight embedding", "attention masks a neuron": "block 2: attention", "untied permutation": "image",
}
# anywidget gives a widget two seconds to start and a busy page may need more: Chart is built not to mind
SLOW = r"\[anywidget\] Failed to initialize model"
# Voila's page looks for fonts on the internet, and complains of JupyterLab extensions that it cannot use
VOILA = SLOW + r"|net::ERR_|Failed to load resource|The getter for the shared module is not a function"

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def settings(home: Path) -> None:
    "JupyterLab without its news, and with every cell in the page, seen or not."
    for name, text in {"apputils-extension/notification": '{"fetchNews": "false"}', "notebook-extension/tracker": '{"windowingMode": "none"}'}.items():
        path = home / ".jupyter/lab/user-settings/@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def serve(command: list[str], port: int, home: Path, cwd: Path = ROOT) -> Iterator[Path]:
    "Run a server until the test is over; gives the file it writes to."
    log = home / "server.log"
    env = os.environ | dict(HOME=str(home), PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'tests'}", OMP_NUM_THREADS="1")
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + PATIENCE
        while not answers(port):
            assert server.poll() is None and time.monotonic() < end, f"the server does not answer:\n{log.read_text()}"
            time.sleep(0.3)
        yield log
    finally:
        server.terminate()
        server.wait(30)


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/login", timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, a dev extra")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"needs a browser: none of {names} is on PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    "A page of 1280 by 800 pixels, with every error of its console in `page.errors`."
    page = chromium.new_page(viewport=dict(width=1280, height=800))
    page.set_default_timeout(1000 * PATIENCE)
    page.errors = []
    page.on("console", lambda message: message.type == "error" and page.errors.append(message.text))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    page.close()


@pytest.fixture
def lab(port, tmp_path):
    "JupyterLab as `make lab` starts it, on a copy of the workbench."
    settings(tmp_path)
    tree, token = tmp_path / "tree", secrets.token_hex(16)
    (tree / "nbs").mkdir(parents=True)
    for name in ("settings.ini", "nbs/workbench.ipynb"):
        shutil.copy(ROOT / name, tree / name)
    hook = "--FileContentsManager.pre_save_hook=inrformer.saving.forget_widgets"
    command = [str(BIN / "jupyter-lab"), "--no-browser", "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={token}", "--ServerApp.allow_root=True", hook]
    for log in serve([*command, f"--ServerApp.root_dir={tree}", "--FileContentsManager.delete_to_trash=False"], port, tmp_path, tree):
        yield f"http://127.0.0.1:{port}/lab/tree/nbs/workbench.ipynb?reset&token={token}", log, tree


WIDE = """
import inrformer.widgets
from bench import INRSpec, reader_of, source_of

known = inrformer.widgets.sources


def wide(*widths):
    return lambda: source_of(reader_of(INRSpec(widths=widths, omega=8.0)), 6, f"Layers of {widths[1]} neurons.")


inrformer.widgets.sources = lambda: known() | {"wide": wide(2, 32, 32, 3), "wider": wide(2, 64, 64, 64, 1), "widest": wide(2, 128, 128, 1)}
"""


@pytest.fixture
def voila(port, tmp_path):
    "The workbench as `make app` serves it; its list of models has three more, of untrained weights and wide layers."
    token, notebook = secrets.token_hex(16), nbformat.read(ROOT / "nbs/workbench.ipynb", 4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(WIDE))
    nbformat.write(notebook, tmp_path / "workbench.ipynb")
    command = [str(BIN / "voila"), str(tmp_path / "workbench.ipynb"), "--no-browser", "--Voila.ip=127.0.0.1", f"--port={port}", f"--token={token}"]
    for log in serve(command, port, tmp_path):
        yield f"http://127.0.0.1:{port}/?token={token}", log


def chart(page, alt: str):
    "The chart whose description begins so."
    return page.locator(f'.js-plotly-plot[aria-label^="{alt}"]').first


def bars(page) -> dict[str, float]:
    "The errors that the bars of panel 3 show."
    return chart(page, "Relative error").evaluate("chart => Object.fromEntries(chart.data[0].y.map((name, k) => [name, chart.data[0].x[k]]))")


def wait_for(page, text: str) -> None:
    page.locator('[role="status"]', has_text=text).first.wait_for()


def run_all(page) -> None:
    "Run every cell, again if the kernel was not listening yet, and wait for the end."
    page.locator("text=/\\| Idle/").wait_for()
    for _ in range(3):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_timeout(5000)
        if page.locator(".jp-InputPrompt", has_text=re.compile(r"\[(\*|\d+)\]")).count():
            break
    chart(page, "An image of").wait_for()
    page.wait_for_function("[...document.querySelectorAll('.jp-InputPrompt')].every(prompt => !prompt.innerText.includes('*'))")


def move_slider(page, panel: str, presses: int) -> None:
    "Press the right arrow on the slider of a panel."
    handle = page.locator(".widget-hslider:visible", has_text=panel).first.locator(".noUi-handle")
    handle.scroll_into_view_if_needed()
    handle.focus()
    for _ in range(presses):
        page.keyboard.press("ArrowRight")


def uncaught(page, log: Path, harmless: str) -> list[str]:
    "Errors of the page and tracebacks of kernel and server."
    found = [error for error in page.errors if not re.search(harmless, error)]
    return found + [line for line in log.read_text().splitlines() if "Traceback" in line]


def go(page, tab: str) -> None:
    page.get_by_role("tab", name=tab, exact=True).click()


def visible(what) -> bool:
    "Is all of it on the screen, without scrolling anything that it stands in?"
    return what.evaluate("part => new Promise(done => new IntersectionObserver(([seen]) => done(seen.intersectionRatio > 0.99)).observe(part))")


WATCH = """chart => {
  globalThis.places = new Set();
  (function look() {
    places.add([...chart.querySelectorAll(".textpoint text")].map(text => text.getAttribute("transform") + text.getAttribute("y")).join());
    requestAnimationFrame(look);
  })();
}"""


def check_permute(page) -> None:
    go(page, "permute")
    networks, weights = chart(page, "An INR of widths (2, 12, 12, 1) as a layered graph, before"), chart(page, "Weights and biases of before and after")
    networks.wait_for()
    drawn = "chart => [...chart.querySelectorAll('.heatmaplayer image')].map(image => image.getAttribute('href') ?? image.getAttribute('xlink:href')).join()"
    weights.wait_for()
    still = weights.evaluate(drawn)
    networks.evaluate(WATCH)
    for count in range(1, 13):
        move_slider(page, "transpositions", 1)
        wait_for(page, f"{count} transposition")
    page.wait_for_function("() => places.size > 14")  # more than one for each step: neurons glide
    page.wait_for_function("label => label.getAttribute('aria-label').includes('e-1')", arg=chart(page, "An INR's image before and after").element_handle())
    assert still and weights.evaluate(drawn) != still, "the weights did not move"
    difference = float(re.search(r"at most (\S+)", chart(page, "An INR's image before and after").get_attribute("aria-label"))[1])
    assert 0 < difference < TOLERANCE
    assert visible(networks) and visible(chart(page, "An INR's image before and after")), "after is out of sight"


def check_equivariance(page) -> None:
    go(page, "equivariance")
    wait_for(page, "Equivariant")
    chart(page, "Relative error").wait_for()
    errors = bars(page)
    assert len(errors) == 10 and max(errors.values()) < TOLERANCE, errors
    assert set(STAGES) == set(BROKEN)
    for name, stage in STAGES.items():
        page.get_by_role("button", name=name).click()
        wait_for(page, f"Broken first at: {stage}")
        page.wait_for_function("([chart, stage]) => chart.data[0].x[chart.data[0].y.indexOf(stage)] > 1e-10", arg=[chart(page, "Relative error").element_handle(), stage])
        errors = bars(page)
        assert all(error < TOLERANCE for error in list(errors.values())[: list(errors).index(stage)]), errors
        assert errors["logits"] > TOLERANCE, "what is spoilt does not reach the logits"


def check_crop(page) -> None:
    go(page, "crop")
    crop = chart(page, "A crop of an image")
    crop.wait_for()
    outline = "chart => chart.layout.shapes[0].y0"
    top = crop.evaluate(outline)
    crop.focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("([chart, top]) => chart.layout.shapes[0].y0 > top + 1", arg=[crop.element_handle(), top])
    left, box = crop.evaluate("chart => chart.layout.shapes[0].x0"), crop.evaluate("chart => { const { l, t, w, h } = chart._fullLayout._size, box = chart.getBoundingClientRect(); return [box.x + l, box.y + t, w, h]; }")
    page.mouse.move(box[0] + 0.1 * box[2], box[1] + 0.5 * box[3])
    page.mouse.down()
    page.mouse.move(box[0] + 0.2 * box[2], box[1] + 0.5 * box[3], steps=5)
    page.mouse.up()
    page.wait_for_function("([chart, left]) => Math.abs(chart.layout.shapes[0].x0 - left) > 1 && !chart.querySelector('.zoombox')", arg=[crop.element_handle(), left])


def check_own_image(page) -> None:
    go(page, "own image")
    canvas = page.locator("canvas")
    canvas.wait_for()
    box = canvas.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in ((0.3, 0.2), (0.7, 0.2), (0.5, 0.8))]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()
    wait_for(page, "Step 90 of 90")
    wait_for(page, "an image of your own")
    for _ in range(2):
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="upload", exact=True).click()
        chooser.value.set_files(dict(name="a.png", mimeType="image/png", buffer=b"none"))
        wait_for(page, "no readable image")
        page.get_by_role("button", name="clear").click()
        wait_for(page, "Draw into the black square")
    grey = io.BytesIO()
    Image.new("L", (9, 9), 100).save(grey, "png")
    assert canvas.evaluate(DROP, list(grey.getvalue())) == [False, False], "the page would open the file instead"
    wait_for(page, "Step 90 of 90")


DROP = """(canvas, bytes) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([new Uint8Array(bytes)], "a.png", { type: "image/png" }));
  return ["dragover", "drop"].map((type) => canvas.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer })));
}"""


def wrong_in_demo() -> int:
    "How many test INRs the shipped reader gets wrong, as it is on record."
    given = load_demo().record["answers"]["test"]
    return sum(answer != label for answer, label in zip(given["answers"], given["labels"]))


def check_others(page) -> None:
    go(page, "two INRs")
    wait_for(page, "the error rises by")
    go(page, "touch")
    page.get_by_label("silence it").click()
    wait_for(page, "is silent")
    go(page, "gallery")
    page.get_by_role("button", name="wrong").click()
    page.wait_for_function("document.querySelector('.js-plotly-plot[aria-label*=\"test images\"]')?.querySelectorAll('.points .point').length > 3")
    chart(page, f"{wrong_in_demo()} test images").locator(".nsewdrag").first.click(force=True)
    wait_for(page, "which is wrong")


def test_workbench_in_jupyterlab(page, lab):
    url, log, tree = lab
    page.goto(url)
    page.locator(".jp-Notebook").wait_for()
    run_all(page)
    assert visible(page.get_by_role("tab", name="permute", exact=True)), "the panels are out of sight"
    for check in (check_permute, check_equivariance, check_crop, check_own_image, check_others):
        check(page)
    assert not page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr'], .jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+s")
    page.locator(".jp-mod-dirty").wait_for(state="detached", timeout=20_000)
    assert (tree / "nbs/workbench.ipynb").read_bytes() == (ROOT / "nbs/workbench.ipynb").read_bytes(), "saving changes the notebook"
    assert not uncaught(page, log, SLOW)


def overlaps(page) -> list[str]:
    "Titles, names and numbers of figures that print over each other, within each figure."
    return page.evaluate("""() => [...document.querySelectorAll(".js-plotly-plot")].filter(chart => chart.offsetParent).flatMap(chart => {
      const boxes = [...chart.querySelectorAll(".annotation-text, .textpoint text, .xtick text")].filter(text => text.textContent).map(text => [text.textContent, text.getBoundingClientRect()]);
      return boxes.flatMap(([a, p], k) => boxes.slice(k + 1).filter(([b, q]) => p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 1 && q.top < p.bottom - 1).map(([b]) => `${a} / ${b}`));
    })""")


def nameless(page) -> list[str]:
    "What can be reached with the Tab key and has no name that a screen reader reads."
    return page.evaluate("""() => [...document.querySelectorAll("a[href], button, input, select, textarea, [tabindex], [contenteditable=true]")].filter(part => part.offsetParent && part.tabIndex >= 0)
      .filter(part => !(part.ariaLabel || part.title || [...(part.labels ?? [])].map(label => label.textContent).join("") || (part.matches(".noUi-handle, input, select") ? "" : part.textContent.trim()))).map(part => part.outerHTML.slice(0, 100))""")


def dead(page) -> list[str]:
    "Links to be seen that do not answer."
    return [link for link in page.locator("a[href]:visible").evaluate_all("links => links.map(link => link.href)") if not page.request.get(link).ok]


def check_reach(page) -> None:
    "Everything has a name, and the Tab key meets what is at the top first."
    for tab in ("permute", "crop", "gallery", "touch", "edit", "INR"):
        go(page, tab)
        page.wait_for_timeout(500)
        assert not nameless(page), f"{tab}: controls without a name"
    assert page.evaluate("[...document.querySelectorAll('select')].every(list => getComputedStyle(list).backgroundImage.includes('7a7a7a'))"), "the arrow of a list is black, which a dark page swallows"
    page.get_by_label("model", exact=True).focus()
    met = []
    for _ in range(3):
        met.append(page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.labels?.[0]?.textContent ?? ''"))
        page.keyboard.press("Tab")
    assert met[:2] == ["model", "test image"], met


def check_refusal(page) -> None:
    "A number typed beyond the ends of a slider is refused in words, until the next key; one between them is taken."
    go(page, "INR")
    side = page.locator(".widget-hslider:visible", has_text="points per side").locator(".widget-readout")
    for typed, leave in (("4096", "Enter"), ("-3", "Tab"), ("many", "Enter")):
        side.fill(typed)
        page.keyboard.press(leave)
        page.get_by_role("alert").filter(has_text=f"“{typed}” is refused: this goes from 4 to 256").wait_for()
        assert side.inner_text() == "64"
    side.fill("128")
    page.keyboard.press("Enter")
    page.wait_for_function("chart => chart.querySelectorAll('.annotation-text')[1].textContent.includes('128')", arg=chart(page, "An image of").element_handle())
    assert not page.get_by_role("alert").count()
    go(page, "crop")
    row = page.locator(".widget-hslider:visible", has_text="centre, row").locator(".widget-readout")
    row.focus()
    page.keyboard.press("Tab")
    assert not page.get_by_role("alert").count(), "a negative number is left as it is, though its sign is no hyphen"
    row.fill("-0.3")
    page.keyboard.press("Enter")
    page.wait_for_function("row => row.textContent.endsWith('0.30')", arg=row.element_handle())
    row.fill(row.inner_text().replace("0.30", "0.20"))
    page.keyboard.press("Enter")
    page.wait_for_function("row => row.textContent.endsWith('0.20')", arg=row.element_handle())
    assert not page.get_by_role("alert").count()


def check_edit(page) -> None:
    "An editor learns at the press of a button and rests at the next; the slider edits, and the edit follows the permutation."
    go(page, "edit")
    wait_for(page, "Press train")
    page.get_by_role("button", name="train").click()
    chart(page, "The share of the change").wait_for()
    page.wait_for_function("[...document.querySelectorAll('.js-plotly-plot[aria-label^=\"The share\"]')].some(chart => chart._fullData[0].x.at(-1) >= 40)")
    page.get_by_role("button", name="pause").click()
    page.get_by_role("button", name="go on").wait_for()
    images = chart(page, "An INR's image before an edit")
    drawn = "chart => [...chart.querySelectorAll('.imagelayer image')].map(image => image.getAttribute('href') ?? image.getAttribute('xlink:href')).join()"
    whole = images.evaluate(drawn)
    move_slider(page, "strength", 6)
    wait_for(page, "At strength 1.30")
    page.wait_for_function(f"([chart, whole]) => ({drawn})(chart) !== whole", arg=[images.element_handle(), whole])
    move_slider(page, "transpositions", 2)
    wait_for(page, "is the permuted edit")
    page.get_by_role("button", name="take it to all tabs").click()
    page.get_by_role("button", name="undo").click()
    wait_for(page, "At strength 1.30")


def check_saving(page) -> None:
    "The buttons of a figure give its picture in two formats, and its numbers."
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    go(page, "INR")
    network = chart(page, "An INR of widths")
    for format, start in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
        network.hover()
        with page.expect_download() as download:
            network.locator(f'[data-title="save as {format}"]').click()
        assert download.value.suggested_filename == f"An-INR-of-widths-2-12-12-1-as-a-lay.{format.lower()}"
        assert Path(download.value.path()).read_bytes().startswith(start)
    network.locator('[data-title="copy the data"]').click()
    page.wait_for_function("async () => (await navigator.clipboard.readText()).startsWith('[')")
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied == network.evaluate("chart => JSON.parse(JSON.stringify(chart.data))") and len(copied) > 10
    page.get_by_text("this state as code").click()
    page.get_by_role("button", name="copy", exact=True).click()
    page.wait_for_function("async () => (await navigator.clipboard.readText()).startsWith('import torch')")
    assert 'bench.go(\'INR\')' in page.evaluate("navigator.clipboard.readText()")
    page.get_by_text("this state as code").click()


def check_wide(page) -> None:
    "Layers of 32 neurons and more: every n-th number, and nothing over anything."
    page.get_by_label("model", exact=True).select_option("wide")
    wait_for(page, "Layers of 32 neurons")
    network = chart(page, "An INR of widths (2, 32, 32, 3)")
    network.locator(".textpoint text", has_text="30").first.wait_for()
    named = network.locator(".textpoint text").all_text_contents()
    assert named[2:18] == [str(k) for k in range(0, 32, 2)], named
    check_hover(page, network)
    for model, count in (("wide", 32), ("wider", 64), ("widest", 128)):
        page.get_by_label("model", exact=True).select_option(model)
        wait_for(page, f"Layers of {count} neurons")
        for tab in ("permute", "attention", "INR"):
            go(page, tab)
            page.locator(".js-plotly-plot:visible").first.wait_for()
            page.wait_for_timeout(1000)
            assert not overlaps(page), f"{model}, {tab}"


SPOT = """(chart, k) => {
  chart.scrollIntoView({ block: "center" });
  const { xaxis, yaxis } = chart._fullLayout, box = chart.getBoundingClientRect();
  const layer = chart._fullData.find(trace => trace.mode === "markers+text" && trace.x[0] === 1);
  return [box.x + xaxis._offset + xaxis.d2p(layer.x[k]), box.y + yaxis._offset + yaxis.d2p(layer.y[k])];
}"""


def check_clicks(page) -> None:
    "A click on a weight is no error, and one on a neuron chooses it."
    go(page, "INR")
    weights = chart(page, "Weights and biases of the INR")
    weights.evaluate("chart => { chart.told = []; chart.on('plotly_click', ({ points: [at] }) => chart.told.push(typeof at.customdata)); }")
    weights.locator(".nsewdrag").first.click()
    page.wait_for_function("chart => chart.told.includes('number')", arg=weights.element_handle())
    go(page, "attention")
    network = page.locator('.js-plotly-plot[aria-label^="An INR of widths"]:visible')
    network.locator(".textpoint text").first.wait_for()
    page.mouse.click(*network.evaluate(SPOT, 5))
    wait_for(page, "that neuron 5 of hidden layer 1 may hear")
    assert not [error for error in page.errors if not re.search(VOILA, error)]


def check_hover(page, network) -> None:
    "Pointing at the 31st neuron gives its name, black on light, and its own 2 + 32 lines."
    x, y = network.evaluate(SPOT, 30)
    page.mouse.move(x - 60, y)
    page.mouse.move(x, y, steps=5)
    tip = network.locator(".hoverlayer .hovertext", has_text="hidden layer 1, neuron 30")
    tip.wait_for()
    assert [tip.locator(part).first.evaluate("part => getComputedStyle(part).fill") for part in ("path", "text")] == ["rgb(238, 238, 238)", "rgb(0, 0, 0)"]
    page.wait_for_function("chart => chart._fullData.at(-1).x.length === 3 * 34", arg=network.element_handle())
    page.mouse.move(x - 60, 5)
    page.wait_for_function("chart => chart._fullData.at(-1).x.length === 0", arg=network.element_handle())


def test_a_page_of_steps_needs_nothing_beside_it(page, tmp_path):
    write_steps(tmp_path / "steps.html", demo_source().scene(0))
    assert (tmp_path / "steps.html").stat().st_size < 1_000_000
    page.context.set_offline(True)
    page.goto((tmp_path / "steps.html").as_uri())
    places = "[...document.querySelectorAll('#networks .neuron tspan')].map(text => text.getAttribute('y')).join()"
    before = page.evaluate(places)
    page.get_by_label("transpositions").focus()
    for _ in range(22):
        page.keyboard.press("ArrowRight")
    wait_for(page, "22 transpositions")
    wait_for(page, "Equivariant")
    page.wait_for_function(f"before => {places} !== before", arg=before)
    assert page.locator("#networks .neuron").count() == page.locator("#networks circle title").count() - 4 == 2 * (2 + 12 + 12 + 1), "a network is not drawn"
    drawn = page.locator("#networks path").evaluate_all("paths => paths.map(path => path.getAttribute('d').split('M').length - 1).reduce((a, b) => a + b)")
    assert drawn == 2 * (2 * 12 + 12 * 12 + 12), "a weight has no line"
    bars = page.locator("#bars > svg > text").all_text_contents()
    for name, stage in STAGES.items():
        page.get_by_label("what if").select_option(name)
        wait_for(page, f"Broken first at: {stage}")
        assert page.locator("#bars [fill='url(#hatch)']").count() > 0 and stage in bars
    assert page.evaluate(places) != before and not page.errors


def test_workbench_in_voila(page, voila):
    url, log = voila
    port = url.split(":")[2].split("/")[0]
    page.goto(f"http://127.0.0.1:{port}/")
    assert "/login" in page.url, "the app opens without its token"
    page.goto(url, wait_until="commit")
    page.get_by_text("under your hand").wait_for()
    assert page.locator("#loading").is_visible(), "the app says nothing before its panels"
    assert not page.get_by_text("Run All Cells").is_visible(), "an app has no such menu"
    chart(page, "An image of").wait_for()
    assert not dead(page), "links that lead nowhere"
    check_clicks(page)
    check_reach(page)
    check_saving(page)
    check_refusal(page)
    check_edit(page)
    go(page, "equivariance")
    move_slider(page, "transpositions", 3)
    wait_for(page, "Equivariant")
    chart(page, "Relative error").wait_for()
    assert max(bars(page).values()) < TOLERANCE
    page.get_by_role("button", name="untied permutation").click()
    wait_for(page, "Broken first at: image")
    for size in (dict(width=853, height=533), dict(width=800, height=700)):
        page.set_viewport_size(size)
        for tab in ("permute", "INR", "two INRs", "edit"):
            go(page, tab)
            page.wait_for_timeout(1000)
            assert not overlaps(page)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"
            assert page.evaluate("[...document.querySelectorAll('.inrformer-tabs .lm-TabBar-tabLabel')].every(name => name.scrollWidth <= name.clientWidth)"), "the name of a tab is cut"
    page.set_viewport_size(dict(width=1280, height=800))
    go(page, "INR")
    check_wide(page)
    assert not page.locator("text=Traceback").count() and not uncaught(page, log, VOILA)
