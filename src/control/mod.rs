//! Who leads, and who says so: decisions without I/O.
