//! Exit codes shared by the programs. Errors themselves are closed enums beside what they are about.

/// Done; the answer is yes.
pub const EXIT_DONE: u8 = 0;
/// The answer is no, or there are findings.
pub const EXIT_FINDINGS: u8 = 1;
/// Wrong use: a flag, an argument, a configuration.
pub const EXIT_USAGE: u8 = 2;
/// Damage, or a failure of the host.
pub const EXIT_FAILURE: u8 = 3;
