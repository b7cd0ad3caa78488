//! The next step, where the words of the command line say it better than a library can.

use std::borrow::Cow;
use std::path::Path;

use lifeboat_core::{Error, ErrorKind};

use super::causes;

/// What to do about an error.
pub(super) fn of(error: &Error) -> Option<Cow<'_, str>> {
    let own = causes(error).find_map(|cause| {
        let files = cause.downcast_ref().and_then(of_files);
        let postgres = || cause.downcast_ref().and_then(of_postgres);
        files.or_else(postgres)
    });
    own.map(Cow::Borrowed).or_else(|| error.hint().map(Cow::Borrowed))
}

fn of_files(error: &lifeboat_files::Error) -> Option<&'static str> {
    use lifeboat_files::Error as E;
    match error {
        E::NotEmpty { .. } => {
            Some("restore into an empty directory, or replace what is in this one with --replace")
        }
        E::TargetUnfinished { .. } => {
            Some("remove what it left, or replace what is there with --replace")
        }
        _ => None,
    }
}

fn of_postgres(error: &lifeboat_postgres::Error) -> Option<&'static str> {
    let lifeboat_postgres::Error::Connect { source, .. } = error else {
        return None;
    };
    let answer = source.as_db_error()?;
    // Translated messages name the method as well.
    let peer = answer.code().code() == "28000" && answer.message().contains("Peer");
    peer.then_some(
        "on its socket the server takes this role from the system account of the same name only: \
         run this as the account that the server runs under (sudo -u postgres), or connect over \
         TCP with a password: --conninfo 'host=localhost user=…', and PGPASSWORD or ~/.pgpass",
    )
}

/// Says what to do when a tree that is to be backed up cannot be opened.
pub(crate) fn about_tree(error: Error, path: &Path) -> Error {
    if error.hint().is_some() {
        return error;
    }
    let hint = match error.kind() {
        ErrorKind::NotFound if !path.exists() => {
            "check the path; if it is on a file system of its own, see that it is mounted"
        }
        ErrorKind::Refused => "run this as a user who may read it",
        _ => return error,
    };
    error.with_hint(hint)
}
