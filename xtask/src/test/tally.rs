//! Counting tests from what `cargo test` says.

/// What one test program said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Suite {
    pub(crate) name: String,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    pub(crate) seconds: f64,
}

/// All that was said so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    suites: Vec<Suite>,
    /// Announced, and not yet heard from.
    running: Option<String>,
    failures: Vec<String>,
}

impl Tally {
    /// Takes in one line.
    pub(crate) fn read(&mut self, line: &str) {
        let line = plain(line);
        let line = line.trim();
        if let Some(program) = line.strip_prefix("Running ") {
            self.begin(program_name(program));
        } else if let Some(package) = line.strip_prefix("Doc-tests ") {
            self.begin(format!("{package}, documentation"));
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.result(result);
        } else if let Some(test) =
            line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED"))
        {
            let suite = self.running.clone().unwrap_or_default();
            self.failures.push(format!("{suite}: {test}"));
        }
    }

    /// Nothing more will be said.
    pub(crate) fn end(&mut self) {
        // A program that was announced and gave no result has crashed; it must not go unnoticed.
        if let Some(name) = self.running.take() {
            self.failures.push(format!("{name}: ended without a result"));
            self.suites.push(Suite { name, failed: 1, ..Suite::default() });
        }
    }

    /// The programs that had any tests.
    pub(crate) fn suites(&self) -> impl Iterator<Item = &Suite> {
        self.suites.iter().filter(|suite| suite.passed + suite.failed + suite.ignored > 0)
    }

    pub(crate) fn passed(&self) -> u64 {
        self.suites.iter().map(|suite| suite.passed).sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.suites.iter().map(|suite| suite.failed).sum()
    }

    pub(crate) fn ignored(&self) -> u64 {
        self.suites.iter().map(|suite| suite.ignored).sum()
    }

    /// The names of what failed.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    fn begin(&mut self, name: String) {
        self.end();
        self.running = Some(name);
    }

    /// "ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s"
    fn result(&mut self, line: &str) {
        // Documentation tests of one package may give two results.
        let name = self.running.take().or_else(|| self.suites.last().map(|s| s.name.clone()));
        let mut suite = Suite { name: name.unwrap_or_default(), ..Suite::default() };
        let numbers = line.split_once(". ").map_or(line, |(_, numbers)| numbers);
        for part in numbers.split("; ") {
            let words: Vec<&str> = part.split(' ').collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse().ok()).unwrap_or(0);
            match words.as_slice() {
                [_, "passed"] => suite.passed = number(0),
                [_, "failed"] => suite.failed = number(0),
                [_, "ignored"] => suite.ignored = number(0),
                ["finished", "in", time] => {
                    suite.seconds = time.trim_end_matches('s').parse().unwrap_or(0.0);
                }
                _ => {}
            }
        }
        self.suites.push(suite);
    }
}

/// "tests/clusters.rs (target/debug/deps/clusters-0123456789abcdef)" is "tests/clusters.rs"; where
/// the source is every package's src/lib.rs, the program's name tells more.
fn program_name(announced: &str) -> String {
    let (source, program) = announced.split_once(" (").unwrap_or((announced, ""));
    let file = program.trim_end_matches(')').rsplit('/').next().unwrap_or_default();
    let package = file.rsplit_once('-').map_or(file, |(package, _)| package);
    match source.strip_prefix("unittests ") {
        Some("src/lib.rs") => package.to_owned(),
        Some(other) => format!("{package}, {other}"),
        None => source.to_owned(),
    }
}

/// Without the colours.
fn plain(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(text: &str) -> Tally {
        let mut tally = Tally::default();
        text.lines().for_each(|line| tally.read(line));
        tally.end();
        tally
    }

    #[test]
    fn results_go_to_the_program_that_was_announced() {
        let tally = tally(
            "\u{1b}[1m\u{1b}[32m     Running\u{1b}[0m unittests src/lib.rs (target/debug/deps/lifeboat_core-01ab)
             test a::b ... \u{1b}[32mok\u{1b}[0m
             test a::c ... \u{1b}[31mFAILED\u{1b}[0m
             test result: \u{1b}[31mFAILED\u{1b}[0m. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.50s
                  Running tests/clusters.rs (target/debug/deps/clusters-23cd)
             test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.50s
                Doc-tests lifeboat_core
             test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        let names: Vec<&str> = tally.suites().map(|suite| suite.name.as_str()).collect();
        assert_eq!(names, ["lifeboat_core", "tests/clusters.rs"]);
        assert_eq!((tally.passed(), tally.failed(), tally.ignored()), (8, 1, 2));
        assert_eq!(tally.suites().next().map(|suite| suite.seconds), Some(1.5));
        assert_eq!(tally.failures(), ["lifeboat_core: a::c"]);
    }

    #[test]
    fn a_program_that_crashes_counts_as_a_failure() {
        let tally = tally("Running tests/a.rs (x/a-1)\nRunning tests/b.rs (x/b-2)\n");
        assert_eq!((tally.passed(), tally.failed()), (0, 2));
    }
}
