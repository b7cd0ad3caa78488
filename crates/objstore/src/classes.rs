//! The storage classes of the providers: what each bills at least, and which are archives.
//!
//! The numbers are those of the providers' price lists and manuals as of 2026. A class that is not
//! here can be used all the same: nothing is known of it, so nothing waits for it.

use std::time::Duration;

use lifeboat_core::{Error, ErrorKind, Result, StorageClass, ThawTier};

use crate::location::Provider;

const DAY: u64 = 24;

/// A class: its name, the days that it bills at least, and how many hours a thaw takes by tier.
struct Fact {
    name: &'static str,
    days: u64,
    thaws: &'static [(ThawTier, u64)],
}

const fn fact(name: &'static str, days: u64) -> Fact {
    Fact { name, days, thaws: &[] }
}

const S3: &[Fact] = &[
    fact("STANDARD", 0),
    fact("REDUCED_REDUNDANCY", 0),
    fact("INTELLIGENT_TIERING", 0),
    fact("STANDARD_IA", 30),
    fact("ONEZONE_IA", 30),
    fact("GLACIER_IR", 90),
    Fact {
        name: "GLACIER",
        days: 90,
        // Expedited takes one to five minutes.
        thaws: &[(ThawTier::Bulk, 12), (ThawTier::Standard, 5), (ThawTier::Expedited, 1)],
    },
    Fact {
        name: "DEEP_ARCHIVE",
        days: 180,
        thaws: &[(ThawTier::Bulk, 48), (ThawTier::Standard, 12)],
    },
];

/// Google's archive is read at once, and is an archive by its price only.
const GOOGLE: &[Fact] =
    &[fact("STANDARD", 0), fact("NEARLINE", 30), fact("COLDLINE", 90), fact("ARCHIVE", 365)];

const AZURE: &[Fact] = &[
    fact("Hot", 0),
    fact("Cool", 30),
    fact("Cold", 90),
    Fact {
        name: "Archive",
        days: 180,
        thaws: &[(ThawTier::Standard, 15), (ThawTier::Expedited, 1)],
    },
];

fn facts(provider: Provider) -> &'static [Fact] {
    match provider {
        Provider::S3 => S3,
        Provider::Google => GOOGLE,
        Provider::Azure => AZURE,
        Provider::Local | Provider::Memory => &[],
    }
}

/// What an object has that was put without a class.
pub(crate) fn usual(provider: Provider) -> &'static str {
    facts(provider).first().map_or("", |fact| fact.name)
}

/// What is known of a class.
pub(crate) fn class(provider: Provider, name: &str) -> StorageClass {
    let known = facts(provider).iter().find(|fact| fact.name.eq_ignore_ascii_case(name));
    let Some(fact) = known else {
        return StorageClass::new(name, Duration::ZERO);
    };
    let thaws = fact.thaws.iter().map(|(tier, hours)| (*tier, Duration::from_hours(*hours)));
    StorageClass::new(fact.name, Duration::from_hours(fact.days * DAY)).with_thaws(thaws)
}

/// The class of this name, to put data into it.
pub(crate) fn choose(provider: Provider, name: &str) -> Result<StorageClass> {
    let fits = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let refused = |kind, message: String| Error::new(kind, message);
    let names = || facts(provider).iter().map(|fact| fact.name).collect::<Vec<_>>().join(", ");
    match provider {
        Provider::Local | Provider::Memory => {
            let message = format!("keep data in the class \"{name}\": a directory has no classes");
            Err(refused(ErrorKind::Unsupported, message).with_hint("leave the class out"))
        }
        _ if !fits => {
            let message = format!("keep data in the class \"{name}\": that is no name of a class");
            Err(refused(ErrorKind::InvalidInput, message)
                .with_hint(format!("this store has {}", names())))
        }
        Provider::Azure if name.eq_ignore_ascii_case("Archive") => {
            let message =
                "keep data in the class \"Archive\": this version cannot bring blobs back from it";
            Err(refused(ErrorKind::Unsupported, message.into()).with_hint("use Cool or Cold"))
        }
        Provider::S3 | Provider::Google | Provider::Azure => Ok(class(provider, name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_times_are_those_of_the_price_lists() {
        let days = |provider, name| class(provider, name).least.as_secs() / 86_400;
        for (name, least) in [
            ("STANDARD", 0),
            ("STANDARD_IA", 30),
            ("ONEZONE_IA", 30),
            ("GLACIER_IR", 90),
            ("GLACIER", 90),
            ("DEEP_ARCHIVE", 180),
        ] {
            assert_eq!(days(Provider::S3, name), least, "{name}");
        }
        for (name, least) in [("NEARLINE", 30), ("COLDLINE", 90), ("ARCHIVE", 365)] {
            assert_eq!(days(Provider::Google, name), least, "{name}");
        }
        for (name, least) in [("Hot", 0), ("cool", 30), ("Cold", 90), ("Archive", 180)] {
            assert_eq!(days(Provider::Azure, name), least, "{name}");
        }
        assert_eq!(days(Provider::S3, "OF_A_GATEWAY"), 0);
    }

    #[test]
    fn archives_are_told_from_what_is_only_cheap() {
        let archive = |provider, name| class(provider, name).is_archive();
        assert!(archive(Provider::S3, "GLACIER") && archive(Provider::S3, "DEEP_ARCHIVE"));
        assert!(!archive(Provider::S3, "GLACIER_IR") && !archive(Provider::Google, "ARCHIVE"));
        let deep = class(Provider::S3, "DEEP_ARCHIVE");
        assert_eq!(deep.thaw(ThawTier::Expedited), None);
        assert_eq!(deep.thaw(ThawTier::Bulk), Some(Duration::from_hours(48)));
    }

    #[test]
    fn a_class_is_chosen_by_name_where_there_are_classes() {
        let choose = |provider, name| choose(provider, name);
        assert_eq!(choose(Provider::S3, "glacier_ir").unwrap().name, "GLACIER_IR");
        assert_eq!(choose(Provider::S3, "OF_A_GATEWAY").unwrap().name, "OF_A_GATEWAY");
        for bad in ["", "two words", "a=b", "x\n"] {
            assert_eq!(choose(Provider::S3, bad).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        let error = choose(Provider::Azure, "archive").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(choose(Provider::Local, "GLACIER").unwrap_err().one_line().contains("directory"));
    }
}
