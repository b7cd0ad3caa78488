//! The database that a restore makes.
//!
//! A new database gets a name of its own while it is filled, `<name>_restore_<8 digits>`, and its
//! true one when everything is in it and was checked: whatever ends a restore, nothing can be taken
//! for the whole. A database that is replaced stays what it is until that moment; the two names
//! change in one transaction, and only then the old one goes.

use super::error::{DatabaseError, Result};
use super::layout::{About, Parts};
use super::moment::SETTINGS;
use super::name::{identifier, literal};
use super::restore::{DatabaseRestoreOptions, Keep, Occupied, OlderServer};
use crate::connect::{Session, failed};

/// The longest name that a server takes, in bytes.
const LONGEST: usize = 63;

/// A database that is being filled.
#[derive(Debug)]
pub(super) struct Target {
    admin: Session,
    /// Its name while it is filled.
    pub(super) name: String,
    /// The name that it gets.
    into: String,
    occupied: Occupied,
}

/// Connects, and refuses what can be refused before anything is touched.
pub(super) async fn prepare(options: &DatabaseRestoreOptions) -> Result<Session> {
    let name = &options.into;
    if name.is_empty() || name.len() > LONGEST || name.contains('\0') {
        let why = format!("a database's name has 1 to {LONGEST} bytes");
        return Err(DatabaseError::BadName { text: name.clone(), why });
    }
    let admin = Session::open(&options.connection).await?;
    if !(14..=18).contains(&admin.major()) {
        return Err(DatabaseError::Version { found: admin.version_text().to_owned() });
    }
    if let Some(facts) = &options.facts {
        let number = facts.unsigned(super::layout::facts::VERSION_NUMBER).unwrap_or_default();
        let text = facts.text(super::layout::facts::VERSION).unwrap_or_default();
        not_older(&admin, number, text, options)?;
        let is_data = facts.text(super::layout::facts::CONTENT) == Some(Parts::Data.as_str());
        if is_data && options.occupied != Occupied::Fill {
            return Err(only_rows());
        }
    }
    let exists = exists(&admin, name).await?;
    match options.occupied {
        Occupied::Refuse if exists => {
            return Err(DatabaseError::Exists { database: name.clone() });
        }
        Occupied::Fill if !exists => {
            return Err(DatabaseError::Missing { database: name.clone() });
        }
        Occupied::Replace if exists => replaceable(&admin, options).await?,
        Occupied::Refuse | Occupied::Fill | Occupied::Replace => {}
    }
    Ok(admin)
}

fn only_rows() -> DatabaseError {
    let what = "it has rows and no schema: restore it into a database that has the tables";
    DatabaseError::NotASnapshot { what: what.to_owned() }
}

fn not_older(
    admin: &Session,
    number: u64,
    text: &str,
    options: &DatabaseRestoreOptions,
) -> Result<()> {
    let is_older = u64::from(admin.major()) < number / 10_000;
    if is_older && options.older_server == OlderServer::Refuse {
        return Err(DatabaseError::OlderServer {
            taken: text.to_owned(),
            server: admin.version_text().to_owned(),
        });
    }
    Ok(())
}

async fn exists(admin: &Session, name: &str) -> Result<bool> {
    const WHAT: &str = "look for the database";
    let query = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1::text::name)";
    let row = admin.one(WHAT, query, &[&name]).await?;
    Ok(row.try_get(0).map_err(|error| failed(WHAT, error))?)
}

/// What earlier restores left that were killed: databases that never got their name, and that
/// nobody is in.
pub(super) async fn left_behind(admin: &Session, into: &str) -> Result<Vec<String>> {
    const WHAT: &str = "look for what earlier restores left";
    let query = "SELECT d.datname::text FROM pg_database d \
                 WHERE left(d.datname, -8) = $1 AND right(d.datname, 8) ~ '^[0-9a-f]{8}$' \
                   AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)";
    let example = provisional(into);
    let stem = &example[..example.len() - 8];
    let rows = admin.all(WHAT, query, &[&stem]).await?;
    let name = |row: &tokio_postgres::Row| row.try_get(0);
    Ok(rows.iter().map(name).collect::<Result<_, _>>().map_err(|error| failed(WHAT, error))?)
}

