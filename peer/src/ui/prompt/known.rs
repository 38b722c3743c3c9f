//! What is known of the line that is typed, so that a key does not cost a look at all of it.

/// The beginning of a line that may be drawn as it was typed.
#[derive(Debug, Default)]
pub(super) struct Known(String);

impl Known {
    /// Tells whether all of `line` may be drawn as it was typed, from what is known of its beginning and a
    /// look at what follows that. Where it says no, nobody has looked.
    pub(super) fn covers(&mut self, line: &str) -> bool {
        let Some(rest) = line.strip_prefix(&*self.0) else {
            self.0.clear();
            return false;
        };
        let is_apart = |c: char| c.is_ascii() || c.is_alphanumeric();
        // What stands before it is the same with it as without: a letter of ASCII joins nothing.
        let is_known = self.0.ends_with(is_apart) && rest.bytes().all(|b| matches!(b, b' '..=b'~'));
        if is_known {
            self.0.push_str(rest);
        }
        is_known
    }

    /// All of `line` may be drawn as it was typed.
    pub(super) fn learn(&mut self, line: &str) {
        line.clone_into(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_follows_a_known_beginning_is_looked_at() {
        let mut known = Known::default();
        assert!(!known.covers("a"), "nothing is known");
        known.learn("aä");
        for (line, is_covered) in [
            ("aä", true),
            ("aäb", true),
            ("aäbc d!", true),
            ("aäbc d!\u{1b}", false),
            ("aäbc d!ä", false),
            ("aäbc d!x", true),
            // Something is deleted, or typed within the line.
            ("aäbc", false),
            ("aäbcd", false),
        ] {
            assert_eq!(known.covers(line), is_covered, "{line:?}");
        }
        known.learn("👩\u{200d}");
        assert!(!known.covers("👩\u{200d}x"), "it may look different now");
    }
}
