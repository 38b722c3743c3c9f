//! The commands that start with a slash: one table for what is understood, completed, explained by
//! `/help` and listed in the README.

/// A command of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slash {
    To,
    List,
    History,
    Outbox,
    SendFile,
    Accept,
    Decline,
    Cancel,
    Status,
    Help,
    Quit,
}

/// What stands behind a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    Nothing,
    /// How many messages; may be left out.
    Count,
    /// The number of an offer or a transfer; may be left out.
    Offer,
    /// The number of an offer and a name for its file; each may be left out.
    OfferAndName,
    Account,
    AccountAndPath,
}

impl Slash {
    /// In the order in which help lists them.
    pub(crate) const ALL: [Self; 11] = [
        Self::To,
        Self::List,
        Self::History,
        Self::Outbox,
        Self::SendFile,
        Self::Accept,
        Self::Decline,
        Self::Cancel,
        Self::Status,
        Self::Help,
        Self::Quit,
    ];

    /// Understands the word behind the slash.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        let is_meant = |slash: &Self| slash.name() == word || slash.aliases().contains(&word);
        Self::ALL.into_iter().find(is_meant)
    }

    /// The word behind the slash.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::To => "to",
            Self::List => "list",
            Self::History => "history",
            Self::Outbox => "outbox",
            Self::SendFile => "send-file",
            Self::Accept => "accept",
            Self::Decline => "decline",
            Self::Cancel => "cancel",
            Self::Status => "status",
            Self::Help => "help",
            Self::Quit => "quit",
        }
    }

    /// Words that mean the same and are not advertised.
    const fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::List => &["who"],
            Self::Help => &["?"],
            Self::Quit => &["q", "exit"],
            Self::To
            | Self::History
            | Self::Outbox
            | Self::SendFile
            | Self::Accept
            | Self::Decline
            | Self::Cancel
            | Self::Status => &[],
        }
    }

    /// What stands behind it.
    pub(crate) const fn operand(self) -> Operand {
        match self {
            Self::To => Operand::Account,
            Self::History => Operand::Count,
            Self::SendFile => Operand::AccountAndPath,
            Self::Accept => Operand::OfferAndName,
            Self::Decline | Self::Cancel => Operand::Offer,
            Self::List | Self::Outbox | Self::Status | Self::Help | Self::Quit => Operand::Nothing,
        }
    }

    /// How it is typed, with what stands behind it: `/send-file NAME PATH`.
    pub(crate) fn usage(self) -> String {
        let operand = match self.operand() {
            Operand::Nothing => "",
            Operand::Count => " [COUNT]",
            Operand::Offer => " [N]",
            Operand::OfferAndName => " [N] [as NAME]",
            Operand::Account => " NAME",
            Operand::AccountAndPath => " NAME PATH",
        };
        format!("/{}{operand}", self.name())
    }

    /// What it does, for people.
    pub(crate) const fn help(self) -> &'static str {
        match self {
            Self::To => "talk to NAME from now on",
            Self::List => "who is online",
            Self::History => "earlier messages of this conversation",
            Self::Outbox => "messages that wait for their recipients",
            Self::SendFile => "send a file",
            Self::Accept => "take the latest offered file, or the one of number N",
            Self::Decline => "do not take it",
            Self::Cancel => "end the transfer of number N, or the only one",
            Self::Status => "the connection, the links, and the files under way",
            Self::Help => "what can be typed",
            Self::Quit => "end; so do 'quit', Ctrl-D, and Ctrl-C twice",
        }
    }
}

/// A hint in which commands of the program are named, with those of a conversation in their place where
/// they do the same: `/status` does not name the server.
pub(crate) fn in_conversation(hint: &str) -> String {
    let mut hint = hint.to_owned();
    for slash in Slash::ALL
        .into_iter()
        .filter(|slash| *slash != Slash::Status)
    {
        let name = slash.name();
        hint = hint.replace(&format!("'peer {name}'"), &format!("/{name}"));
    }
    hint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_means_one_command() {
        let words = |slash: Slash| slash.aliases().iter().copied().chain([slash.name()]);
        for slash in Slash::ALL {
            for word in words(slash) {
                assert_eq!(Slash::parse(word), Some(slash), "{word}");
            }
        }
        assert_eq!(Slash::parse("nonsense"), None);
        assert_eq!(Slash::parse(""), None);
    }

    #[test]
    fn hints_name_what_can_be_typed_here() {
        for (hint, here) in [
            (
                "see who is online with 'peer list'",
                "see who is online with /list",
            ),
            (
                "the address in 'peer status'",
                "the address in 'peer status'",
            ),
            ("run 'peer login NAME'", "run 'peer login NAME'"),
            ("'peer outbox cancel NAME'", "'peer outbox cancel NAME'"),
        ] {
            assert_eq!(in_conversation(hint), here);
        }
    }

    #[test]
    fn the_readme_lists_every_command_and_no_other() {
        let readme = include_str!("../../../README.md");
        let listed = readme.lines().filter(|line| line.starts_with("| `/"));
        let table = Slash::ALL.map(|slash| format!("| `{}` | {} |", slash.usage(), slash.help()));
        assert!(listed.eq(table.iter()), "{table:#?}");
    }
}
