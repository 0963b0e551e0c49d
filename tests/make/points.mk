.PHONY: mutants check-D9
mutants: setup ## every fault that can be planted, and the tests that must notice
	$(FAST) cargo nextest run --locked -p antipode --features mutants --no-fail-fast -E 'test(/watched|noticed|planted|is_seen_to/)'
	$(FAST) cargo nextest run --locked -p quorum --features mutants --no-fail-fast
	$(FAST) cargo test --locked -p fencing --features mutants --test mutants

check-D9: bench ## figures: the same as bench
