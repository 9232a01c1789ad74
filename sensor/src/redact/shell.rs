//! Words of a shell script that stands in one argument, with the place of each in it. No shell: quotes, escapes, and what separates
//! words and commands; nothing is expanded.

use std::ops::Range;

/// One word.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Without its quotes.
    pub(super) text: String,
    /// For each byte of `text`, where it stands in the script (with its backslash), and in which of `quotes`.
    at: Vec<(Range<usize>, Option<usize>)>,
    /// Quoted parts, with their quotes.
    quotes: Vec<Range<usize>>,
    /// It has a `$` that the shell does not expand.
    pub(super) literal_dollar: bool,
}

/// A command and how it ends.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Command {
    /// Its words.
    pub(super) words: Vec<Word>,
    /// Its output is the next one's input.
    pub(super) piped: bool,
}

impl Word {
    /// Where a range of its text stands in the script. What goes over the edge of a quoted part takes in that part's quotes.
    pub(super) fn place(&self, range: &Range<usize>) -> Option<Range<usize>> {
        let ((first, first_quote), (last, last_quote)) = (self.at.get(range.start)?, self.at.get(range.end.checked_sub(1)?)?);
        let (mut start, mut end) = (first.start, last.end);
        if first_quote != last_quote {
            start = first_quote.and_then(|quote| self.quotes.get(quote)).map_or(start, |quote| quote.start);
            end = last_quote.and_then(|quote| self.quotes.get(quote)).map_or(end, |quote| quote.end);
        }
        Some(start..end)
    }
}

/// Splits a script. What is not closed ends with the text.
pub(super) fn commands(script: &str) -> Vec<Command> {
    let mut splitter = Splitter { commands: Vec::new(), command: Command::default(), word: None };
    let mut chars = script.char_indices().peekable();
    let next_is = |chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>, wanted: char| chars.next_if(|(_, c)| *c == wanted).is_some();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' | '"' => {
                let quote = splitter.open(at);
                while let Some((at, inner)) = chars.next() {
                    if inner == c {
                        break;
                    }
                    match (c, inner) {
                        // In double quotes a backslash speaks for these only.
                        ('"', '\\') => match chars.next_if(|(_, c)| matches!(c, '"' | '\\' | '$' | '`')) {
                            Some((_, escaped)) => splitter.push(at, escaped, 1 + escaped.len_utf8(), Some(quote), true),
                            None => splitter.push(at, '\\', 1, Some(quote), false),
                        },
                        _ => splitter.push(at, inner, inner.len_utf8(), Some(quote), c == '\''),
                    }
                }
                splitter.close(quote, chars.peek().map_or(script.len(), |(at, _)| *at));
            }
            '\\' => match chars.next() {
                Some((_, '\n')) => {}
                Some((_, escaped)) => splitter.push(at, escaped, 1 + escaped.len_utf8(), None, true),
                None => splitter.push(at, '\\', 1, None, true),
            },
            '|' if !next_is(&mut chars, '|') => {
                // `|&` pipes too.
                next_is(&mut chars, '&');
                splitter.end_command(true);
            }
            ';' | '&' | '|' | '(' | ')' | '\n' | '`' => splitter.end_command(false),
            '<' | '>' => splitter.end_word(),
            c if c.is_whitespace() => splitter.end_word(),
            c => splitter.push(at, c, c.len_utf8(), None, false),
        }
    }
    splitter.end_command(false);
    splitter.commands
}

struct Splitter {
    commands: Vec<Command>,
    command: Command,
    word: Option<Word>,
}

impl Splitter {
    fn word(&mut self) -> &mut Word {
        self.word.get_or_insert_with(|| Word { text: String::new(), at: Vec::new(), quotes: Vec::new(), literal_dollar: false })
    }

    fn push(&mut self, at: usize, c: char, len: usize, quote: Option<usize>, literal: bool) {
        let word = self.word();
        word.text.push(c);
        word.at.extend(std::iter::repeat_n((at..at + len, quote), c.len_utf8()));
        word.literal_dollar |= literal && c == '$';
    }

