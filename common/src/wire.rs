//! Frames, the codec, and the messages of both protocols.

// The codec: one value a frame, bounded, nothing left over.
pub mod frame;
// Between two peers: messages, receipts, offers, leaves.
pub mod peer;
// Between a peer and the rendezvous: log-in, directory, presence.
pub mod rendezvous;

// One value of each kind of message, for tests of all sorts.
pub mod samples;