/// An error unless the database can be replaced now.
async fn replaceable(admin: &Session, options: &DatabaseRestoreOptions) -> Result<()> {
    const WHAT: &str = "ask who uses the database";
    let database = options.into.clone();
    let row = admin
        .one(
            WHAT,
            "SELECT d.datistemplate, d.datname = current_database(), \
             (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid \
                AND a.pid <> pg_backend_pid() AND a.backend_type <> 'autovacuum worker'), \
             (SELECT string_agg(DISTINCT coalesce(nullif(a.application_name, ''), 'a program') \
                || ' as ' || coalesce(a.usename::text, 'nobody'), ', ') \
              FROM pg_stat_activity a WHERE a.datid = d.oid AND a.pid <> pg_backend_pid() \
                AND a.backend_type <> 'autovacuum worker') \
             FROM pg_database d WHERE d.datname = $1::text::name",
            &[&database],
        )
        .await?;
    let read = || -> Result<(bool, bool, i64, Option<String>), tokio_postgres::Error> {
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
    };
    let (template, own, sessions, whose) = read().map_err(|error| failed(WHAT, error))?;
    if template {
        let why = "it is a template of new databases".to_owned();
        return Err(DatabaseError::Irreplaceable { database, why });
    }
    if own {
        let why = "the connection itself goes to it; connect to another, such as postgres";
        return Err(DatabaseError::Irreplaceable { database, why: why.to_owned() });
    }
    if sessions > 0 {
        let noun = if sessions == 1 { "session" } else { "sessions" };
        let sessions = format!("{sessions} {noun} ({})", whose.unwrap_or_default());
        return Err(DatabaseError::InUse { database, sessions });
    }
    Ok(())
}

impl Target {
    /// The database to be. Nothing is made yet, so that whoever holds this can remove it, however
    /// far the making came.
    pub(super) fn new(
        admin: Session,
        about: &About,
        options: &DatabaseRestoreOptions,
    ) -> Result<Self> {
        not_older(&admin, about.version_number.into(), &about.version, options)?;
        let (into, occupied) = (options.into.clone(), options.occupied);
        let name = match occupied {
            Occupied::Fill => into.clone(),
            _ if !about.content.has_schema() => return Err(only_rows()),
            Occupied::Refuse | Occupied::Replace => provisional(&into),
        };
        Ok(Self { admin, name, into, occupied })
    }

    /// Makes the database, or sees that the one to fill is empty.
    pub(super) async fn make(&self, about: &About, options: &DatabaseRestoreOptions) -> Result<()> {
        match self.occupied {
            Occupied::Fill if about.content.has_schema() => self.empty(options).await,
            Occupied::Fill => Ok(()),
            Occupied::Refuse | Occupied::Replace => {
                let major = self.admin.major();
                self.run(&creation(&self.name, about, major, options.owners)).await
            }
        }
    }

    /// A session in the database.
    pub(super) async fn session(&self, options: &DatabaseRestoreOptions) -> Result<Session> {
        let connection = options.connection.with_database(&self.name);
        let session = Session::open(&connection).await?;
        let settings = format!("{SETTINGS} SET synchronous_commit = off;");
        session.run("prepare the session", &settings).await?;
        Ok(session)
    }

