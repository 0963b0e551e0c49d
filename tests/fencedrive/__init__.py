"""Fencing, live: real agents fence real chassis through an adapter program, and refuse to where they must."""
