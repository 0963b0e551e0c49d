"""The release as its users get it: one static file, and where `make install` puts things."""