    /// An error when there is anything in it that somebody made.
    async fn empty(&self, options: &DatabaseRestoreOptions) -> Result<()> {
        const WHAT: &str = "see that the database is empty";
        let session = self.session(options).await?;
        let row = session
            .one(
                WHAT,
                "SELECT coalesce(\
                 (SELECT 'the table or view ' || c.oid::regclass::text FROM pg_class c \
                  JOIN pg_namespace n ON n.oid = c.relnamespace \
                  WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' LIMIT 1), \
                 (SELECT 'the schema ' || nspname FROM pg_namespace \
                  WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public') LIMIT 1), \
                 (SELECT 'the function ' || p.oid::regprocedure::text FROM pg_proc p \
                  JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public' LIMIT 1), \
                 (SELECT 'the type ' || t.oid::regtype::text FROM pg_type t \
                  JOIN pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = 'public' LIMIT 1), \
                 (SELECT 'the large object ' || oid FROM pg_largeobject_metadata LIMIT 1))",
                &[],
            )
            .await?;
        match row.try_get::<_, Option<String>>(0).map_err(|error| failed(WHAT, error))? {
            None => Ok(()),
            Some(what) => Err(DatabaseError::NotEmpty { database: self.into.clone(), what }),
        }
    }

    /// Gives the database what belongs to it as a whole, and its name. Nobody else is in it. The
    /// result is what could not be done, and does not make the rest worthless.
    pub(super) async fn finish(
        &self,
        about: &About,
        options: &DatabaseRestoreOptions,
    ) -> Result<Vec<String>> {
        let name = identifier(&self.name);
        let mut undone = Vec::new();
        if about.content.has_schema() && !about.selected {
            let mut statements = Vec::new();
            if let Some(comment) = &about.comment {
                statements.push(format!("COMMENT ON DATABASE {name} IS {}", literal(comment)));
            }
            for (setting, value) in &about.settings {
                let value = listed(setting, value);
                statements
                    .push(format!("ALTER DATABASE {name} SET {} TO {value}", dotted(setting)));
            }
            for statement in statements {
                // Some settings need rights that the rest does not need.
                if let Err(error) = self.run(&statement).await {
                    let error = lifeboat_core::Error::from(error).one_line();
                    let lost = statement.replace(&name, &identifier(&self.into));
                    undone.push(format!("run this yourself: {lost}; it failed: {error}"));
                }
            }
        }
        if self.occupied == Occupied::Fill {
            return Ok(undone);
        }
        let into = identifier(&self.into);
        if self.occupied == Occupied::Replace && exists(&self.admin, &self.into).await? {
            replaceable(&self.admin, options).await?;
            let old = identifier(&provisional(&self.into));
            // Both names change, or none. A session that came in between makes it fail.
            self.run(&format!(
                "BEGIN; ALTER DATABASE {into} RENAME TO {old}; \
                 ALTER DATABASE {name} RENAME TO {into}; COMMIT"
            ))
            .await?;
            // The new one is in its place, whatever becomes of the other.
            if let Err(error) = self.run(&format!("DROP DATABASE {old}")).await {
                let error = lifeboat_core::Error::from(error).one_line();
                undone.push(format!("the one that was replaced is still there as {old}: {error}"));
            }
            return Ok(undone);
        }
        self.run(&format!("ALTER DATABASE {name} RENAME TO {into}")).await?;
        Ok(undone)
    }

    async fn run(&self, statement: &str) -> Result<()> {
        match self.admin.client().batch_execute(statement).await {
            Ok(()) => Ok(()),
            Err(source) => {
                let statement = statement.to_owned();
                Err(DatabaseError::Statement { statement, source: Box::new(source) })
            }
        }
    }

