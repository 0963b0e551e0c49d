# Upkeep, live (tests/live/upkeep.py): restarts, upgrades between two programs, pins, hosts that go and come, forecasts.
.PHONY: check-D4-upkeep check-D4-upkeep-quick upkeep-build
UPKEEP_NEXT := $(TARGET_DIR)/debug/antipode-next

# The release that comes next is the same source, built to understand one more cluster version; the product is built last.
upkeep-build: setup
	cargo build --locked -p antipode --features next-release
	cp --remove-destination $(TARGET_DIR)/debug/antipode $(UPKEEP_NEXT)
	cargo build --locked --workspace

check-D4-upkeep: upkeep-build ## upkeep, live: rolling restart and upgrade, pins, hosts removed and readmitted, forecasts that come true; EARLIER=program upgrades from that
	$(if $(EARLIER),ANTIPODE_EARLIER=$(EARLIER)) $(BUILT) -m live.upkeep --folder target/upkeep

check-D4-upkeep-quick: build ## upkeep, live: the rolling restart, which takes two minutes
	$(BUILT) -m live.upkeep --quick --folder target/upkeep
