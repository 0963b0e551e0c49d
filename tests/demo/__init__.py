"""The demonstration: a site dies, its guest comes up elsewhere, and goes home; and the judge of its raw files."""
