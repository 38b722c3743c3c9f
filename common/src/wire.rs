//! The codec, and the frames of both protocols.

// Datagrams of relay channels, between a peer and the server's UDP port.
pub mod channel;
// The codec: one value per frame, bounded in size, without trailing bytes.
pub mod frame;
// The protocol between two peers: messages, receipts, offers, leaves.
pub mod peer;
// The protocol between a peer and the rendezvous server: log-in, directory, presence.
pub mod rendezvous;

// Sample values of every frame, shared by all kinds of tests.
pub mod samples;
