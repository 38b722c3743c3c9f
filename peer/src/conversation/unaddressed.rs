//! Texts that were typed before it was known to whom they go.
//!
//! Somebody who types gets the text back into the line: at once, to put a name in front of it, and again once there
//! is a recipient. What a program writes is only counted, and without a line editor a person is just told.

/// The latest such text, or how many there were.
#[derive(Debug, Default)]
pub(super) struct Unaddressed {
    /// The line as it was typed, until it is sent or somebody else is written to.
    kept: Option<String>,
    /// What the line that is asked for next begins with.
    draft: Option<String>,
    /// Lines of a program that went nowhere.
    lost: usize,
}

impl Unaddressed {
    /// A line was typed in an editor, without a recipient.
    pub(super) fn keep(&mut self, line: &str) {
        self.kept = Some(line.to_owned());
        self.draft = self.kept.clone();
    }

    /// A program has written a line without a recipient.
    pub(super) const fn lose(&mut self) {
        self.lost += 1;
    }

    /// There is a recipient now.
    pub(super) fn on_recipient(&mut self) {
        self.draft = self.kept.take();
    }

    /// A text was sent: what was kept is in it, or not wanted any more.
    pub(super) fn on_sent(&mut self) {
        self.kept = None;
    }

    /// The line that was asked for is typed.
    pub(super) fn on_typed(&mut self) {
        self.draft = None;
    }

    /// What the line that is asked for next begins with.
    pub(super) fn draft(&self) -> &str {
        self.draft.as_deref().unwrap_or_default()
    }

    /// How many lines of a program went nowhere.
    pub(super) const fn lost(&self) -> usize {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_back_until_it_is_sent() {
        let mut texts = Unaddressed::default();
        texts.keep("hello");
        assert_eq!((texts.draft(), texts.lost()), ("hello", 0));
        texts.on_typed();
        assert_eq!(texts.draft(), "");
        texts.on_recipient();
        assert_eq!(texts.draft(), "hello");
        texts.on_typed();
        texts.on_recipient();
        assert_eq!(texts.draft(), "", "once");

        texts.keep("bye");
        texts.on_typed();
        texts.on_sent();
        texts.on_recipient();
        assert_eq!(texts.draft(), "");
    }

    #[test]
    fn what_a_program_writes_is_counted() {
        let mut texts = Unaddressed::default();
        texts.lose();
        texts.lose();
        assert_eq!((texts.draft(), texts.lost()), ("", 2));
    }
}
