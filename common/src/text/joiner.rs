//! Where the two joiners, ZWNJ (U+200C) and ZWJ (U+200D), belong to a text.
//!
//! Nobody sees a joiner: anywhere in a word it would make two names differ that look the same. Some
//! texts need them, though, and there they change what is seen:
//!
//! - ZWJ between two pictographs makes one of them, as in families and flags (UTS #51, ED-16);
//! - ZWNJ keeps two letters apart that would join, as in Persian (UAX #31, context A1);
//! - behind a virama, ZWNJ shows it (context A2) and ZWJ forms a half letter (context B), as in Indic
//!   scripts.
//!
//! UAX #31 has these contexts in its section on layout and format control characters. Letters on both
//! sides of a joiner are of one script. One thing more than UAX #31 has is let through: ZWNJ behind a letter
//! that joins to none behind it. It changes nothing there, but Persian has it between many a word and its
//! suffix, and whoever reads such a word should not meet a replacement character in it.
//!
//! No context reaches over another joiner or a hostile character. So what is replaced next to a joiner
//! changes nothing about it, and each character is looked at for the joiner before it and for the one
//! behind it only, however long the text is.

use icu_properties::props::{
    CanonicalCombiningClass, ExtendedPictographic, GeneralCategory, GeneralCategoryGroup,
    IndicSyllabicCategory, JoiningType, Script,
};
use icu_properties::{CodePointMapData, CodePointSetData};

use super::is_hostile;

/// Zero-width non-joiner.
const ZWNJ: char = '\u{200c}';
/// Zero-width joiner.
const ZWJ: char = '\u{200d}';

/// Tells whether a joiner between `before` and `after` belongs there. Anything but a joiner never does.
pub(super) fn belongs(before: &str, joiner: char, after: &str) -> bool {
    match joiner {
        ZWNJ => keeps_letters_apart(before, after) || shows_virama(before, after),
        ZWJ => joins_pictographs(before, after) || forms_half_letter(before, after),
        _ => false,
    }
}

/// A pictograph, perhaps with a skin tone or in emoji presentation, before and another behind.
fn joins_pictographs(before: &str, after: &str) -> bool {
    let is_pictograph = |c: char| CodePointSetData::new::<ExtendedPictographic>().contains(c);
    let is_variation = |c: char| matches!(c, '\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}');
    let base = before.strip_suffix(is_variation).unwrap_or(before);
    base.ends_with(is_pictograph) && after.starts_with(is_pictograph)
}

/// Context A1, `$LJ $T* ZWNJ $T* $RJ`, and the same behind a letter that joins backwards only.
fn keeps_letters_apart(before: &str, after: &str) -> bool {
    let joining = |c: char| CodePointMapData::<JoiningType>::new().get(c);
    let is_letter = |c: &char| joining(*c) != JoiningType::Transparent || is_hostile(*c);
    let left = before.chars().rev().find(is_letter);
    let right = after.chars().find(is_letter);
    let (Some(left), Some(right)) = (left, right) else {
        return false;
    };
    matches!(
        joining(left),
        JoiningType::DualJoining | JoiningType::LeftJoining | JoiningType::RightJoining
    ) && matches!(
        joining(right),
        JoiningType::DualJoining | JoiningType::RightJoining
    ) && script(left) == script(right)
}

/// Context A2: `$L $M* $V $M₁* ZWNJ $M₁* $L`.
fn shows_virama(before: &str, after: &str) -> bool {
    let right = after.chars().find(|c| !is_reordered_mark(*c));
    let left = letter_with_virama(before);
    left.zip(right)
        .is_some_and(|(left, right)| is_letter(right) && script(left) == script(right))
}

/// Context B: `$L $M* $V $M₁* ZWJ (?!$D)`.
fn forms_half_letter(before: &str, after: &str) -> bool {
    let syllabic = CodePointMapData::<IndicSyllabicCategory>::new();
    let is_vowel_sign = |c| syllabic.get(c) == IndicSyllabicCategory::VowelDependent;
    letter_with_virama(before).is_some() && !after.starts_with(is_vowel_sign)
}

/// The letter at the end of a text that has a virama: `$L` of `$L $M* $V $M₁*`.
fn letter_with_virama(text: &str) -> Option<char> {
    let mut rest = text.chars().rev();
    let virama = rest.find(|c| combining_class(*c) == VIRAMA || !is_reordered_mark(*c))?;
    let letter =
        rest.find(|c| category(*c) != GeneralCategory::NonspacingMark || is_hostile(*c))?;
    let has_virama = combining_class(virama) == VIRAMA && script(virama) == script(letter);
    (has_virama && is_letter(letter)).then_some(letter)
}

const VIRAMA: CanonicalCombiningClass = CanonicalCombiningClass::Virama;

fn is_letter(c: char) -> bool {
    GeneralCategoryGroup::Letter.contains(category(c)) && !is_hostile(c)
}

