//! Text that fits a terminal.

use crate::print::println;

/// Of a terminal, at least.
pub const COLUMNS: usize = 100;

/// A text over as many lines as it needs, all of them behind the column where `before` ends.
pub fn hanging(before: &str, text: &str) {
    hung(before, text).iter().for_each(|line| println!("{line}"));
}

/// The lines that [`hanging`] prints.
pub fn hung(before: &str, text: &str) -> Vec<String> {
    let indent = before.chars().count();
    let lines = wrap(text, COLUMNS.saturating_sub(indent)).into_iter().enumerate();
    let lines = lines.map(|(number, line)| {
        let before = if number == 0 { before } else { "" };
        format!("{before:<indent$}{line}").trim_end().to_owned()
    });
    lines.collect()
}

/// The same behind that many spaces.
pub fn wrapped(indent: usize, text: &str) {
    hanging(&" ".repeat(indent), text);
}

/// Cut to that many letters, with a sign that it was.
pub fn short(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        text.to_owned()
    } else {
        text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
    }
}

/// Broken between words; a word that is longer than a line is broken too.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let room = room.max(1);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace().flat_map(|word| pieces(word, room)) {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > room {
            lines.push(String::new());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
            }
            *line += &word;
        }
        used += length + usize::from(used > 0);
    }
    lines
}

fn pieces(word: &str, room: usize) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    letters.chunks(room).map(|piece| piece.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::{short, wrap};

    #[test]
    fn long_texts_are_broken_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("ab", 0), ["a", "b"]);
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(short("abcd", 4), "abcd");
        assert_eq!(short("abcde", 4), "abc…");
    }
}
