//! Scripts of SQL, statement by statement.
//!
//! A script of `pg_dump` is made for `psql`, which knows where a statement ends and sends one after
//! the other. So does this, by the same rules of PostgreSQL's lexical structure: quotes, quoted
//! identifiers, dollar quotes, comments (blocks nest), parentheses (the actions of a rule), and the
//! bodies of functions in standard SQL (`BEGIN ATOMIC … END`), which hold semicolons.
//!
//! Commands of `psql` itself are not known here, but for `\restrict` and `\unrestrict`, which only
//! concern it.

use super::error::{DatabaseError, Result};
use super::foreign_key::ForeignKey;
use super::name::{TableName, identifier};

/// No statement is longer: the server itself takes none.
const LONGEST: usize = 1 << 30;

/// Where the lexer is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Plain,
    LineComment,
    /// Nested so deep.
    BlockComment(u32),
    /// In `'…'`.
    Text,
    /// In `E'…'`, where a backslash hides what follows.
    EscapedText,
    /// In `"…"`.
    Name,
    /// In `$tag$…$tag$`; with both dollars.
    Dollar(Vec<u8>),
    /// In a command of psql.
    Command,
}

/// Cuts a script into statements as its bytes come by.
#[derive(Debug)]
pub(crate) struct Statements {
    script: &'static str,
    /// What has come of the statement, and what follows it.
    bytes: Vec<u8>,
    /// Up to where it was looked at.
    next: usize,
    at: At,
    /// Where the statement begins, when it has begun: comments before it are left out.
    begin: Option<usize>,
    /// The word that is being read.
    word: Vec<u8>,
    /// The first words, in small letters.
    first: Vec<Vec<u8>>,
    parentheses: u32,
    /// `BEGIN` and `CASE` without their `END`, in the body of a function.
    blocks: u32,
}

impl Statements {
    /// Of the script that is called so in messages.
    pub(crate) fn new(script: &'static str) -> Self {
        Self {
            script,
            bytes: Vec::new(),
            next: 0,
            at: At::Plain,
            begin: None,
            word: Vec::new(),
            first: Vec::new(),
            parentheses: 0,
            blocks: 0,
        }
    }

