# Never two, live (tests/live): disasters told to a real cluster, and the keeper on a real watchdog.
.PHONY: check-D2 check-D2-quick check-D3 test-long live-build
LIVE_MUTANTS := $(TARGET_DIR)/debug/antipode-mutants

# The negative controls need a build with planted faults; the product is built last, so that it is what everybody runs.
live-build: setup
	cargo build --locked -p antipode --features mutants
	cp --remove-destination $(TARGET_DIR)/debug/antipode $(LIVE_MUTANTS)
	cargo build --locked --workspace

check-D2: live-build ## never two, live: every case
	$(BUILT) -m live.run

check-D2-quick: live-build ## never two, live: the few that every test run plays
	$(BUILT) -m live.run --quick

# Emulated processors are slow: in guests used as hosts the product runs as it is released.
check-D3: setup ## the keeper on a real watchdog, in guests used as hosts; such hosts' leases prove nothing
	cargo build --locked --profile fast -p antipode --features mutants
	cargo build --locked --release -p antipode
	cp --remove-destination $(TARGET_DIR)/fast/antipode $(TARGET_DIR)/release/antipode-mutants
	ANTIPODE_BIN=$(TARGET_DIR)/release/antipode $(PYTHON) -m live.dog
	ANTIPODE_BIN=$(TARGET_DIR)/release/antipode $(PYTHON) -m live.classc

test-long: live-build ## what takes too long for every run
	$(BUILT) -m live.run --long
