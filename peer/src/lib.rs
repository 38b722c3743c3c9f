//! Engine and shell of this program.
