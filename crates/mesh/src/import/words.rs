//! Words, quoted texts and marks, each with its line.

/// A word, a quoted text, or one of the marks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Word {
    /// What it says, without quotes.
    pub(super) text: String,
    /// Counted from 1.
    pub(super) line: usize,
    /// Whether it stood in quotes: then it is never a mark or a keyword.
    pub(super) quoted: bool,
}

impl Word {
    /// Whether it is this mark or keyword.
    pub(super) fn is(&self, text: &str) -> bool {
        !self.quoted && self.text == text
    }
}

/// Splits at blanks; each of `marks` is a word of its own; `#` begins a comment where a word could begin. A newline is the
/// word `"\n"` if it is among the marks, unless a backslash stands before it.
pub(super) fn split(text: &str, marks: &[char]) -> Vec<Word> {
    let mut words = Vec::new();
    let mut line = 1;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let at = line;
        let mut push = |text: String, quoted| words.push(Word { text, line: at, quoted });
        match c {
            '\\' if chars.next_if_eq(&'\n').is_some() => line += 1,
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            '\n' => {
                if marks.contains(&'\n') {
                    push("\n".into(), false);
                }
                line += 1;
            }
            '"' => {
                let mut inner = String::new();
                for c in chars.by_ref() {
                    match c {
                        '"' if inner.ends_with('\\') => drop(inner.pop()),
                        '"' => break,
                        '\n' => line += 1,
                        _ => {}
                    }
                    inner.push(c);
                }
                push(inner, true);
            }
            c if marks.contains(&c) => push(c.into(), false),
            c if c.is_whitespace() => {}
            c => {
                let mut word = String::from(c);
                while let Some(c) =
                    chars.next_if(|c| !c.is_whitespace() && *c != '"' && !marks.contains(c))
                {
                    word.push(c);
                }
                push(word, false);
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_marks_and_lines() {
        let words = split("a {b;# c }\n\"d # e\" \\\n f#g", &['{', '}', ';']);
        let shown: Vec<_> = words.iter().map(|w| (w.text.as_str(), w.line, w.quoted)).collect();
        assert_eq!(
            shown,
            [
                ("a", 1, false),
                ("{", 1, false),
                ("b", 1, false),
                (";", 1, false),
                ("d # e", 2, true),
                ("f#g", 3, false)
            ]
        );
        assert_eq!(split("a\nb", &['\n']).len(), 3);
        assert_eq!(split(r#""a \"b\" c""#, &[])[0].text, r#"a "b" c"#);
        assert!(split("\"open", &[]).iter().all(|w| w.text == "open"));
    }
}
