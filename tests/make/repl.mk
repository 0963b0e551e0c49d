# A volume whose data an adapter program moves.
.PHONY: check-adapters

check-adapters: build ## a group run by the example adapters alone, live: moved without loss, taken over from one moment
	$(BUILT) -m live_data.adapters
