# One command per job. `make test` is what CI runs; both set up what they need first (Debian 12, root for packages).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
# A toolchain that tests/lab/setup has just installed isn't on the caller's PATH yet.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin
export PYTHONDONTWRITEBYTECODE := 1
export TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
export ANTIPODE_LAB_IMAGES := $(TARGET_DIR)/lab

PYTHON := PYTHONPATH=tests python3
# With the program that the target has just built, unless another is named; by itself the lab takes the newest one.
BUILT := ANTIPODE_BIN=$(or $(ANTIPODE_BIN),$(TARGET_DIR)/debug/antipode) $(PYTHON)
NEXTEST := $(shell command -v cargo-nextest 2>/dev/null)

# All tests are one build: optimised, since models, scenarios and swarm run the cores millions of times (what they depend
# on is optimised in every build), and with the faults that guards are tested by, none of them planted unless a test does.
FAST := CARGO_PROFILE_DEV_OPT_LEVEL=1
SUITES := --locked --workspace --features antipode/mutants
HEAVY := binary(/^(model|swarm)$$/)

.PHONY: help setup build lint test test-rust test-lab demo
help:
	@sed -n 's/^\([a-zA-Z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## install what building, testing and the lab need
	@tests/lab/setup

build: setup ## the product, as the demo and the live tests run it
	cargo build --locked --workspace

lint: ## formatting and lints, warnings refused
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

test: setup lint test-rust test-lab ## everything that must hold, in one run

test-rust: ## the workspace's own tests
ifeq ($(NEXTEST),)
	$(FAST) ANTIPODE_SEEDS=10000 cargo test $(SUITES) --no-fail-fast
else
	$(FAST) cargo nextest run $(SUITES) --no-fail-fast -E 'not ($(HEAVY))'
	$(FAST) ANTIPODE_SEEDS=10000 cargo nextest run $(SUITES) --no-fail-fast --success-output final -E '$(HEAVY)'
	$(FAST) cargo test $(SUITES) --test scenarios
	$(FAST) cargo test $(SUITES) --doc
endif

demo: build ## a site dies, its guest is taken over and comes home; KEEP=1 leaves the cluster up
	$(BUILT) -m demo.run $(if $(KEEP),--keep)

test-lab: setup ## the lab's own claims and the judge's, in Python
	$(PYTHON) -m unittest discover -s tests -t tests

# Each part's own commands: make check-D4, make bench and so on.
include $(wildcard tests/make/*.mk)
