//! What the judge says, and the engine's own words in it.

use serde::{Deserialize, Serialize};

use crate::model::{Code, Verdict};

/// A change of verdict or code of one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictChange {
    /// Commit.
    pub commit: String,
    /// When, in the clock that the judge is fed with (milliseconds).
    pub t: i64,
    /// Verdict.
    pub verdict: Verdict,
    /// Code.
    pub code: Code,
    /// What a person or an agent needs to know, in one or two sentences.
    pub say: String,
}

/// The longest quotation of an engine's own words, in characters.
const QUOTE: usize = 400;

/// The engine's own words: control characters out, spaces joined, capped. They inform and never decide.
pub fn quote(text: &str) -> String {
    let mut out = String::new();
    let mut space = false;
    let mut n = 0usize;
    for c in text.chars() {
        // Bidirectional overrides could make a person read something else than what is there.
        if c.is_control()
            || c.is_whitespace()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        {
            space = !out.is_empty();
            continue;
        }
        if n >= QUOTE {
            out.push('…');
            break;
        }
        if space {
            out.push(' ');
            n += 1;
            space = false;
        }
        out.push(c);
        n += 1;
    }
    out
}

/// The first seven characters of a commit id, as people write them.
pub fn short(rev: &str) -> String {
    rev.chars().filter(|c| !c.is_control()).take(7).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_have_no_control_characters_and_an_end() {
        assert_eq!(quote("a\n\n b\u{1b}[31m\u{202e}c "), "a b [31m c");
        assert_eq!(quote(&"x".repeat(5000)).chars().count(), QUOTE + 1);
    }
}
