.PHONY: mutants check-D7 check-D9
mutants: setup ## every fault that can be planted, and the tests that must notice
	$(FAST) cargo nextest run $(SUITES) --no-fail-fast -E 'test(/watched|noticed|planted|is_seen_to/) or package(quorum) or package(fencing) and binary(mutants)'

check-D9: bench ## figures: the same as bench

check-D7: fuzz ## nothing hostile gets in: certificates, frames, floods, what is stale or replayed; then every decoder fuzzed
	cargo test --locked -p antipode --test transport
	cargo test --locked -p antipode --lib -- pki:: frame:: stamp:: admission::
