# Every target first makes or completes .venv with what it needs (.ci/venv).
.DEFAULT_GOAL := help
REAL_TASKS = pubmedqa,medqa,medmcqa,mmlu_medical
LIMIT = 4
HISTORIES = 10000
CLAUSES = 20000
FUZZ_S = 30
SEED = 0
TRIALS = 20
.NOTPARALLEL:   # two targets must not install into .venv at once
.PHONY: help demo real demo-train test test-long invariant fuzz chaos coverage docs test-vllm audit lint check bench build clean dev

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile
	@echo 'No GPU: add TORCH_INDEX=URL, with the index of CPU wheels that pytorch.org names.'

demo: ## evaluate the model that ships with the package on its own benchmark, and build a site
	@.ci/venv hf
	.venv/bin/medix-eval --model phantom --tasks phantom --protocol rules --out results
	.venv/bin/medix-eval leaderboard results/phantom/* --out results/site

real: ## ask a real language model real questions (36; LIMIT=16 asks more)
	@.ci/venv hf
	@set -e; model=$$(.ci/real-model); rows=$$(.ci/real-rows $(REAL_TASKS)); \
	set -x; .venv/bin/medix-eval --model $$model --backend hf --tasks $(REAL_TASKS) \
	    --limit $(LIMIT) --protocol rules --set generation.max_tokens=512 \
	    --data-root $$rows --out results/real

demo-train: dev ## train a half-trained model with GRPO, and compare it with what it was
	rm -rf results/demo-train
	.venv/bin/medix-eval --model training/recipes/phantom-half --backend hf --tasks phantom \
	    --protocol rules --out results/demo-train
	.venv/bin/python training/phantom/demo_train.py --out results/demo-train/trained
	.venv/bin/medix-eval --model results/demo-train/trained/model --name phantom-trained --backend hf \
	    --tasks phantom --protocol rules --out results/demo-train
	.venv/bin/medix-eval compare results/demo-train/*phantom-half/* \
	    results/demo-train/phantom-trained/*

test: dev ## run the tests
	.venv/bin/python -m pytest -n 2

test-long: dev ## run the tests that take long: kills, simulations, training, all real rows
	.venv/bin/python -m pytest -n 2 -m long

invariant: dev ## 20,000 clauses beside answers; 10,000 histories of faults, kills and resumes (SEED=7 HISTORIES=1 tells one)
	MEDIX_CLAUSES=$(CLAUSES) .venv/bin/python -m pytest -q tests/test_rules_clauses.py
	PYTHONPATH=tests/oracles .venv/bin/python tests/invariant/histories.py --number $(HISTORIES) --seed $(SEED)

fuzz: dev ## invented inputs for every reader of outside text, archives and pictures: FUZZ_S seconds each (ONLY=labels SEED=7)
	.venv/bin/python tests/fuzz/readers.py --seconds $(FUZZ_S) --seed $(SEED) $(addprefix --only ,$(ONLY))

chaos: dev ## the real command through every fault, 20 times in an hour (ONLY=SIGKILL TRIALS=1; WRITE=FILE.md)
	.venv/bin/python tests/chaos/chaos.py --trials $(TRIALS) --seed $(SEED) $(if $(ONLY),--only '$(ONLY)') \
	    $(if $(WRITE),--write $(WRITE))

coverage: dev ## run the tests and measure how much of medix_eval they reach, branches included
	.venv/bin/python -m pytest -n 2 --cov=medix_eval

docs: ## check what the pages say: links, commands, flags
	@.ci/venv dev
	.venv/bin/python -m pytest tests/test_docs.py

test-vllm: ## run the tests against real vLLM on the CPU, in an environment of their own
	@.ci/venv-vllm
	.venv-vllm/bin/python -m pytest tests/vllm

lint: dev ## check format, style, the direction of imports, and types
	.venv/bin/python -m ruff format --check
	.venv/bin/python -m ruff check
	.venv/bin/lint-imports --no-cache
	.venv/bin/python -m mypy
	.venv/bin/python -m pyright

audit: ## ask the package index for advisories about the versions that are tested
	@bash .ci/audit

check: lint test ## lint and test: what a change must pass

bench: dev ## measure speed and memory
	@.ci/real-model >/dev/null
	.venv/bin/python tests/bench/run.py

build: dev ## make the wheel and the sdist in dist/
	.venv/bin/python -m hatchling build

clean: ## remove what was built and cached; .venv and results stay
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
	find . -path './.venv*' -prune -o -name __pycache__ -type d -exec rm -rf {} +

dev:
	@.ci/venv hf embed train dev
