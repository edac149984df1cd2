# Everything runs in .venv, which `make` builds by itself; only Python 3.11+ is needed beforehand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install test test-full lint demo demo-weights clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("ctjax needs Python 3.11 or newer; set PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m ctjax.faces.models
	touch $@

# Much of the suite's time is XLA compiling programs that run once: this is the quickest way through the compiler.
# `test-full` compiles as users do.
test: export XLA_FLAGS ?= --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true \
	--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not full'

test-full: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m full

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

demo: $(STAMP)
	$(BIN)/python infer.py

# The demo's recipe from beginning to end (docs/synthetic.md): a few hours on two cores. Stopped at any moment, it goes on.
# On a GPU: make demo-weights XLA_FLAGS= TRAIN_FLAGS=--config.reading.workers=8
demo-weights: export XLA_FLAGS ?= --xla_force_host_platform_device_count=2
demo-weights: RUN = runs/demo
demo-weights: HEARING = $(RUN)/phonemes/export/hubert
demo-weights: $(STAMP)
	$(BIN)/python train.py --config=configs/demo/phonemes.py --workdir=$(RUN)/phonemes $(TRAIN_FLAGS)
	$(BIN)/python prepare.py --synthetic=400 --size=128 --output=$(RUN)/records128
	$(BIN)/python train.py --config=configs/demo/renderer.py:estimators --workdir=$(RUN)/estimators $(TRAIN_FLAGS)
	$(BIN)/python train.py --config=configs/demo/renderer.py:lips --workdir=$(RUN)/lips $(TRAIN_FLAGS)
	$(BIN)/python train.py --config=configs/demo/renderer.py:generator64 --workdir=$(RUN)/renderer64 $(TRAIN_FLAGS)
	$(BIN)/python train.py --config=configs/demo/renderer.py:generator128 --workdir=$(RUN)/renderer128 $(TRAIN_FLAGS)
	$(BIN)/python train.py --config=configs/demo/renderer.py:painter --workdir=$(RUN)/painter $(TRAIN_FLAGS)
	$(BIN)/python train.py --config=configs/demo/renderer.py:estimated_sources --workdir=$(RUN)/estimated_sources \
		$(TRAIN_FLAGS)
	$(BIN)/python train.py --config=configs/demo/renderer.py:mouths --workdir=$(RUN)/renderer $(TRAIN_FLAGS)
	$(BIN)/python prepare.py --records=$(RUN)/records128 --output=$(RUN)/records --hubert=$(HEARING) \
		--renderer=$(RUN)/renderer/export/renderer
	$(BIN)/python train.py --config=configs/demo/sync_expert.py --workdir=$(RUN)/sync_expert $(TRAIN_FLAGS)
	$(BIN)/python train.py --config=configs/demo/audio2exp.py:expression --workdir=$(RUN)/audio2exp_expression $(TRAIN_FLAGS)
	$(BIN)/python train.py --config=configs/demo/audio2exp.py:sync --workdir=$(RUN)/audio2exp $(TRAIN_FLAGS)
	cp -R $(RUN)/sync_expert/export/sync_expert $(RUN)/audio2exp/export/
	$(BIN)/python -m convert pack $(RUN)/audio2exp/export --output=$(RUN)/head --precision=float16 --overwrite
	$(BIN)/python benchmarks/demo_figures.py --bundle=$(RUN)/head

clean:
	rm -rf $(VENV) out build dist *.egg-info
