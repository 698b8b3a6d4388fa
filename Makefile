# Every target works on a fresh machine with Python 3.11 or newer: what is missing goes into .venv first.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/installed

# `make train HINT=64` becomes hint=64, whatever the name: the library knows its fields, and refuses others with the nearest.
# Only the command line counts, not the environment.
lower = $(shell echo $1 | tr A-Z a-z)
quoted = '$(subst ','\'',$($1))'
GIVEN := $(filter-out PYTHON BIN,$(foreach v,$(.VARIABLES),$(if $(findstring command line,$(origin $v)),$v)))
ifneq ($(GIVEN),)
ifneq ($(filter-out train,$(or $(MAKECMDGOALS),help)),)
$(error $(GIVEN): only `make train` takes parameters)
endif
endif

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

train: $(READY)  ## fit INRs and train a reader of weights; make train HINT=64 DATASET=mnist passes parameters on
	@mkdir -p runs
	@$(BIN)/python -m inrformer train --page runs/train.ipynb $(foreach v,$(GIVEN),$(call lower,$v)=$(call quoted,$v))

test: $(READY)  ## run every notebook and every test
	OMP_NUM_THREADS=1 $(BIN)/nbdev_test --n_workers 2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
	@echo "All notebooks and all tests pass."

test-all: test  ## the same, and the full grid of shapes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m grid

demo: $(READY)  ## train the model that ships in inrformer/demo again, record it, and show its run in nbs/train.ipynb
	$(BIN)/python -m inrformer demo
	$(BIN)/jupyter-nbconvert --log-level ERROR --to notebook --execute --inplace nbs/train.ipynb
	$(BIN)/nbdev_clean --fname nbs/train.ipynb

results: $(READY)  ## execute the pages that show records again, after new ones
	$(BIN)/jupyter-nbconvert --log-level ERROR --to notebook --execute --inplace $(addprefix nbs/,index.ipynb tour.ipynb ablations.ipynb readers_table.ipynb beyond.ipynb config.ipynb howto.ipynb verify.ipynb)
	$(BIN)/nbdev_clean
	$(MAKE) readme

lab: $(READY)  ## open the workbench, and the other notebooks, in JupyterLab
	$(BIN)/python -m inrformer workbench

app: $(READY)  ## serve the workbench alone, as an app on this machine
	$(BIN)/python -m inrformer workbench --app

figures: $(READY)  ## write figures/fig_*.png and figures/steps.html (needs Chromium)
	$(BIN)/python -m inrformer figures

export: $(READY)  ## after an edit: notebooks to modules and paired text, cleaned
	find nbs -path '*/_py/*.py' -exec $(BIN)/jupytext --sync {} +
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean

readme: $(READY)  ## README.md from nbs/index.ipynb (tags: remove_cell, remove_input)
	$(BIN)/jupyter-nbconvert --log-level WARN --to markdown nbs/index.ipynb --output-dir build --output README \
	  --TagRemovePreprocessor.enabled=True --TagRemovePreprocessor.remove_cell_tags remove_cell \
	  --TagRemovePreprocessor.remove_input_tags remove_input
	sed -e '/^#|/d' -e 's/[[:space:]]*$$//' -e 's#](\.\./#](#g' -e 's|](\([0-9a-z_/]*\.ipynb[^)]*\))|](nbs/\1)|g' build/README.md \
	  | cat -s | awk '/^```/ { if (!code && $$0 == "```") $$0 = "```python"; code = !code } NR > 1 || /./' > README.md

# without Quarto, nbdev's own doc commands would try to install it, and the library, outside .venv
docs: readme  ## render the site into _docs (needs Quarto)
	@command -v quarto >/dev/null || { echo "The site is rendered by Quarto, which is not on PATH: see https://quarto.org/docs/get-started"; exit 1; }
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/nbdev_docs
	@# what pages show or link to above nbs/, and the source that nbdev links to, goes along
	tar c --exclude __pycache__ --exclude demo inrformer figures LICENSE CITATION.cff CONTRIBUTING.md | tar x -C _docs
	sed -i.bak -e 's#="\.\./#="#g' -e 's#="\(\./\|/\)blob/main/#="#g' _docs/*.html
	sed -i.bak -e 's#="\.\./\.\./#="../#g' -e 's#="\(\.\./\|/\)blob/main/#="../#g' _docs/*/*.html
	find _docs -name '*.bak' -delete
	@echo "The site: _docs/index.html"

hooks: $(READY)  ## once per clone: nbdev's git and Jupyter hooks
	$(BIN)/nbdev_install_hooks
	@echo "This wrote .git/hooks/post-merge, .git/config and, for all your notebooks, ~/.jupyter/jupyter_{server,notebook}_config.py."
	@echo "The hooks call nbdev: activate .venv before git merges notebooks."

clean:  ## remove what can be made again, except .venv and runs
	rm -rf build dist *.egg-info _proc _docs .quarto .pytest_cache nbs/nbdev.yml nbs/sidebar.yml
	find inrformer nbs tests -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "inrformer needs Python 3.11 or newer$(if $(PYTHON),; $(PYTHON) is not); name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: help train test test-all demo results lab app figures export readme docs hooks clean
