//! The replicated session table: each command takes effect once, each reply is kept until the client has it.
