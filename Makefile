# The two that matter: `make demo` shows what the package does, `make test` checks that it does.
# Every target builds .venv when it is missing or older than pyproject.toml or constraints.txt,
# and uses it again otherwise. PYTHON=/path/to/python chooses the interpreter.

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
BENCH_PY := .venv-bench/bin/python
BENCH_READY := .venv-bench/.ready
TORCH_PY := .venv-transformers/bin/python
TORCH_READY := .venv-transformers/.ready

# Figures go to files. Tests and docs run many small problems, two processes at most, where one
# BLAS thread each is fastest.
export MPLBACKEND := Agg
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(PY) -m pytest -n 2 --dist loadfile

.PHONY: help demo test test-slow test-transformers test-dist lint docs bench clean
.DELETE_ON_ERROR:

help:
	@echo "make demo       three worked analyses: tables here, a page with figures in demo-results/"
	@echo "make test       every test that is not marked slow, and the examples in the docstrings"
	@echo "make test-slow  the simulation studies"
	@echo "make test-transformers  what needs torch: local models, networks as reward heads"
	@echo "make test-dist  build wheel and sdist, and test the wheel in an empty environment"
	@echo "make lint       ruff, mypy --strict, import-linter"
	@echo "make docs       the documentation, in docs/_build/html; runs every example"
	@echo "make bench      the benchmarks, in an environment of their own"
	@echo "make clean      remove what the targets above made, except the environments"

demo: $(READY)
	@$(PY) examples/demo.py

test: $(READY)
	$(PYTEST)

test-slow: $(READY)
	$(PYTEST) -m slow

test-transformers: $(TORCH_READY)
	$(ONE_THREAD) $(TORCH_PY) -m pytest tests/llm/test_transformers.py tests/preference/test_network.py

# The wheel is built from the sdist, and the tests are those of the sdist without its causalrm/:
# what is tested is what a user installs. PYTHON=python3.13 chooses the interpreter.
test-dist:
	@rm -rf build/dist dist
	@$(call environment,build/dist/env)
	@build/dist/env/bin/python -m pip install -qq --upgrade "pip>=25.1" build
	build/dist/env/bin/python -m build -q --outdir dist .
	@mkdir -p build/dist/tree && tar xzf dist/causalrm-*.tar.gz -C build/dist/tree --strip-components 1
	@rm -rf build/dist/tree/causalrm
	cd build/dist/tree && ../env/bin/python -m pip install -qq --constraint constraints.txt \
	  ../../../dist/causalrm-*.whl --group test
	cd build/dist/tree && $(ONE_THREAD) ../env/bin/python -m pytest tests --ignore tests/test_house.py \
	  -n 2 --dist loadfile

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m mypy tests/typing/program.py
	$(VENV)/bin/lint-imports

docs: $(READY)
	@rm -rf docs/api/generated
	$(ONE_THREAD) $(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(BENCH_READY)
	@set -e; for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BENCH_PY) $$script; done

clean:
	rm -rf build dist demo-results docs/_build docs/gallery docs/api/generated docs/api/backreferences
	rm -rf docs/api/index.rst .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find causalrm tests examples docs benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(READY): pyproject.toml constraints.txt
	@$(call environment,$(VENV))
	@echo "Installing causalrm and its dependencies into $(VENV): some minutes, once."
	@$(PY) -m pip install -qq --upgrade "pip>=25.1"
	@$(PY) -m pip install -qq --constraint constraints.txt --editable . --group test --group lint --group docs
	@touch $@

$(BENCH_READY): pyproject.toml
	@$(call environment,.venv-bench)
	@echo "Installing causalrm and the packages it is compared with into .venv-bench."
	@$(BENCH_PY) -m pip install -qq --upgrade "pip>=25.1"
	@$(BENCH_PY) -m pip install -qq --editable . --group bench
	@touch $@

# torch is a matter of gigabytes where it comes with CUDA libraries; TORCH=/path/to/torch.whl takes
# one without. jinja2 is what transformers fills chat templates with.
TORCH ?= torch
$(TORCH_READY): pyproject.toml constraints.txt
	@$(call environment,.venv-transformers)
	@echo "Installing causalrm, torch and transformers into .venv-transformers: gigabytes, once."
	@$(TORCH_PY) -m pip install -qq --upgrade "pip>=25.1"
	@$(TORCH_PY) -m pip install -qq $(TORCH)
	@$(TORCH_PY) -m pip install -qq --constraint constraints.txt --editable '.[transformers]' --group test jinja2
	@touch $@

# A virtual environment at $(1), unless a good one is there. A candidate is run, not only found:
# version managers leave commands on the PATH that fail.
SUITABLE := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 12))
define environment
if ! $(1)/bin/python -c "import pip; $(SUITABLE)" >/dev/null 2>&1; then \
  found=; \
  for candidate in $(PYTHON) python3.12 python3.13 python3 python; do \
    if "$$candidate" -c "$(SUITABLE)" >/dev/null 2>&1; then found=$$candidate; break; fi; \
  done; \
  if [ -z "$$found" ]; then \
    echo "causalrm needs Python 3.12 or newer with the venv module, and none was found" >&2; \
    echo "(tried:$(if $(PYTHON), $(PYTHON)) python3.12 python3.13 python3 python)." >&2; \
    echo "Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
    exit 1; \
  fi; \
  "$$found" -m venv --clear $(1); \
fi
endef
