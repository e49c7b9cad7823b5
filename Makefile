# Two words are enough: `make demo` and `make test`. Everything lands in .venv and .state of this checkout.
SHELL := /bin/sh
VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready
COUNT ?= 20
AWAY  ?= 60
MINUTES ?= 15
GB    ?= 5
SECONDS ?= 60
JOBS  ?= 1000000
ARGS  ?=

.DEFAULT_GOAL := help
.PHONY: help demo test agents test-agents test-acp record record-acp check model fmt machine stress outage flood bench backlog hammer capabilities clean

help: ## what one can make here
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(READY) ## a server, a daemon, three jobs by plain SQL, their log, their outcomes
	@$(BIN)/leasehold demo

test: $(READY) ## every test; LEASEHOLD_TEST_DSN=postgresql://... instead of the embedded server
	@$(BIN)/python -m pytest -n 4 --dist worksteal --reruns 1 $(ARGS)

check: $(READY) ## formatting, lint, types, which room may import which, and the small worlds of the protocol's model
	@$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache >.venv/imports.log 2>&1 \
	  || { tail -n 30 .venv/imports.log 2>/dev/null; exit 1; }
	@PYTHONPATH=tests $(BIN)/python -m model >.venv/model.log || { cat .venv/model.log; exit 1; }
	@echo "check: formatting, lint, types, rooms and the protocol are in order"

model: $(READY) ## every small and large world of the lease protocol: some minutes
	@PYTHONPATH=tests $(BIN)/python -m model large

fmt: $(READY) ## make it look as it should
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

agents: $(READY) ## install the real Codex and Claude Code for the tests: `make test` does a few turns with them then
	@scripts/agents $(VENV)/agents

test-agents: $(READY) ## the real Codex and Claude Code, from npm, against a scripted model, with no other network
	@scripts/agents $(VENV)/agents
	@LEASEHOLD_REAL_AGENTS=1 scripts/offline $(BIN)/python -m pytest -n 2 --dist worksteal --reruns 1 tests/agents $(ARGS)

test-acp: $(READY) ## the same with OpenCode, Gemini, and Codex and Claude Code behind their ACP adapters: some minutes
	@scripts/agents $(VENV)/agents
	@scripts/agents $(VENV)/agents-acp acp
	@LEASEHOLD_REAL_AGENTS=1 LEASEHOLD_ACP_AGENTS=1 scripts/offline $(BIN)/python -m pytest -n 2 --dist worksteal --reruns 1 tests/agents/test_acp_real.py tests/agents/test_acp_real_system.py $(ARGS)

record-acp: $(READY) ## record anew what they say
	@scripts/agents $(VENV)/agents
	@scripts/agents $(VENV)/agents-acp acp
	@PYTHONPATH=tests scripts/offline $(BIN)/python -m agents.record_acp $(ARGS)

record: $(READY) ## record anew what the real agents say: writes tests/agents/transcripts
	@scripts/agents $(VENV)/agents
	@PYTHONPATH=tests scripts/offline $(BIN)/python -m agents.record $(ARGS)

machine: $(READY) ## random lives of the database, for MINUTES; whatever is found is shrunk to its shortest
	@LEASEHOLD_MACHINE_MINUTES=$(MINUTES) $(BIN)/python -m pytest -s tests/sql/test_machine.py -k longer $(ARGS)

stress: $(READY) ## the races and faults, COUNT times under CPU load
	@scripts/stress $(BIN)/python $(COUNT)

hammer: $(READY) ## all rules of work at once, many daemons and clients, for SECONDS
	@LEASEHOLD_HAMMER_SECONDS=$(SECONDS) $(BIN)/python -m pytest -s tests/sql/test_rules_hammer.py

outage: $(READY) ## Postgres away for AWAY seconds under agents at work
	@LEASEHOLD_TEST_AWAY=$(AWAY) $(BIN)/python -m pytest -s tests/daemon/test_outage.py

flood: $(READY) ## what an agent that writes GB gigabytes costs: memory, disk, time, the patience of the others
	@PYTHONPATH=tests $(BIN)/python tests/bench/flood.py $(GB)

bench: $(READY) ## ratios, both sides measured in the same run
	@PYTHONPATH=tests $(BIN)/python tests/bench/bench.py

backlog: $(READY) ## a claim with JOBS queued jobs of 1,000 tenants against a small queue, and how long a newcomer waits
	@PYTHONPATH=tests $(BIN)/python tests/bench/claim.py $(JOBS)

capabilities: $(READY) ## which test shows which numbered rule: writes tests/capabilities/TABLE.md, prints the counts
	@PYTHONPATH=tests $(BIN)/python -m capabilities

clean: ## remove what the other words made
	rm -rf .venv .state .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist

$(READY): pyproject.toml scripts/setup
	@scripts/setup $(VENV)
	@touch $@
