.PHONY: check-D8 check-cli
check-D8: setup ## bad configuration: every problem at once; what a spec can't keep is said before it is applied
	cargo nextest run --locked -p antipode -E 'binary(config) or test(a_spec_is_checked) or test(config::)'

check-cli: setup ## the command line and the admin API against a live agent: schemas, roles, audit, help
	cargo nextest run --locked -p antipode -E 'binary(cli) or test(admin::) or test(cli::)'
