# Nothing hostile gets in (D7): every decoder under a fuzzer that is led by coverage.
.PHONY: fuzz check-D7-fuzz

fuzz: setup ## fuzz every decoder; MINUTES=10 each, JOBS=2 at once, TARGET=name for one; fails at a finding
	$(PYTHON) -m fuzz.run --minutes $(or $(MINUTES),10) --jobs $(or $(JOBS),2) $(if $(TARGET),--target $(TARGET))

check-D7-fuzz: fuzz
