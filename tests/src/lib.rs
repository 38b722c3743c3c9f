//! The whole, tried out: the demo, and what tests with the real programs share.

// Ours and a baseline, measured in one run.
#[cfg(feature = "bench")]
pub mod bench;
// The socket of a running peer, as a program would use it.
pub mod control;
// The demo, step by step.
pub mod demo;
// What fuzzing checks.
pub mod fuzz;
// The real programs as processes of their own.
pub mod program;
// Bad luck between the real programs.
pub mod proxy;
// The real engines in a world of their own, on virtual time.
pub mod sim;
// Many seeds of it.
pub mod swarm;
// A peer that says what a test wants it to say.
pub mod wire_client;
// People with profiles at a server of their own.
pub mod world;