    /// Goes on with the next bytes: some KiB at a time, since what follows a statement is moved.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        if self.bytes.len() + bytes.len() > LONGEST {
            return Err(self.wrong("a statement is longer than 1 GiB"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next statement that is whole, without its semicolon.
    pub(crate) fn next(&mut self) -> Result<Option<Statement>> {
        // Some decisions need what follows; the last few bytes wait for it.
        self.scan(2)
    }

    /// What is left when all bytes have come: further statements, and in the end nothing.
    pub(crate) fn rest(&mut self) -> Result<Option<Statement>> {
        if let Some(statement) = self.scan(0)? {
            return Ok(Some(statement));
        }
        if self.at == At::Command {
            self.command(self.bytes.len())?;
        }
        match (&self.at, self.begin) {
            (At::Plain | At::LineComment, None) => Ok(None),
            (At::Plain | At::LineComment, Some(begin)) if self.blocks + self.parentheses == 0 => {
                let end = self.bytes.len();
                self.statement(begin, end, end).map(Some)
            }
            _ => Err(self.wrong("it ends in the middle of a statement")),
        }
    }

    fn wrong(&self, why: &str) -> DatabaseError {
        DatabaseError::Script { script: self.script, why: why.to_owned() }
    }

    /// Looks for the end of a statement, up to so many bytes before the end of what has come.
    fn scan(&mut self, hold: usize) -> Result<Option<Statement>> {
        while self.next + hold < self.bytes.len() {
            let here = self.next;
            let byte = self.bytes[here];
            let two = self.bytes.get(here..here + 2).unwrap_or_default();
            if self.at == At::Plain && byte == b'$' && hold > 0 && self.is_half_tag(here) {
                return Ok(None);
            }
            match &mut self.at {
                At::Plain => {
                    if let Some(statement) = self.plain(here)? {
                        return Ok(Some(statement));
                    }
                    continue;
                }
                At::LineComment => {
                    if byte == b'\n' {
                        self.at = At::Plain;
                    }
                }
                At::BlockComment(depth) => match two {
                    b"*/" => {
                        *depth -= 1;
                        self.next += 1;
                        if *depth == 0 {
                            self.at = At::Plain;
                        }
                    }
                    b"/*" => {
                        *depth += 1;
                        self.next += 1;
                    }
                    _ => {}
                },
                // A doubled quote ends a text and begins another, which is the same here.
                At::Text if byte == b'\'' => self.at = At::Plain,
                At::EscapedText if byte == b'\\' || two == b"''" => self.next += 1,
                At::EscapedText if byte == b'\'' => self.at = At::Plain,
                At::Name if byte == b'"' => self.at = At::Plain,
                At::Text | At::EscapedText | At::Name => {}
                At::Dollar(tag) => {
                    if byte == b'$' {
                        let rest = &self.bytes[here..];
                        if rest.starts_with(tag) {
                            self.next += tag.len() - 1;
                            self.at = At::Plain;
                        } else if rest.len() < tag.len() && tag.starts_with(rest) {
                            // The rest of the tag may be in the bytes that come next.
                            return Ok(None);
                        }
                    }
                }
                At::Command => {
                    if byte == b'\n' {
                        self.command(here)?;
                        continue;
                    }
                }
            }
            self.next += 1;
        }
        Ok(None)
    }

    /// One byte, or what it begins, outside of everything.
    fn plain(&mut self, here: usize) -> Result<Option<Statement>> {
        let byte = self.bytes[here];
        let follows = self.bytes.get(here + 1).copied().unwrap_or_default();
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
        if is_word(byte) || (byte == b'$' && !self.word.is_empty()) {
            self.begin.get_or_insert(here);
            self.word.push(byte.to_ascii_lowercase());
            self.next += 1;
            return Ok(None);
        }
        let word = std::mem::take(&mut self.word);
        self.ended_word(&word);
        self.next += 1;
        match byte {
            b'-' if follows == b'-' => self.at = At::LineComment,
            b'/' if follows == b'*' => {
                self.at = At::BlockComment(1);
                self.next += 1;
            }
            byte if byte.is_ascii_whitespace() => {}
            b'\\' if self.begin.is_none() => {
                self.begin = Some(here);
                self.at = At::Command;
            }
            b';' if self.parentheses == 0 && self.blocks == 0 => {
                return match self.begin {
                    Some(begin) => self.statement(begin, here, here + 1).map(Some),
                    None => Ok(None),
                };
            }
            _ => {
                self.begin.get_or_insert(here);
                match byte {
                    b'\'' if word == b"e" => self.at = At::EscapedText,
                    b'\'' => self.at = At::Text,
                    b'"' => self.at = At::Name,
                    b'(' => self.parentheses += 1,
                    b')' => self.parentheses = self.parentheses.saturating_sub(1),
                    b'$' => self.dollar(here),
                    _ => {}
                }
            }
        }
        Ok(None)
    }

    /// Whether what comes next decides what a dollar is.
    fn is_half_tag(&self, dollar: usize) -> bool {
        self.word.is_empty() && dollar + 1 + self.tag_length(dollar) == self.bytes.len()
    }

    fn tag_length(&self, dollar: usize) -> usize {
        let is_tag = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_' || **byte >= 0x80;
        self.bytes[dollar + 1..].iter().take_while(is_tag).count()
    }

    /// A dollar that may begin a quote. Parameters, such as $1, begin none.
    fn dollar(&mut self, here: usize) {
        let (length, rest) = (self.tag_length(here), &self.bytes[here + 1..]);
        if rest.get(length) == Some(&b'$') && !rest[0].is_ascii_digit() {
            self.at = At::Dollar(self.bytes[here..here + length + 2].to_vec());
            self.next = here + length + 2;
        }
    }

    fn ended_word(&mut self, word: &[u8]) {
        if word.is_empty() {
            return;
        }
        if self.first.len() < 4 {
            self.first.push(word.to_vec());
        }
        let first: Vec<&[u8]> = self.first.iter().map(Vec::as_slice).collect();
        let is_routine = matches!(
            first[..],
            [b"create", b"function" | b"procedure", ..]
                | [b"create", b"or", b"replace", b"function" | b"procedure"]
        );
        if !is_routine || self.parentheses > 0 {
            return;
        }
        match word {
            b"begin" => self.blocks += 1,
            b"case" if self.blocks > 0 => self.blocks += 1,
            b"end" => self.blocks = self.blocks.saturating_sub(1),
            _ => {}
        }
    }

    fn statement(&mut self, begin: usize, end: usize, next: usize) -> Result<Statement> {
        let text = std::str::from_utf8(&self.bytes[begin..end])
            .map_err(|_| self.wrong("it is not UTF-8"))?
            .trim_end()
            .to_owned();
        self.forget(next);
        Ok(Statement(text))
    }

    /// A command of psql, which ends here.
    fn command(&mut self, end: usize) -> Result<()> {
        let begin = self.begin.unwrap_or(end);
        let line = &self.bytes[begin..end];
        if !line.starts_with(b"\\restrict ") && !line.starts_with(b"\\unrestrict ") {
            let shown = line[..line.len().min(60)].escape_ascii();
            return Err(self.wrong(&format!("it has a command of psql: {shown}")));
        }
        self.forget((end + 1).min(self.bytes.len()));
        Ok(())
    }

    /// Begins anew with what follows.
    fn forget(&mut self, upto: usize) {
        self.bytes.drain(..upto);
        *self = Self { bytes: std::mem::take(&mut self.bytes), ..Self::new(self.script) };
    }
}

/// One statement, without its semicolon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement(pub(crate) String);

/// What a statement is for, as far as a restore treats it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Says whose an object is.
    Owner,
    /// Says who may do what.
    Privilege,
    /// Changes a setting of the session.
    Setting,
    /// Builds an index, alone or for a constraint. It depends on nothing but its table.
    Index,
    /// Adds a foreign key, and checks it.
    ForeignKey,
    /// Comments on an extension, which only its owner may.
    ExtensionComment,
    Other,
}

impl Statement {
    pub(crate) fn purpose(&self) -> Purpose {
        let mut words = self.0.split_ascii_whitespace().map(str::to_ascii_uppercase);
        let (one, two, three) = (words.next(), words.next(), words.next());
        let words =
            [one.as_deref(), two.as_deref(), three.as_deref()].map(Option::unwrap_or_default);
        match words {
            ["GRANT" | "REVOKE", ..] | ["ALTER", "DEFAULT", "PRIVILEGES"] => Purpose::Privilege,
            ["SET", ..] => Purpose::Setting,
            ["SELECT", second, _] if second.starts_with("PG_CATALOG.SET_CONFIG(") => {
                Purpose::Setting
            }
            ["CREATE", "INDEX", _] | ["CREATE", "UNIQUE", "INDEX"] => Purpose::Index,
            ["COMMENT", "ON", "EXTENSION"] => Purpose::ExtensionComment,
            ["ALTER", "TABLE", _] if ForeignKey::of(&self.0).is_some() => Purpose::ForeignKey,
            ["ALTER", "TABLE", _] if self.builds_index() => Purpose::Index,
            ["ALTER", ..] if self.gives_away() => Purpose::Owner,
            _ => Purpose::Other,
        }
    }

