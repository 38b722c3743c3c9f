//! The whole, tried out: the demo, and what tests with the real programs share.

/// The demo, step by step.
pub mod demo;
/// The real programs as processes of their own.
pub mod program;
