//! An error and its causes in the words that people need: what, to what, why; each of it once.
//!
//! Libraries wrap what went wrong into layers that add a name of theirs, or the path that was said
//! already, and repeat their cause in their own text. Only what a layer has to say itself is kept.

use std::error::Error as StdError;
use std::io;

use lifeboat_core::Error;
use lifeboat_objstore::{Location, Provider};

/// Layers that say nothing which their cause does not say better.
const WRAPPERS: [&str; 4] = [
    "db error",
    "error connecting to server",
    "error communicating with the server",
    "authentication error",
];

/// How the repository's own errors begin that are about all of it.
const WHOLE: [&str; 2] = ["open the repository: ", "create a repository: "];

/// The message of an error with its causes, on one line.
pub(super) fn line(error: &Error) -> String {
    join(error.to_string(), error.source())
}

/// Why a store did not do what was asked of it.
pub(crate) fn of_store(error: &object_store::Error) -> String {
    join(String::new(), Some(error))
}

/// Any error with its causes, on one line.
pub(super) fn of_any(error: &(dyn StdError + 'static)) -> String {
    join(error.to_string(), error.source())
}

/// Where a repository is, as its owner would write it.
pub(crate) fn place(location: &Location) -> String {
    let text = location.to_string();
    match text.split_once('?') {
        Some((place, query)) if !matches!(location.provider(), Provider::Local) => {
            format!("{place}?{}", query.replace("%3A", ":").replace("%2F", "/"))
        }
        _ => text,
    }
}

/// An error about the whole of a repository, told with the place of that repository.
pub(super) fn with_place(message: &str, location: &Location) -> String {
    let place = place(location);
    let told = WHOLE.iter().find_map(|beginning| {
        let rest = message.strip_prefix(beginning)?;
        Some(format!("{} at {place}: {rest}", beginning.trim_end_matches(": ")))
    });
    told.unwrap_or_else(|| format!("repository {place}"))
}

fn join<'a>(mut line: String, mut cause: Option<&'a (dyn StdError + 'static)>) -> String {
    while let Some(error) = cause {
        let (words, next) = own(error);
        add(&mut line, &words);
        cause = next;
        if let Some(answer) = error.downcast_ref().and_then(of_server) {
            add(&mut line, &answer);
            cause = None;
        }
    }
    line.replace('\n', " ")
}

fn add(line: &mut String, words: &str) {
    if line.contains(words) {
        return;
    }
    if !line.is_empty() {
        line.push_str(": ");
    }
    line.push_str(words);
}

/// What one layer has to say itself, and where to go on beneath it.
fn own<'a>(error: &'a (dyn StdError + 'static)) -> (String, Option<&'a (dyn StdError + 'static)>) {
    let text = error.to_string();
    let source = error.source();
    let Some(beneath) = source else {
        return (without_beginning(text), None);
    };
    if error.is::<object_store::Error>() {
        // Its own text names the object once more. What the operating system said is enough;
        // else what the store answered is.
        let io = layers(beneath).find(|layer| layer.is::<io::Error>());
        return (String::new(), Some(io.unwrap_or(beneath)));
    }
    if WRAPPERS.contains(&text.as_str()) {
        return (String::new(), source);
    }
    let bare = text.strip_suffix(&beneath.to_string()).and_then(|text| text.strip_suffix(": "));
    let text = bare.map_or(text.clone(), ToOwned::to_owned);
    (without_beginning(text), source)
}

fn without_beginning(text: String) -> String {
    let rest = WHOLE.iter().find_map(|beginning| text.strip_prefix(beginning));
    rest.map(ToOwned::to_owned).unwrap_or(text)
}

/// What a PostgreSQL server answered.
fn of_server(error: &lifeboat_postgres::Error) -> Option<String> {
    use lifeboat_postgres::Error as E;
    let (E::Connect { source, .. } | E::Query { source, .. }) = error else {
        return None;
    };
    let answer = source.as_db_error()?;
    let more = [answer.detail(), answer.hint()].into_iter().flatten();
    Some(more.fold(answer.message().to_owned(), |told, more| format!("{told} ({more})")))
}

/// An error and what is beneath it.
pub(super) fn layers<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use lifeboat_core::ErrorKind;
    use lifeboat_repository::Error as OfRepository;

    use super::*;

    #[test]
    fn a_layer_that_says_nothing_is_left_out() {
        let io = io::Error::from(io::ErrorKind::PermissionDenied);
        let source = object_store::Error::Generic { store: "LocalFileSystem", source: io.into() };
        let object = "lifeboat.json".to_owned();
        let error = OfRepository::Store { doing: "read", object, source };
        let told = line(&error.into());
        assert_eq!(told, "read lifeboat.json: permission denied");
    }

    #[test]
    fn a_cause_that_was_said_already_is_not_said_again() {
        let cause = Error::new(ErrorKind::Other, "the cause");
        let error = Error::new(ErrorKind::Other, "do it: the cause").with_source(cause);
        assert_eq!(line(&error), "do it: the cause");
        let outer = Error::new(ErrorKind::Other, "above").with_source(error);
        assert_eq!(line(&outer), "above: do it: the cause");
    }

    #[test]
    fn what_is_about_all_of_a_repository_names_its_place() {
        let location = "/srv/backups".parse().unwrap();
        let error = super::super::in_repository(OfRepository::AlreadyARepository, &location);
        let told = "create a repository at /srv/backups: there is one at this place already";
        assert_eq!(line(&error), told);
    }

    #[test]
    fn places_are_written_as_people_write_them() {
        let url = "s3://b/p?endpoint=http%3A%2F%2F127.0.0.1%3A9000%2F&allow_http=true";
        let shown = place(&url.parse().unwrap());
        assert!(shown.starts_with("s3://b/p?endpoint=http://127.0.0.1:9000"), "{shown}");
        assert_eq!(place(&"/srv/%3A?x=%2F".parse().unwrap()), "/srv/%3A?x=%2F");
    }
}
