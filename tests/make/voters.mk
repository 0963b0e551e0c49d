# Voters that come, go, forget and die, live (tests/live/voters.py).
.PHONY: check-D4-members check-D4-members-quick
check-D4-members: build ## voters, live: added, removed, replaced, forgetful; a majority lost for ever, recovered and restored
	$(BUILT) -m live.voters --folder target/voters

check-D4-members-quick: build ## voters, live: the two that take a minute
	$(BUILT) -m live.voters --quick --folder target/voters
