//! Rungs of a ladder: what two hosts sent each other, and what either did, as lines of text in the notation of the RFCs.

/// Room between the two hosts' times, in characters.
pub const WIDTH: usize = 74;

/// Letters in front of an arrow's text: for its time.
const MARGIN: usize = 12;

/// The two hosts, above their ladder.
pub fn head(left: &str, right: &str) -> String {
    format!("{left:<44}{right:>56}\n")
}

/// One message; `ends` are the times at the left and at the right host.
pub fn arrow(rightward: bool, ends: [&str; 2], text: &str) -> String {
    let [left, right] = ends;
    let mut lines = wrap(text, WIDTH - 8).into_iter();
    let first = lines.next().unwrap_or_default();
    let dashes = "-".repeat(WIDTH - 3 - first.chars().count());
    let middle =
        if rightward { format!("{first} {dashes}>") } else { format!("<{dashes} {first}") };
    let line = format!("{left:>MARGIN$} {middle:<WIDTH$} {right:>MARGIN$}");
    let mut out = line.trim_end().to_owned() + "\n";
    for line in lines {
        out += &match rightward {
            true => format!("{:>MARGIN$}   {line}\n", ""),
            false => format!("{:>MARGIN$} {line:>WIDTH$}\n", ""),
        };
    }
    out
}

/// Something that the left or the right host did or noticed.
pub fn note(on_left: bool, at: &str, text: &str) -> String {
    let mut out = String::new();
    for (n, line) in wrap(text, WIDTH - 4).iter().enumerate() {
        let at = if n == 0 { at } else { "" };
        out += &match on_left {
            true => format!("{at:>MARGIN$}  . {line}\n"),
            false => format!("{:>MARGIN$} {:>WIDTH$} {at:>MARGIN$}\n", "", format!("{line} . ")),
        };
    }
    out
}

/// Lines of at most `width` characters, broken at spaces; longer words are cut.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let word: String = word.chars().take(width).collect();
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::{WIDTH, arrow, note, wrap};

    #[test]
    fn arrows_are_of_one_length() {
        for rightward in [true, false] {
            for text in ["", "short", &"long words ".repeat(20), &"x".repeat(300)] {
                let drawn = arrow(rightward, ["1.0", "2.0"], text);
                for line in drawn.lines() {
                    assert!(line.chars().count() <= WIDTH + 26, "{line}");
                }
            }
        }
    }

    #[test]
    fn texts_are_broken_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("", 7), [""]);
        assert_eq!(wrap("abcdefgh", 4), ["abcd"]);
        assert_eq!(note(true, "1", "a").lines().count(), 1);
    }
}