    fn open(&mut self, at: usize) -> usize {
        let word = self.word();
        word.quotes.push(at..at);
        word.quotes.len() - 1
    }

    fn close(&mut self, quote: usize, end: usize) {
        if let Some(quote) = self.word().quotes.get_mut(quote) {
            quote.end = end;
        }
    }

    fn end_word(&mut self) {
        self.command.words.extend(self.word.take());
    }

    fn end_command(&mut self, piped: bool) {
        self.end_word();
        let command = std::mem::take(&mut self.command);
        if !command.words.is_empty() {
            self.commands.push(Command { piped, ..command });
        }
    }
}

/// Whether a command takes a password from its input.
pub(super) fn reads_password(words: &[&str]) -> bool {
    let file = |word: &&str| word.rsplit('/').next().map(str::to_owned).unwrap_or_default();
    let Some(program) = words.first().map(file) else { return false };
    match program.as_str() {
        "sudo" => words.iter().skip(1).take_while(|word| word.starts_with('-')).any(|word| *word == "--stdin" || is_group_with(word, 'S')),
        "chpasswd" | "chgpasswd" => true,
        "passwd" => words.contains(&"--stdin"),
        "cryptsetup" => true,
        _ => words.iter().any(|word| word.ends_with("password-stdin") || word.ends_with("passphrase-fd=0")),
    }
}

/// A group of short options with this letter in it.
fn is_group_with(word: &str, letter: char) -> bool {
    word.len() > 1 && !word.starts_with("--") && word.starts_with('-') && word.contains(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(script: &str) -> Vec<Vec<String>> {
        commands(script).into_iter().map(|command| command.words.into_iter().map(|word| word.text).collect()).collect()
    }

    #[test]
    fn words_and_commands() {
        assert_eq!(words("a 'b c' d\\ e; f && \"g \\\"h\\\"\" | i"), [vec!["a", "b c", "d e"], vec!["f"], vec!["g \"h\""], vec!["i"]]);
        assert_eq!(words("x=$(cat y)z 'open"), [vec!["x=$"], vec!["cat", "y"], vec!["z", "open"]]);
        assert_eq!(commands("a|b||c").iter().map(|command| command.piped).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn a_dollar_that_is_no_variable() {
        let literal = |script: &str| commands(script)[0].words[0].literal_dollar;
        assert!(literal("'$a'") && literal("\\$a") && literal("\"\\$a\""));
        assert!(!literal("$a") && !literal("\"$a\""));
    }

    #[test]
    fn places_take_in_quotes_that_they_cut() {
        let script = "x --p='a b'c \"d\"";
        let commands = commands(script);
        let words = &commands[0].words;
        assert_eq!(words[1].text, "--p=a bc");
        assert_eq!(&script[words[1].place(&(4..8)).unwrap()], "'a b'c");
        assert_eq!(&script[words[1].place(&(4..7)).unwrap()], "a b");
        assert_eq!(&script[words[2].place(&(0..1)).unwrap()], "d");
    }

    #[test]
    fn passwords_from_a_pipe() {
        assert!(reads_password(&["sudo", "-kS", "id"]) && reads_password(&["/usr/sbin/chpasswd"]));
        assert!(reads_password(&["docker", "login", "--password-stdin"]));
        assert!(!reads_password(&["sudo", "id", "-S"]) && !reads_password(&["cat"]) && !reads_password(&[]));
    }

    proptest::proptest! {
        #[test]
        fn every_word_has_its_place(script in "('|\"|\\\\|\\$| |;|\\||&|\\(|\n|é|[a-z]){0,40}") {
            for word in commands(&script).iter().flat_map(|command| &command.words) {
                for (at, c) in word.text.char_indices() {
                    let place = word.place(&(at..at + c.len_utf8())).unwrap();
                    assert!(script.get(place).is_some_and(|raw| raw.ends_with(c)), "{script:?} {:?}", word.text);
                }
            }
        }
    }
}
