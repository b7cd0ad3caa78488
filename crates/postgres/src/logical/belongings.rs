//! What belongs to a database as a whole and to nothing in it: whose it is, who may do what with
//! it, its settings and its comment. `pg_dump` leaves all of that to whoever creates the database.

use serde::{Deserialize, Serialize};

use super::error::{DatabaseError, Result};
use super::name::{identifier, literal};
use crate::connect::{Session, failed};
use crate::error::Error;

/// What belongs to a database as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Belongings {
    pub(crate) owner: String,
    pub(crate) comment: Option<String>,
    /// `ALTER DATABASE … SET`: name and value.
    pub(crate) settings: Vec<(String, String)>,
    /// `ALTER ROLE … IN DATABASE … SET`: role, name and value.
    #[serde(default)]
    pub(crate) role_settings: Vec<(String, String, String)>,
    /// Who may do what. `None` when that was never changed from what a new database has, and in
    /// snapshots of versions that did not keep it.
    #[serde(default)]
    pub(crate) privileges: Option<Vec<Grant>>,
    /// How many may be connected; `None` when there is no limit.
    #[serde(default)]
    pub(crate) connection_limit: Option<u32>,
}

/// A right that a role has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    pub(crate) grantor: String,
    /// `None` is everybody.
    pub(crate) grantee: Option<String>,
    pub(crate) privilege: Privilege,
    /// Whether it may be passed on.
    pub(crate) grantable: bool,
}

/// The rights that there are for a database, in the server's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Privilege {
    Create,
    Connect,
    Temporary,
}

impl Privilege {
    fn as_sql(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Connect => "CONNECT",
            Self::Temporary => "TEMPORARY",
        }
    }
}

const QUERY: &str = "
    SELECT pg_get_userbyid(d.datdba)::text, shobj_description(d.oid, 'pg_database'),
        ARRAY(SELECT unnest(s.setconfig) FROM pg_db_role_setting s
              WHERE s.setdatabase = d.oid AND s.setrole = 0),
        coalesce((SELECT json_agg(json_build_array(r.rolname, one.setting) ORDER BY r.rolname)
                  FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole,
                       unnest(s.setconfig) AS one(setting)
                  WHERE s.setdatabase = d.oid), '[]')::text,
        CASE WHEN d.datacl IS NOT NULL THEN
            coalesce((SELECT json_agg(json_build_object(
                          'grantor', pg_get_userbyid(a.grantor),
                          'grantee', CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END,
                          'privilege', a.privilege_type, 'grantable', a.is_grantable))
                      FROM aclexplode(d.datacl) a), '[]') END::text,
        d.datconnlimit
    FROM pg_database d WHERE d.datname = $1::text::name";

