//! Colours, and whether to use them.

use bartizan_bus::event::Severity;

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Also into files and pipes.
    Always,
    /// Never.
    Never,
}

/// Writes text in a colour, or plainly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// `no_color` is the environment variable of that name: any non-empty value turns colours off (no-color.org).
    pub(crate) fn new(choice: ColorChoice, terminal: bool, no_color: Option<&std::ffi::OsStr>) -> Self {
        let on = match choice {
            ColorChoice::Auto => terminal && no_color.is_none_or(std::ffi::OsStr::is_empty),
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        Self { on }
    }

    /// For this process's standard output.
    pub(crate) fn for_stdout(choice: ColorChoice) -> Self {
        use std::io::IsTerminal;
        Self::new(choice, std::io::stdout().is_terminal(), std::env::var_os("NO_COLOR").as_deref())
    }

    fn sgr(self, code: &str, text: &str) -> String {
        if self.on && !text.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.sgr("2", text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.sgr("1", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.sgr("31", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.sgr("33", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.sgr("32", text)
    }

    pub(crate) fn cyan(self, text: &str) -> String {
        self.sgr("36", text)
    }

    /// A severity's own colour.
    pub(crate) fn severity(self, severity: Severity, text: &str) -> String {
        match severity {
            Severity::Info => self.sgr("2", text),
            Severity::Low => self.sgr("36", text),
            Severity::Medium => self.sgr("33", text),
            Severity::High => self.sgr("31", text),
            Severity::Critical => self.sgr("1;37;41", text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn colours_only_where_they_are_wanted() {
        let on = |choice, terminal, no_color: Option<&str>| Paint::new(choice, terminal, no_color.map(OsStr::new)).on;
        assert!(on(ColorChoice::Auto, true, None));
        assert!(on(ColorChoice::Auto, true, Some("")));
        assert!(!on(ColorChoice::Auto, false, None));
        assert!(!on(ColorChoice::Auto, true, Some("1")));
        assert!(on(ColorChoice::Always, false, Some("1")));
        assert!(!on(ColorChoice::Never, true, None));
    }

    #[test]
    fn off_means_no_byte_more() {
        let paint = Paint::new(ColorChoice::Never, true, None);
        assert_eq!(paint.severity(Severity::Critical, "x"), "x");
        assert_eq!(Paint::new(ColorChoice::Always, false, None).red("x"), "\u{1b}[31mx\u{1b}[0m");
    }
}