    /// Removes what was made; what was there before stays, half filled as it may be.
    pub(super) async fn remove(&self) {
        if self.occupied == Occupied::Fill {
            return;
        }
        let name = identifier(&self.name);
        let statements =
            ["ROLLBACK".to_owned(), format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")];
        for statement in statements {
            if let Err(error) = self.run(&statement).await {
                tracing::warn!(%error, database = self.name, "what was restored cannot be removed");
            }
        }
    }

    /// Whether what is in it stays when the restore fails.
    pub(super) fn stays(&self) -> bool {
        self.occupied == Occupied::Fill
    }
}

/// A name that nothing has, and that says what it is.
fn provisional(name: &str) -> String {
    let now = jiff::Timestamp::now().as_nanosecond();
    let seed = format!("{name} {now} {}", std::process::id());
    let hash = blake3::hash(seed.as_bytes()).to_hex();
    let suffix = format!("_restore_{}", &hash[..8]);
    let mut cut = name.len().min(LONGEST - suffix.len());
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{suffix}", &name[..cut])
}

/// `CREATE DATABASE`, in the words of the server's version.
fn creation(name: &str, about: &About, major: u32, owners: Keep) -> String {
    let mut statement = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        identifier(name),
        literal(&about.encoding),
        literal(&about.collate),
        literal(&about.ctype),
    );
    if major >= 15 {
        let provider = match about.provider.as_str() {
            "icu" => "icu",
            "builtin" => "builtin",
            _ => "libc",
        };
        statement += &format!(" LOCALE_PROVIDER {provider}");
        if let Some(locale) = about.locale.as_deref().filter(|_| provider != "libc") {
            statement += &format!(" {provider}_LOCALE {}", literal(locale));
        }
        if let Some(rules) = about.icu_rules.as_deref().filter(|_| provider == "icu") {
            statement += &format!(" ICU_RULES {}", literal(rules));
        }
    }
    if owners == Keep::Restore {
        statement += &format!(" OWNER {}", identifier(&about.owner));
    }
    statement
}

/// The name of a setting, whose parts may be quoted but not together.
fn dotted(setting: &str) -> String {
    setting.split('.').map(identifier).collect::<Vec<_>>().join(".")
}

/// The value of a setting; of those that are lists, each element by itself.
fn listed(setting: &str, value: &str) -> String {
    const LISTS: [&str; 7] = [
        "DateStyle",
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    ];
    if !LISTS.iter().any(|list| list.eq_ignore_ascii_case(setting)) {
        return literal(value);
    }
    elements(value).iter().map(|element| literal(element)).collect::<Vec<_>>().join(", ")
}

/// The elements of a list as the server keeps it: with commas between, some in double quotes.
fn elements(value: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let (mut quoted, mut characters) = (false, value.chars().peekable());
    while let Some(character) = characters.next() {
        let last = found.len() - 1;
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                found[last].push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => found.push(String::new()),
            ' ' if !quoted => {}
            _ => found[last].push(character),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provisional_name_fits_and_says_what_it_is() {
        let long = "ö".repeat(31);
        let name = provisional(&long);
        assert!(name.len() <= LONGEST && name.contains("_restore_"), "{name}");
        assert_ne!(provisional("shop"), provisional("shop"));
    }

    #[test]
    fn lists_keep_their_elements() {
        assert_eq!(listed("search_path", "\"$user\", public, \"a,b\""), "'$user', 'public', 'a,b'");
        assert_eq!(listed("search_path", "\"\""), "''");
        assert_eq!(listed("work_mem", "4MB"), "'4MB'");
        assert_eq!(dotted("my.var"), "\"my\".\"var\"");
    }

    #[test]
    fn a_database_is_created_in_the_words_of_the_version() {
        let about = About {
            format: 1,
            name: "shop".into(),
            version: "17.2".into(),
            version_number: 170_002,
            encoding: "UTF8".into(),
            collate: "C".into(),
            ctype: "C".into(),
            provider: "icu".into(),
            locale: Some("de-x'y".into()),
            icu_rules: None,
            owner: "al\"ice".into(),
            comment: None,
            settings: Vec::new(),
            content: Parts::Everything,
            selected: false,
        };
        let plain =
            "CREATE DATABASE \"a\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'";
        assert_eq!(
            creation("a", &about, 17, Keep::Restore),
            format!("{plain} LOCALE_PROVIDER icu icu_LOCALE 'de-x''y' OWNER \"al\"\"ice\"")
        );
        assert_eq!(creation("a", &about, 14, Keep::LeaveOut), plain);
    }
}
