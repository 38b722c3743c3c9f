//! How a program of the person's ended.

use std::fmt;

use common::text::inline;
use serde::Serialize;

/// How it ended, for people and for JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ended {
    /// With the exit code 0.
    Well,
    /// With another exit code.
    WithCode(i32),
    /// By a signal.
    BySignal(i32),
    /// It took too long, and was ended.
    TimedOut {
        /// So many seconds after its start.
        after_s: u64,
    },
    /// It did not begin, and why.
    NotStarted(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well => f.write_str("ended well"),
            Self::WithCode(code) => write!(f, "ended with exit code {code}"),
            Self::BySignal(signal) => write!(f, "was ended by signal {signal}"),
            Self::TimedOut { after_s } => {
                write!(f, "took longer than {after_s} s, and was ended")
            }
            Self::NotStarted(why) => write!(f, "could not be started: {}", inline(why)),
        }
    }
}
