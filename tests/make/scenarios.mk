.PHONY: check-D4
check-D4: ## every scenario of the fault matrix, and the faults in guards that they must notice
	cargo test --locked -p antipode --test scenarios
	cargo test --locked -p antipode --features mutants --test scenarios mutant