    /// Whether it makes this table, as pg_dump names it.
    pub(crate) fn makes_table(&self, table: &TableName) -> bool {
        let rest = self.0.strip_prefix("CREATE UNLOGGED TABLE ");
        let Some(rest) = rest.or_else(|| self.0.strip_prefix("CREATE TABLE ")) else {
            return false;
        };
        let forms = |name: &str| [name.to_owned(), identifier(name)];
        let mut names = forms(&table.schema)
            .into_iter()
            .flat_map(|schema| forms(&table.name).map(|name| format!("{schema}.{name} ")));
        names.any(|name| rest.starts_with(&name))
    }

    fn gives_away(&self) -> bool {
        let Some((_, owner)) = self.0.rsplit_once(" OWNER TO ") else {
            return false;
        };
        let plain = |text: &str| !text.contains(|c: char| c.is_ascii_whitespace() || c == '\'');
        match owner.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(inside) => !inside.replace("\"\"", "").contains('"'),
            None => plain(owner) && !owner.contains('"'),
        }
    }

    fn builds_index(&self) -> bool {
        let Some((_, constraint)) = self.0.split_once(" ADD CONSTRAINT ") else {
            return false;
        };
        // The name of the constraint may be any text, so a word in it proves nothing; but then a
        // foreign key is built beside others, and at worst waits for a lock.
        [" PRIMARY KEY (", " UNIQUE (", " UNIQUE NULLS NOT DISTINCT (", " EXCLUDE USING "]
            .iter()
            .any(|kind| constraint.contains(kind))
            && !constraint.contains(" FOREIGN KEY ")
    }

    /// The name of the setting that a `SET` changes.
    pub(crate) fn setting(&self) -> Option<&str> {
        let rest = self.0.strip_prefix("SET ")?;
        rest.split([' ', '=']).next()
    }

