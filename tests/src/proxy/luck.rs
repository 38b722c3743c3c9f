//! How bad the luck is, and the dice that everything is decided with.

/// How bad the luck is. Rates are so many of a thousand.
#[derive(Clone, Copy, Debug)]
pub struct Luck {
    /// Datagrams that are lost.
    pub loss: u64,
    /// Datagrams that come twice.
    pub doubles: u64,
    /// Datagrams that come later than others sent after them.
    pub delays: u64,
    /// How much later at most.
    pub delay_ms_max: u64,
    /// No datagram gets through at all.
    pub is_dark: bool,
    /// Connections that are cut at some moment.
    pub cuts: u64,
    /// How long such a connection lives at most.
    pub life_ms_max: u64,
    /// Pieces of a connection's bytes that come late.
    pub pauses: u64,
    /// How late at most.
    pub pause_ms_max: u64,
    /// Most bytes in one piece.
    pub piece_len_max: u64,
}

impl Luck {
    /// Everything arrives.
    pub const GOOD: Self = Self {
        loss: 0,
        doubles: 0,
        delays: 0,
        delay_ms_max: 1,
        is_dark: false,
        cuts: 0,
        life_ms_max: 1,
        pauses: 0,
        pause_ms_max: 1,
        piece_len_max: PIECE_LEN_MAX as u64,
    };

    /// The peers cannot reach each other. The server stays as near as before.
    pub const DARK: Self = Self {
        is_dark: true,
        ..Self::GOOD
    };

    /// Bad luck of all kinds, not so bad that nothing could be done in half a minute: a connection
    /// often lives long enough for a log-in, and three of four datagrams arrive.
    pub fn bad(dice: &mut Dice) -> Self {
        Self {
            loss: dice.within(20, 150),
            doubles: dice.within(20, 150),
            delays: dice.within(50, 250),
            delay_ms_max: dice.within(2, 30),
            is_dark: false,
            cuts: dice.within(500, 800),
            life_ms_max: dice.within(300, 1500),
            pauses: dice.within(50, 300),
            pause_ms_max: dice.within(1, 10),
            piece_len_max: dice.within(50, 700),
        }
    }
}

/// Most bytes of a connection that are on their way through the proxy at once, for each direction.
pub(super) const PIECE_LEN_MAX: usize = 4096;

/// Numbers that look random and follow from a seed: SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// The dice of a seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Other dice, which depend on the seed and on their number alone.
    pub(super) fn child(&self, number: u64) -> Self {
        let mut mixed = Self::new(self.state ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03));
        Self::new(mixed.roll())
    }

    /// A number from `least` to `most`, both included.
    pub fn within(&mut self, least: u64, most: u64) -> u64 {
        least + self.roll() % (most - least + 1)
    }

    /// True in `rate` of a thousand cases.
    pub(super) fn hits(&mut self, rate: u64) -> bool {
        self.within(0, 999) < rate
    }

    fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_says_the_same_and_rates_are_kept() {
        let rolls = |dice: &Dice| {
            let mut dice = dice.clone();
            (0..1000).map(move |_| dice.roll()).collect::<Vec<_>>()
        };
        let dice = Dice::new(1);
        assert_eq!(rolls(&dice), rolls(&Dice::new(1)));
        assert_ne!(rolls(&dice.child(1)), rolls(&dice.child(2)));
        assert_eq!(rolls(&dice.child(1)), rolls(&dice.child(1)));
        let mut dice = Dice::new(2);
        let hits = (0..10_000).filter(|_| dice.hits(300)).count();
        assert!((2800..3200).contains(&hits), "{hits}");
        assert!((0..1000).all(|_| (3..=5).contains(&dice.within(3, 5))));
        assert!(!dice.hits(0));
    }
}
