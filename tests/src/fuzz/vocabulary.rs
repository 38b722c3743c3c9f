//! Whether a generator of requests, frames or commands forgets one.

use std::collections::BTreeSet;
use std::fmt::Debug;

use super::feed::Feed;

/// Inputs of a generator: enough for a word that is drawn once in some hundred times.
const INPUTS: u32 = 20_000;

/// Fails if a generator never draws what one of the samples is.
#[track_caller]
pub(super) fn check<T: Debug>(samples: &[T], mut draw: impl FnMut(&mut Feed<'_>) -> T) {
    let samples = samples.iter().map(word).collect();
    let drawn = all(&mut |feed| word(&draw(feed)));
    compare(&samples, &drawn);
}

/// Fails if a generator never draws one of these names.
#[track_caller]
pub(super) fn check_names(names: &[&str], mut draw: impl FnMut(&mut Feed<'_>) -> String) {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    compare(&names, &all(&mut draw));
}

fn all(draw: &mut dyn FnMut(&mut Feed<'_>) -> String) -> BTreeSet<String> {
    let inputs = (0..INPUTS).map(|n| {
        let mut bytes = [0; 64];
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(&n.to_be_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        draw(&mut Feed(&bytes))
    });
    inputs.collect()
}

#[track_caller]
fn compare(expected: &BTreeSet<String>, drawn: &BTreeSet<String>) {
    let forgotten: Vec<&String> = expected.difference(drawn).collect();
    assert!(
        !expected.is_empty() && forgotten.is_empty(),
        "never drawn: {forgotten:?}"
    );
}

/// The names of an enum's variant and of those inside it, without what they hold.
fn word(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    let end = text.find(|letter: char| !(letter.is_alphanumeric() || "()".contains(letter)));
    text[..end.unwrap_or(text.len())].to_owned()
}

#[test]
fn a_word_is_what_a_value_is_and_not_what_it_holds() {
    assert_eq!(word(&Some(Ok::<_, ()>(String::from("hi")))), "Some(Ok(");
    assert_eq!(word(&Feed(&[1])), "Feed(");
}

#[test]
#[should_panic(expected = "never drawn: [\"Some(true)\"]")]
fn what_a_generator_forgets_is_named() {
    check(&[None, Some(true)], |feed| feed.flag().then_some(false));
}