    /// Its beginning, on one line, for messages.
    pub(crate) fn shown(&self) -> String {
        const MOST: usize = 160;
        let line = self.0.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(MOST) {
            Some((at, _)) => format!("{}…", &line[..at]),
            None => line,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(script: &str, piece: usize) -> Vec<String> {
        let mut statements = Statements::new("test");
        let mut found = Vec::new();
        for piece in script.as_bytes().chunks(piece) {
            statements.feed(piece).unwrap();
            while let Some(statement) = statements.next().unwrap() {
                found.push(statement.0);
            }
        }
        while let Some(statement) = statements.rest().unwrap() {
            found.push(statement.0);
        }
        found
    }

    #[test]
    fn statements_end_where_the_server_ends_them() {
        let each = [
            "SELECT 1",
            "SELECT 'a;b''c;', \"x;\"\"y;\", E'it\\'s;', e'\\\\', U&'a;'",
            "SELECT $$a;b$$, $tag$ $$; $ta$ ; $tag$, $1",
            "SELECT a$b",
            "SELECT 1 /* ; /* ; */ ; */ + 2 -- ;\n + 3",
            "CREATE RULE r AS ON INSERT TO t DO INSTEAD (INSERT INTO a VALUES (1); SELECT 2)",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
            "CREATE OR REPLACE PROCEDURE p(begin_at int) LANGUAGE sql BEGIN ATOMIC SELECT 1; END",
            "CREATE TABLE begin (a int)",
            "CREATE VIEW größe AS SELECT 'ü;'",
            "SELECT E'a'';b', 'x\\'",
        ];
        let wanted = each.map(str::to_owned);
        let script = format!(
            "\n-- ; comment\n\\restrict abc\n{};\n\\unrestrict abc\n",
            each.join(";\n\n/* ; */ ")
        );
        for piece in [1, 2, 3, 7, 64, 10_000] {
            assert_eq!(cut(&script, piece), wanted, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        let run = |script: &str| {
            let mut statements = Statements::new("test");
            statements.feed(script.as_bytes()).unwrap();
            statements.rest().unwrap_err().to_string()
        };
        assert!(run("\\connect other\nSELECT 1;").contains("command of psql"));
        for half in ["SELECT 'a;", "SELECT $$a", "SELECT (1;", "/* a", "SELECT \"a"] {
            assert!(run(half).contains("middle of a statement"), "{half}");
        }
    }

    #[test]
    fn purposes_are_told_apart() {
        for (text, purpose) in [
            ("ALTER TABLE shop.orders OWNER TO alice", Purpose::Owner),
            ("ALTER TABLE shop.orders OWNER TO \"Al ice\"", Purpose::Owner),
            ("ALTER TABLE a ALTER COLUMN b SET DEFAULT ' OWNER TO x'", Purpose::Other),
            ("GRANT SELECT ON TABLE a TO b", Purpose::Privilege),
            ("REVOKE ALL ON a FROM b", Purpose::Privilege),
            ("ALTER DEFAULT PRIVILEGES FOR ROLE a GRANT SELECT ON TABLES TO b", Purpose::Privilege),
            ("SET statement_timeout = 0", Purpose::Setting),
            ("SELECT pg_catalog.set_config('search_path', '', false)", Purpose::Setting),
            ("CREATE INDEX i ON a USING btree (b)", Purpose::Index),
            ("CREATE UNIQUE INDEX i ON a USING btree (b)", Purpose::Index),
            ("ALTER TABLE ONLY a\n    ADD CONSTRAINT a_pkey PRIMARY KEY (id)", Purpose::Index),
            (
                "ALTER TABLE ONLY a\n    ADD CONSTRAINT f FOREIGN KEY (x) REFERENCES b(id)",
                Purpose::Other,
            ),
            ("ALTER TABLE ONLY a ADD CONSTRAINT c CHECK ((b > 0))", Purpose::Other),
            ("COMMENT ON EXTENSION hstore IS 'x'", Purpose::ExtensionComment),
            ("CREATE TABLE a (b int)", Purpose::Other),
        ] {
            assert_eq!(Statement(text.to_owned()).purpose(), purpose, "{text}");
        }
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_makes_no_difference(
            script in "[a-c $'\"\\\\;\n()/*E-]{0,40}", piece in 1usize..8
        ) {
            let run = |piece: usize| {
                let mut statements = Statements::new("test");
                let mut found = Vec::new();
                for piece in script.as_bytes().chunks(piece) {
                    statements.feed(piece).ok()?;
                    while let Some(statement) = statements.next().ok()? {
                        found.push(statement.0);
                    }
                }
                while let Some(statement) = statements.rest().ok()? {
                    found.push(statement.0);
                }
                Some(found)
            };
            prop_assert_eq!(run(piece), run(1000));
        }
    }
}
