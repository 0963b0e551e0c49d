//! Make sure that it is dead, and say how we know.
