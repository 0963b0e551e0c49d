# The release, installing it, and figures.
HOST_TRIPLE := x86_64-unknown-linux-gnu
RELEASE := $(TARGET_DIR)/$(HOST_TRIPLE)/release/antipode
PREFIX ?= /usr
DESTDIR ?=

# Inlining by a third of LLVM's own measure: with that one the file would be larger than 15 MB.
RELEASE_FLAGS := -C target-feature=+crt-static -C llvm-args=-inline-threshold=75

.PHONY: release install check-D10 check-install bench bench-wan bench-live bench-idle bench-thousand
release: setup ## the static release binary
	RUSTFLAGS="$(RELEASE_FLAGS)" cargo build --locked --release -p antipode --bin antipode --target $(HOST_TRIPLE)
	@ls -l $(RELEASE)

install: release ## binary, units, man pages, completions, reference configuration (DESTDIR and PREFIX are honoured)
	deploy/install $(RELEASE) "$(DESTDIR)" "$(PREFIX)"

check-D10: release ## the release is one small static file that starts in an empty root
	$(PYTHON) -m unittest release.binary

check-install: ## units verify, the reference configuration is read, everything lands where it belongs
	$(PYTHON) -m unittest release.test_install

bench-wan: ## false declarations in generated WAN traces
	cargo bench --locked -p antipode --bench wan-traces

LIVE_ROUNDS ?= 10
bench-live: release ## declared, fenced, granted, admitted: round trips of 40, 10 and 80 ms, leader outside and inside, lease only
	ANTIPODE_BIN=$(RELEASE) $(PYTHON) -m bench.figures --rounds $(LIVE_ROUNDS)
	ANTIPODE_BIN=$(RELEASE) $(PYTHON) -m bench.figures --rounds $(LIVE_ROUNDS) --leader inside
	ANTIPODE_BIN=$(RELEASE) $(PYTHON) -m bench.figures --rounds $(LIVE_ROUNDS) --declare lazy
	ANTIPODE_BIN=$(RELEASE) $(PYTHON) -m bench.figures --rounds $(LIVE_ROUNDS) --rtt 10
	ANTIPODE_BIN=$(RELEASE) $(PYTHON) -m bench.figures --rounds $(LIVE_ROUNDS) --rtt 80

bench-idle: release ## what an idle host agent, voter and keeper cost
	ANTIPODE_BIN=$(RELEASE) $(PYTHON) -m bench.idle

bench-thousand: release ## what a thousand hosts cost one voter, also after reconnect storms; SPAN=1800 for half an hour
	ANTIPODE_BIN=$(abspath $(RELEASE)) cargo bench --locked -p antipode --bench thousand -- --seconds $(or $(SPAN),60)

bench: bench-wan bench-live bench-idle bench-thousand bench-fencing ## figures with their spread, beside the machine's load
