"""What becomes of data, live: mirrors that die, fall silent or are cut under load, and copies that lack something."""
