# Every target sets itself up: virtual environment, Python packages and, on Debian and Ubuntu,
# PostgreSQL with pg_cron and plpgsql_check. See scripts/setup.

PYTHON := .venv/bin/python
PGFLEET := .venv/bin/pgfleet

.DEFAULT_GOAL := help

.PHONY: help setup demo test test-browser soak lint bench docs docs-generate up down

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: ## Install what is missing, saying so first
	@scripts/setup

demo: setup ## Show a small fleet at work, and account for every command (STAY=1 keeps it running)
	@$(PGFLEET) demo $(if $(STAY),--stay)

test: setup ## Run lint, types and all tests but the long ones
	@scripts/test

test-browser: ## Run the tests of the console in a real browser, and take pictures of its pages
	@PGFLEET_SETUP_BROWSER=1 scripts/setup
	@scripts/test-browser

soak: setup ## Kill gateway, agents, functions and Postgres, 50 rounds and more (ROUNDS=n)
	@PGFLEET_SOAK_ROUNDS=$(or $(ROUNDS),50) $(PYTHON) -m pytest -m soak --timeout=7200 -s tests/soak tests/db

lint: setup ## Check style and types
	@scripts/lint

bench: setup ## Measure, with ratios against a plain SQL baseline of the same run
	@$(PYTHON) tests/bench/run.py

docs: setup ## Build the documentation into the folder site
	@scripts/docs

docs-generate: setup ## Write the reference pages that come from comments, commands and settings
	@scripts/docs-generate

up: setup ## Run the local platform until Ctrl-C
	@$(PGFLEET) stack up

down: ## Stop the local platform
	@$(PGFLEET) stack down
