# The demonstration and what becomes of data: replication, the data gate, the way back.
.PHONY: check-D1 check-D2-data

check-D1: demo ## the demonstration, judged from its raw files alone

check-D2-data: build ## data, live: mirrors that die, fall silent or are cut; copies that lack something
	$(BUILT) -m live_data.run
