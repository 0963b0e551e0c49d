.PHONY: check-F1 check-F2 check-F3 check-F6 check-F7 bench-fencing

# LONG=1 repeats what rests on real time and chance.
check-F1: setup ## fencing against real BMCs, agents, libvirt, arrays and sbd; LONG=1 five times
	for n in $$(seq $(if $(LONG),5,1)); do $(PYTHON) -m unittest discover -v -s tests/fencing -t tests; done

check-F2: setup ## fencing: the hostile BMC, by name and by thousands of random behaviours
	cargo test --locked -p fencing --test hostile --test tls

check-F3: setup ## fencing: every planted fault is caught by its claim
	$(FAST) cargo test --locked -p fencing --features mutants --test mutants -- --nocapture

check-F6: bench-fencing ## fencing: the same as bench-fencing
bench-fencing: setup ## fencing: how fast each kind proves "off", beside the plain agent; ROUNDS=5
	$(PYTHON) -m fencing.bench $(or $(ROUNDS),5)

check-F7: setup ## fencing: the contract of all kinds, and the page that leads to a new device
	cargo test --locked -p fencing --test contract
	$(PYTHON) -m unittest -v fencing.test_writing_a_device
