# The swarm: SEEDS=n runs that many (from SEED_FIRST), SEED=n tells one as a trace, KEEP_GOING=1 doesn't stop at a failure.
SEEDS ?= 10000
SWARM := $(FAST) cargo test --locked -p antipode --features mutants --test swarm --

.PHONY: swarm check-D5 check-D6
swarm: setup ## the simulated cluster under random faults: SEEDS=1000000, or SEED=n for one as a trace
	ANTIPODE_SEEDS=$(SEEDS) ANTIPODE_SEED=$(SEED) ANTIPODE_SEED_FIRST=$(SEED_FIRST) ANTIPODE_KEEP_GOING=$(KEEP_GOING) $(SWARM) --nocapture --exact swarm

check-D5: swarm ## the swarm, and the planted faults that it and the ledger's stories notice
	$(SWARM) --nocapture planted seeds
	cargo test --locked -p quorum --features mutants

check-D6: setup ## every kind of plan interrupted at every step ends, or names the next command
	$(SWARM) --nocapture interrupt
