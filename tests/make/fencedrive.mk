# The agent's side of fencing (tests/fencedrive, agent/src/sim/fence_tests.rs).
.PHONY: check-F4 check-F5 check-fencing
# A filter that matches nothing passes: so many tests must have been seen to pass.
SEEN = tee /dev/stderr | grep -c '^test .* ok$$' | xargs -I N test N -ge

check-F4: build ## the override: live targets, two people, next incarnation, replay, audit
	cargo test --locked -p antipode --lib -- sim::fence_tests::an_override sim::fence_tests::an_agreement sim::fence_tests::where_two_people | $(SEEN) 7
	cargo test --locked -p quorum -- person::tests every_story_goes_as_it_is_told | $(SEEN) 3
	cargo test --locked -p antipode --features mutants --lib -- sim::fence_tests::guards_are_watched | $(SEEN) 7
	$(BUILT) -m unittest -v fencedrive.test_people
	$(BUILT) -m unittest -v -k test_1 -k test_3 fencedrive.test_live

check-F5: build ## two sides of a partition never shoot each other, played and live
	cargo test --locked -p antipode --lib -- sim::fence_tests::two_sides sim::fence_tests::an_executor | $(SEEN) 2
	$(BUILT) -m unittest -v -k test_1 -k test_4 fencedrive.test_live

check-fencing: build ## everything about fencing in the agent, live
	$(BUILT) -m unittest -v fencedrive.test_live
