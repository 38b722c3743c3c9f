//! What both programs need from the system, once.
//!
//! The engines know nothing of this module: it is behind the feature `os`, which only the shells of
//! the programs switch on. Nothing in here decides anything about messages, accounts or files of people.

// Why a connection could not be accepted.
pub mod accept;
// Where to listen.
pub mod bind;
// The two clocks.
pub mod clock;
// One machine and file, told from others.
pub mod instance;
// JSON-RPC 2.0 over Unix sockets, both sides.
pub mod lines;
// Who may use a folder.
pub mod lock;
// Numbers behind options.
pub mod number;
// Passwords in files.
pub mod password_file;
// Files and folders for their owner only.
pub mod private;
// The limits of this process.
pub mod process;
// SQLite files: opening, checking, migrating.
pub mod sqlite;
// TLS over a socket, either side.
pub mod tls_pump;
// UDP sockets and trains of datagrams.
pub mod udp;
// Threads with bounded queues.
pub mod worker;