impl Belongings {
    /// What the database of this name has, as the server says.
    pub(crate) async fn of(session: &Session, database: &str) -> Result<Self> {
        const WHAT: &str = "ask what belongs to the database";
        let row = session.one(WHAT, QUERY, &[&database]).await?;
        let text = |column| {
            let text: Option<String> = row.try_get(column).map_err(|error| failed(WHAT, error))?;
            Ok::<_, DatabaseError>(text)
        };
        let settings: Vec<String> = row.try_get(2).map_err(|error| failed(WHAT, error))?;
        let limit: i32 = row.try_get(5).map_err(|error| failed(WHAT, error))?;
        let of_roles: Vec<(String, String)> = json(text(3)?.as_deref().unwrap_or("[]"))?;
        let split = |setting: &str| {
            setting.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        Ok(Self {
            owner: text(0)?.unwrap_or_default(),
            comment: text(1)?,
            settings: settings.iter().filter_map(|setting| split(setting)).collect(),
            role_settings: of_roles
                .into_iter()
                .filter_map(|(role, setting)| {
                    split(&setting).map(|(name, value)| (role, name, value))
                })
                .collect(),
            privileges: text(4)?.map(|text| json(&text)).transpose()?,
            connection_limit: u32::try_from(limit).ok(),
        })
    }

    /// The statements that give comment and settings to the database of this name.
    pub(crate) fn settings(&self, database: &str) -> Vec<String> {
        let name = identifier(database);
        let mut statements = Vec::new();
        if let Some(comment) = &self.comment {
            statements.push(format!("COMMENT ON DATABASE {name} IS {}", literal(comment)));
        }
        for (setting, value) in &self.settings {
            let value = listed(setting, value);
            statements.push(format!("ALTER DATABASE {name} SET {} TO {value}", dotted(setting)));
        }
        statements
    }

    /// The statements that give settings of roles and the limit of connections to the database of
    /// this name, which was created for it.
    pub(crate) fn settings_of_new(&self, database: &str) -> Vec<String> {
        let name = identifier(database);
        let mut statements: Vec<_> = self
            .role_settings
            .iter()
            .map(|(role, setting, value)| {
                let (role, value) = (identifier(role), listed(setting, value));
                format!("ALTER ROLE {role} IN DATABASE {name} SET {} TO {value}", dotted(setting))
            })
            .collect();
        if let Some(limit) = self.connection_limit {
            statements.push(format!("ALTER DATABASE {name} CONNECTION LIMIT {limit}"));
        }
        statements
    }

    /// The statements that give just these rights on the database of this name, which belongs to
    /// `owner` and has the rights that a new one has. What another than the owner has passed on,
    /// comes from that role again.
    pub(crate) fn rights(&self, database: &str, owner: &str) -> Vec<String> {
        let Some(grants) = &self.privileges else {
            return Vec::new();
        };
        let name = identifier(database);
        let from = identifier(owner);
        let mut statements = vec![format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC, {from}")];
        let (own, passed): (Vec<_>, Vec<_>) =
            grants.iter().partition(|grant| grant.grantor == self.owner);
        for grant in own.into_iter().chain(passed) {
            let to = match &grant.grantee {
                None => "PUBLIC".to_owned(),
                // A role that owns it now, in place of the former owner, has its rights.
                Some(role) if *role == self.owner => identifier(owner),
                Some(role) => identifier(role),
            };
            let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
            let right = grant.privilege.as_sql();
            let statement = format!("GRANT {right} ON DATABASE {name} TO {to}{option}");
            statements.push(if grant.grantor == self.owner {
                statement
            } else {
                let grantor = identifier(&grant.grantor);
                format!("SET ROLE {grantor}; {statement}; RESET ROLE")
            });
        }
        statements
    }
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    let what = "ask what belongs to the database";
    serde_json::from_str(text)
        .map_err(|error| Error::Answer { what, why: error.to_string() }.into())
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

    fn bare() -> Belongings {
        Belongings {
            owner: "o".into(),
            comment: None,
            settings: Vec::new(),
            role_settings: Vec::new(),
            privileges: None,
            connection_limit: None,
        }
    }

    #[test]
    fn lists_keep_their_elements() {
        assert_eq!(listed("search_path", "\"$user\", public, \"a,b\""), "'$user', 'public', 'a,b'");
        assert_eq!(listed("search_path", "\"\""), "''");
        assert_eq!(listed("work_mem", "4MB"), "'4MB'");
        assert_eq!(dotted("my.var"), "\"my\".\"var\"");
    }

    #[test]
    fn what_older_snapshots_do_not_say_is_left_as_it_is() {
        let old = r#"{"owner": "o", "comment": null, "settings": [["a", "b"]]}"#;
        let found: Belongings = serde_json::from_str(old).unwrap();
        assert_eq!(found, Belongings { settings: vec![("a".into(), "b".into())], ..bare() });
        assert!(found.rights("d", "o").is_empty() && found.settings_of_new("d").is_empty());
    }

    #[test]
    fn rights_are_just_those_that_were_there() {
        let grant = |grantor: &str, grantee: Option<&str>, grantable| Grant {
            grantor: grantor.into(),
            grantee: grantee.map(str::to_owned),
            privilege: Privilege::Connect,
            grantable,
        };
        let nobody = Belongings { privileges: Some(Vec::new()), ..bare() };
        assert_eq!(nobody.rights("d", "o"), ["REVOKE ALL ON DATABASE \"d\" FROM PUBLIC, \"o\""]);
        let some = Belongings {
            privileges: Some(vec![
                grant("a\"b", Some("c"), false),
                grant("o", Some("a\"b"), true),
                grant("o", Some("o"), false),
                grant("o", None, false),
            ]),
            ..bare()
        };
        let on = "GRANT CONNECT ON DATABASE \"d\" TO";
        assert_eq!(
            some.rights("d", "new")[1..],
            [
                format!("{on} \"a\"\"b\" WITH GRANT OPTION"),
                format!("{on} \"new\""),
                format!("{on} PUBLIC"),
                format!("SET ROLE \"a\"\"b\"; {on} \"c\"; RESET ROLE"),
            ]
        );
    }
}
