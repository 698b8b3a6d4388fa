import os
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from jaxtyping import install_import_hook
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

# from here on the shapes and types in inrformer's signatures are checked at every call
install_import_hook(["inrformer", "toys"], "beartype.beartype")

ROOT = Path(__file__).resolve().parent.parent

# kinds, readers and objectives of our own register themselves when they are imported, and the battery runs on them too
for path in sorted((ROOT / "tests" / "toys").glob("*.py")):
    import_module(f"toys.{path.stem}")


def alone_at_runs() -> FileLock:
    "Held by a test that makes, or opens, the run of `make train` in the project's own `runs`: two at a time would find it busy."
    (ROOT / "runs").mkdir(exist_ok=True)
    return FileLock(ROOT / "runs" / ".tests.lock")


def parameterized(page: Path, **values: object) -> list[str]:
    "The code cells that `papermill PAGE -p name value` executes."
    notebook = parameterize_notebook(load_notebook_node(str(page)), values, kernel_name="python3", language="python")
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    "The folder of real image tables, in the Hub's parquet schema: `mnist-train.parquet` and others."
    folder = Path(os.environ.get("INRFORMER_SHARED", ROOT.parent / "shared" / "data"))
    if not any(folder.glob("*.parquet")):
        pytest.skip("needs image parquet files: set INRFORMER_SHARED to their folder")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    "A folder of the test's own, in which downloads and fitted INRs are kept."
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path


APART = r"gives no INR for an INR|gives an INR for an INR with edits=True alone|has no decoder and shows nothing of an INR"  # why a reader cannot be trained for an objective


def go_together(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    "What is made of an objective and a reader; where that reader cannot be trained for it, and it is said why, the test is skipped."
    try:
        return make(*args, **kwargs)
    except ValueError as error:
        if not re.search(APART, str(error)):
            raise
        pytest.skip(str(error))
