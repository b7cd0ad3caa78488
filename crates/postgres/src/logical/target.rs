//! The database that a restore makes.
//!
//! A new database gets a name of its own while it is filled, `<name>_restore_<8 digits>`, and its
//! true one when everything is in it and was checked: whatever ends a restore, nothing can be taken
//! for the whole. A database that is replaced stays what it is until that moment; the two names
//! change in one transaction, and only then the old one goes, or is kept (see `swap`).

use std::sync::atomic::{AtomicBool, Ordering};

use lifeboat_core::{Attributes, Context};

use super::belongings::Belongings;
use super::error::{DatabaseError, Result};
use super::layout::{About, Parts, facts};
use super::moment::SETTINGS;
use super::name::{LONGEST, cut, identifier, literal};
use super::restore::{DatabaseRestoreOptions, Keep, Occupied, OlderServer};
use super::swap::{self, Names};
use crate::connect::{Session, failed};

/// A database that is being filled.
#[derive(Debug)]
pub(super) struct Target {
    admin: Session,
    /// Its name while it is filled.
    pub(super) name: String,
    /// The name that it gets.
    into: String,
    occupied: Occupied,
    /// Whether it was made, or seen to be fit to be filled: what follows writes into it.
    made: AtomicBool,
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
        Occupied::Replace | Occupied::Swap if exists => {
            swap::replaceable_soon(&admin, options).await?;
        }
        Occupied::Refuse | Occupied::Fill | Occupied::Replace | Occupied::Swap => {}
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

pub(super) async fn exists(admin: &Session, name: &str) -> Result<bool> {
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
            Occupied::Refuse | Occupied::Replace | Occupied::Swap => provisional(&into),
        };
        Ok(Self { admin, name, into, occupied, made: AtomicBool::new(false) })
    }

    /// Makes the database, or sees that the one to fill is empty.
    pub(super) async fn make(&self, about: &About, options: &DatabaseRestoreOptions) -> Result<()> {
        let made = match self.occupied {
            Occupied::Fill if about.content.has_schema() => self.empty(options).await,
            Occupied::Fill => Ok(()),
            Occupied::Refuse | Occupied::Replace | Occupied::Swap => {
                let owner = match options.owners {
                    Keep::Restore if !self.is_owned_late(options) => Some(&*about.belongings.owner),
                    _ => None,
                };
                self.run(&creation(&self.name, about, self.admin.major(), owner)).await
            }
        };
        self.made.store(made.is_ok(), Ordering::Relaxed);
        made
    }

    /// Whether it gets its owner at the end: with the rest of what the other database has, or
    /// because the role may be one of those that are still to be made.
    fn is_owned_late(&self, options: &DatabaseRestoreOptions) -> bool {
        self.occupied == Occupied::Swap || options.roles == Keep::Restore
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

    /// Whether it takes the name of a database that is there.
    pub(super) async fn is_swap(&self) -> Result<bool> {
        Ok(self.occupied == Occupied::Swap && exists(&self.admin, &self.into).await?)
    }

    /// Gives the database what belongs to it as a whole, and its name. Nobody else is in it. What
    /// could not be done, and does not make the rest worthless, is a warning. The result is what to
    /// know.
    pub(super) async fn finish(
        &self,
        about: &About,
        options: &DatabaseRestoreOptions,
        context: &Context,
    ) -> Result<Attributes> {
        let there = self.occupied != Occupied::Fill && exists(&self.admin, &self.into).await?;
        for statement in self.belonging(about, options, there).await? {
            // Some settings need rights that the rest does not need.
            if let Err(error) = self.run(&statement).await {
                let error = lifeboat_core::Error::from(error).one_line();
                let lost = statement.replace(&identifier(&self.name), &identifier(&self.into));
                self.warn(context, format!("run this yourself: {lost}; it failed: {error}"));
            }
        }
        let (name, into) = (identifier(&self.name), identifier(&self.into));
        match self.occupied {
            Occupied::Fill => {}
            Occupied::Replace | Occupied::Swap if there => {
                return self.change(options, context).await;
            }
            Occupied::Refuse => {
                self.run(&format!("ALTER DATABASE {name} RENAME TO {into}")).await?;
            }
            Occupied::Replace | Occupied::Swap => {
                self.run(&format!("ALTER DATABASE {name} RENAME TO {into}")).await?;
                let told = format!(
                    "there was no database {}: it is new, and nothing was replaced",
                    self.into
                );
                return Ok(Attributes::new().with("database.note.new", told));
            }
        }
        Ok(Attributes::new())
    }

    /// The statements that give the database what belongs to it as a whole: what the snapshot says,
    /// or what the database has whose place it takes and which is kept.
    async fn belonging(
        &self,
        about: &About,
        options: &DatabaseRestoreOptions,
        there: bool,
    ) -> Result<Vec<String>> {
        let name = &self.name;
        if self.occupied == Occupied::Swap && there {
            let kept = Belongings::of(&self.admin, &self.into).await?;
            let owner =
                format!("ALTER DATABASE {} OWNER TO {}", identifier(name), identifier(&kept.owner));
            return Ok([vec![owner], kept.settings(name), kept.settings_of_new(name)]
                .into_iter()
                .chain([kept.rights(name, &kept.owner)])
                .flatten()
                .collect());
        }
        let known = &about.belongings;
        let mut statements = Vec::new();
        let is_new = self.occupied != Occupied::Fill;
        if is_new && options.owners == Keep::Restore && self.is_owned_late(options) {
            let owner = identifier(&known.owner);
            statements.push(format!("ALTER DATABASE {} OWNER TO {owner}", identifier(name)));
        }
        if !about.content.has_schema() || about.selected {
            return Ok(statements);
        }
        statements.extend(known.settings(name));
        if !is_new {
            return Ok(statements);
        }
        let owner = match options.owners {
            Keep::Restore => known.owner.clone(),
            Keep::LeaveOut => Belongings::of(&self.admin, name).await?.owner,
        };
        statements.extend(known.settings_of_new(name));
        if options.privileges == Keep::Restore {
            statements.extend(known.rights(name, &owner));
        }
        Ok(statements)
    }

    /// The restored database takes the name of the one that is there.
    async fn change(
        &self,
        options: &DatabaseRestoreOptions,
        context: &Context,
    ) -> Result<Attributes> {
        let names = Names::free(&self.admin, &self.into, &self.name, self.occupied).await?;
        let ended = swap::change(&self.admin, options, &names).await?;
        if ended > 0 {
            let was = if ended == 1 { "session was" } else { "sessions were" };
            context.note(&format!("database {}", self.into), format!("{ended} {was} ended"));
        }
        if self.occupied == Occupied::Swap {
            let kept = format!(
                "the database that was there is kept as {}; when it is not needed any more: {}",
                names.kept,
                names.drop_kept()
            );
            let back = format!("to have it back, with nobody in either: {}", names.back());
            return Ok(Attributes::new()
                .with(facts::KEPT, names.kept.as_str())
                .with(facts::NOTE_KEPT, kept)
                .with(facts::NOTE_BACK, back));
        }
        // The new one is in its place, whatever becomes of the other.
        if let Err(error) = self.run(&names.drop_kept()).await {
            let (old, error) = (&names.kept, lifeboat_core::Error::from(error).one_line());
            self.warn(
                context,
                format!("the one that was replaced is still there as {old}: {error}"),
            );
        }
        Ok(Attributes::new())
    }

    fn warn(&self, context: &Context, told: String) {
        context.warn(&format!("database {}", self.into), told);
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

    /// Whether something of a restore that failed stays in it.
    pub(super) fn stays(&self) -> bool {
        self.occupied == Occupied::Fill && self.made.load(Ordering::Relaxed)
    }
}

/// A name that nothing has, and that says what it is.
pub(super) fn provisional(name: &str) -> String {
    let now = jiff::Timestamp::now().as_nanosecond();
    let seed = format!("{name} {now} {}", std::process::id());
    let hash = blake3::hash(seed.as_bytes()).to_hex();
    cut(name, &format!("_restore_{}", &hash[..8]))
}

/// `CREATE DATABASE`, in the words of the server's version.
fn creation(name: &str, about: &About, major: u32, owner: Option<&str>) -> String {
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
    if let Some(owner) = owner {
        statement += &format!(" OWNER {}", identifier(owner));
    }
    statement
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
            belongings: Belongings {
                owner: String::new(),
                comment: None,
                settings: Vec::new(),
                role_settings: Vec::new(),
                privileges: None,
                connection_limit: None,
            },
            content: Parts::Everything,
            selected: false,
        };
        let plain =
            "CREATE DATABASE \"a\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'";
        assert_eq!(
            creation("a", &about, 17, Some("al\"ice")),
            format!("{plain} LOCALE_PROVIDER icu icu_LOCALE 'de-x''y' OWNER \"al\"\"ice\"")
        );
        assert_eq!(creation("a", &about, 14, None), plain);
    }
}
