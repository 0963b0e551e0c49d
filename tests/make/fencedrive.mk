# The agent's side of fencing (tests/fencedrive, agent/src/sim/fence_tests.rs).
.PHONY: check-F4 check-F5 check-fencing
check-F4: build ## the override: live targets, two people, next incarnation, replay, audit
	cargo test --locked -p antipode --lib -- sim::fence_tests::an_override sim::fence_tests::where_two_people
	cargo test --locked -p quorum -- permit person override
	$(PYTHON) -m unittest -k test_1 -k test_3 fencedrive.test_live

check-F5: build ## two sides of a partition never shoot each other, played and live
	cargo test --locked -p antipode --lib -- sim::fence_tests::two_sides sim::fence_tests::an_executor
	$(PYTHON) -m unittest -k test_1 -k test_4 fencedrive.test_live

check-fencing: build ## everything about fencing in the agent, live
	$(PYTHON) -m unittest fencedrive.test_live