/// `$M₁`: a nonspacing mark that takes part in canonical ordering.
fn is_reordered_mark(c: char) -> bool {
    category(c) == GeneralCategory::NonspacingMark
        && combining_class(c) != CanonicalCombiningClass::NotReordered
        && !is_hostile(c)
}

fn category(c: char) -> GeneralCategory {
    CodePointMapData::<GeneralCategory>::new().get(c)
}

fn combining_class(c: char) -> CanonicalCombiningClass {
    CodePointMapData::<CanonicalCombiningClass>::new().get(c)
}

fn script(c: char) -> Script {
    CodePointMapData::<Script>::new().get(c)
}

#[cfg(test)]
mod tests {
    use crate::text::{block, inline};

    /// Replaces every joiner by the replacement character.
    fn without_joiners(text: &str) -> String {
        text.replace(['\u{200c}', '\u{200d}'], "\u{fffd}")
    }

    #[test]
    fn joiners_stay_where_unicode_uses_them() {
        for text in [
            // Families, flags, occupations, skin tones, hair (UTS #51).
            "👨\u{200d}👩\u{200d}👧\u{200d}👦",
            "🏳\u{fe0f}\u{200d}🌈",
            "👩🏽\u{200d}🚀",
            "🕵\u{fe0f}\u{200d}♂\u{fe0f}",
            "👩🏻\u{200d}❤\u{fe0f}\u{200d}💋\u{200d}👩🏿",
            "👩\u{200d}🦰",
            "❤\u{fe0f}\u{200d}🔥",
            // A1: Persian, also with a vowel mark on either side, Syriac and Mongolian.
            "می\u{200c}خواهم",
            "نمی\u{200c}شود",
            "کتاب\u{200c}ها",
            "کار\u{200c}ها",
            "بی\u{64e}\u{200c}\u{650}خ",
            "ܒ\u{200c}ܒ",
            "ᠠ\u{200c}ᠠ",
            // A2: a virama that shows, in Devanagari and in Kannada; with a nukta.
            "क्\u{200c}ष",
            "ರಾಜ್\u{200c}ಕುಮಾರ್",
            "क़्\u{200c}ष",
            // B: half letters, in Devanagari, Sinhala and Malayalam, at the end of the text, too.
            "क्\u{200d}ष",
            "ශ්\u{200d}රී ලංකා",
            "ന്\u{200d}",
            "क्\u{200d}, ख",
        ] {
            assert_eq!(inline(text), text);
            assert_eq!(block(text), text);
        }
    }

    #[test]
    fn t05_joiners_hide_nowhere_else() {
        for text in [
            "pay\u{200d}pal",
            "pay\u{200c}pal",
            "\u{200c}",
            "\u{200d}",
            "a\u{200d}👩",
            "👩\u{200d}a",
            "👩\u{200d}",
            "👩\u{200d}\u{fe0f}👩",
            "👩\u{200c}👩",
            "1\u{fe0f}\u{200d}2",
            "👩\u{fe0f}\u{fe0f}\u{200d}👩",
            // One after another joins nothing.
            "👩\u{200d}\u{200d}👩",
            "می\u{200c}\u{200c}خواهم",
            // Letters of two scripts, and no letter behind.
            "می\u{200c}",
            "\u{200c}خ",
            "می\u{200d}خ",
            "می\u{200c} خ",
            "ب\u{200c}ܒ",
            // No virama, or no letter with it.
            "क\u{200c}ष",
            "क\u{200d}ष",
            "्\u{200d}",
            "a्\u{200d}",
            "क्\u{200c}",
            "क्\u{200c}a",
            "क्\u{200c} ष",
            // Before a dependent vowel.
            "क्\u{200d}ि",
        ] {
            assert_eq!(inline(text), without_joiners(text), "{text:?}");
        }
    }

    #[test]
    fn t05_no_joiner_belongs_across_what_is_replaced() {
        for (text, shown) in [
            ("ی\u{ad}\u{200c}خ", "ی\u{fffd}\u{fffd}خ"),
            ("ی\u{200c}\u{202e}خ", "ی\u{fffd}\u{fffd}خ"),
            ("क\u{34f}्\u{200d}ष", "क\u{fffd}्\u{fffd}ष"),
            ("👩\u{200b}\u{200d}👩", "👩\u{fffd}\u{fffd}👩"),
        ] {
            assert_eq!(inline(text), shown, "{text:?}");
            assert_eq!(inline(shown), shown);
        }
        // Lines are apart, in a block, too.
        assert_eq!(block("ی\u{200c}\nخ"), "ی\u{fffd}\nخ");
    }

    #[test]
    fn variation_selectors_and_keycaps_pass_and_tags_do_not() {
        for text in ["❤\u{fe0e}", "❤\u{fe0f}", "1\u{fe0f}\u{20e3}", "🇩🇪", "👍🏿"] {
            assert_eq!(inline(text), text);
        }
        let england = "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}";
        assert_eq!(inline(england), format!("🏴{}", "\u{fffd}".repeat(6)));
    }
}
