.PHONY: check-D4
check-D4: ## every scenario of the fault matrix
	cargo test --locked -p antipode --test scenarios
