"""Never two, live: each case is a disaster told to a real cluster and judged by stamps (see README.md)."""
