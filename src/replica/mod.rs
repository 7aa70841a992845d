//! Leader and follower of one term, over journal and stream.
pub mod quorum;
