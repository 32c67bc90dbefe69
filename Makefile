# Everything that a checkout needs to be run, tested and worked on. `make` lists the goals.
#
# 1. A goal sets up what it needs itself: env/, a virtualenv, redone only when setup.cfg, pyproject.toml or the file of
#    constraints changed. CONSTRAINTS= stands for the newest versions.
# 2. A machine that cannot do that hears so in one line that holds the fix, before anything is made.
# 3. Everything runs out of env/; nothing needs it activated, and no path is absolute.

PORT ?= 8080
HOST ?= 127.0.0.1
CONSTRAINTS ?= constraints.txt
# Other people's clients, which tests/clients/ uses; without them, as with CLIENTS=, those tests are skipped.
CLIENTS ?= yes
COVERAGE_FLOOR = 85

.DEFAULT_GOAL := help
.PHONY: help run dev test check fuzz faults bench pictures schemas docs wheel compiled constraints clean env-demo env-dev env-clients
# Two goals at once, as in `make -j run test`, would set up the same directory twice.
.NOTPARALLEL:

export PYTHON CONSTRAINTS
# What is said to make is not said to the programs that tests run.
unexport CLIENTS
# Either would put another Python's modules before those of env/.
unexport PYTHONHOME PYTHONPATH

# A failing recipe would add make's own line to ours; $(error) says it all in one. The $$ keeps whatever the
# line holds from being read as make syntax.
possible = $(eval PROBLEM := $$(shell PYTHON='$(PYTHON)' sh tools/virtualenv problem $(firstword $(MAKECMDGOALS))))\
	$(if $(PROBLEM),$(error $(PROBLEM)))
# A demo is for this machine only, unless PORT says where to listen, or HOST is another address.
listen = $(if $(findstring :,$(PORT)),$(PORT),tcp:$(PORT):interface=$(HOST))
# Beside another market, which has 8080 and 8081, the port of operators is the next one, unless ARGS names it.
admin = $(if $(filter 8080,$(PORT))$(filter --admin --admin=%,$(ARGS)),,$(shell \
	test '$(PORT)' -gt 0 2>/dev/null && echo "--admin tcp:$$(expr '$(PORT)' + 1):interface=127.0.0.1"))
demo = env/bin/twistd -n --pidfile= marketfeed --demo --port '$(listen)' $(admin) $(ARGS)

help: ## list the goals
	@echo 'make GOAL [PORT=8080] [HOST=0.0.0.0] [PYTHON=python3.12] [ARGS="further arguments of the daemon, or of pytest"]'
	@sed -n 's/^\([a-z]*\):.*## /  \1\t/p' Makefile | expand -t 10

run: env-demo ## the daemon with its own server and a simulated market, and a page of it, on PORT; Ctrl-C ends it
	@exec $(demo)

dev: env-dev ## the same, started anew whenever a file of marketfeed/ changes
	@exec env/bin/watchfiles "$(demo)" marketfeed

test: env-dev env-clients ## the tests; ARGS="-k hub" for some of them
	@env/bin/python -m pytest $(ARGS)

check: env-dev env-clients ## all that a change must pass: format, lint, types, layers, tests and their coverage
	env/bin/ruff format --check .
	env/bin/ruff check .
	env/bin/mypy
	env/bin/mypy --allow-untyped-calls examples/*/*.py
	env/bin/lint-imports
	env/bin/python -m pytest --cov --cov-fail-under=$(COVERAGE_FLOOR) $(ARGS)

fuzz: env-dev ## the tests that throw any bytes at it, for some minutes; ARGS="-k Handshakes" for some of them
	@env/bin/python -m pytest --hypothesis-profile=fuzz tests/websocket/test_fuzz.py $(ARGS)

faults: env-dev env-clients ## a million publications amid a hundred faults, of one server and of several, and of books, a rolling restart, a stalled candle service, the market page, and a thousand reconnects of each client; attacks, leaks, storms and slow clients with TLS and without
	@TLS=all FAULTS=1000000,100,200 BOOKS=1000000,50 ROLL=2000,20 CLIENT_BOOKS=100000 STALL=60 PAGE=600 RECONNECTS=1000 \
		env/bin/python -m pytest -n 0 -s tests/system/test_faults.py tests/system/test_losses.py \
		tests/system/test_group_faults.py tests/system/test_books.py tests/deploy/test_rolling_restart.py \
		tests/clients/test_python_binance.py tests/clients/test_ccxt.py \
		tests/system/test_candles_stalled.py tests/system/test_market_page.py tests/system/test_market_page_load.py \
		tests/conformance/test_faults.py tests/system/test_attacks.py tests/system/test_leaks.py \
		tests/system/test_storm.py tests/system/test_slow.py $(ARGS)

bench: env-demo ## measure it beside other servers, for an hour, into docs/benchmarks.md; ARGS="--quick" for a glance
	@env/bin/python -m benchmarks.run $(ARGS)

pictures: env-dev ## the pictures in docs/images anew: the plots of docs/scaling.md, and with a Chromium the status page and the market page
	@env/bin/python -m benchmarks.simulate
	@PICTURES=docs/images env/bin/python -m pytest -n 0 tests/system/test_status_page.py \
		tests/system/test_market_page.py $(ARGS)

schemas: env-dev ## docs/asyncapi.yaml and docs/openapi.yaml anew, the contract for programs
	@env/bin/python -m schemas.write

docs: env-dev ## the documentation as a site, in build/docs
	@env/bin/mkdocs build --quiet $(ARGS)

wheel: env-dev ## the package, in dist/, compiled; MARKETFEED_COMPILED=no for one of pure Python
	@rm -f dist/marketfeed-*.whl
	@env/bin/python -m pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

# Of a copy, for a compiled module beside its source would hide what is edited.
compiled: env-dev ## the tests, with what is compiled in a wheel compiled; ARGS="tests/hub" for some of them
	@MARKETFEED_COMPILED=yes $(MAKE) --no-print-directory wheel
	@rm -rf build/compiled && mkdir -p build/compiled
	@git ls-files --cached --others --exclude-standard -z | tar -c --null -T - | tar -x -C build/compiled
	@env/bin/python -m zipfile -e dist/marketfeed-*.whl build/compiled
	@cd build/compiled && PYTHONPATH="$$PWD" ../../env/bin/python -m pytest $(ARGS)

constraints: ## write constraints.txt, the versions that env/ is set up with: the newest that go together
	@$(possible)sh tools/virtualenv constraints

clean: ## remove everything that the goals above made, env/ included
	@rm -rf env build dist marketfeed.egg-info twisted/plugins/dropin.cache .coverage .coverage.* .hypothesis
	@rm -rf .import_linter_cache .mypy_cache .pytest_cache .ruff_cache benchmarks/peers/node_modules clients/js/node_modules clients/js/dist
	@find benchmarks marketfeed schemas tests twisted -name __pycache__ -prune -exec rm -rf {} +

env-demo env-dev:
	@$(possible)sh tools/virtualenv install $(@:env-%=%)

env-clients: env-dev
	@$(if $(CLIENTS),sh tools/virtualenv clients)
