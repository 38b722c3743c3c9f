//! Who gets in: what log-ins are limited by.

/// One-time codes.
pub(super) mod admission;
/// How many log-ins may fail.
pub mod lockout;
/// Who may register.
pub mod registration;
