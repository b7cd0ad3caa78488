//! The time zone that a policy states.

use jiff::fmt::temporal::{DateTimeParser, DateTimePrinter};
use jiff::tz::TimeZone;

use crate::error::{Error, ErrorKind, Result};

/// A time zone by its IANA name (`Europe/Berlin`), or a fixed offset from UTC (`+05:30`).
///
/// # Errors
/// When nothing of the kind is known. The zone of this host cannot be asked for: a policy must
/// mean the same wherever it is applied.
pub fn parse_time_zone(text: &str) -> Result<TimeZone> {
    let unknown = |cause: Option<jiff::Error>| {
        let error =
            Error::new(ErrorKind::InvalidInput, format!("there is no time zone \"{text}\""));
        let error = match cause {
            Some(cause) => error.with_source(cause),
            None => error,
        };
        error.with_hint("write an IANA name such as Europe/Berlin, or an offset such as +02:00")
    };
    let zone = DateTimeParser::new().parse_time_zone(text).map_err(|cause| unknown(Some(cause)))?;
    if zone.is_unknown() { Err(unknown(None)) } else { Ok(zone) }
}

/// A time zone as [`parse_time_zone`] reads it.
pub fn time_zone_name(zone: &TimeZone) -> String {
    DateTimePrinter::new().time_zone_to_string(zone).unwrap_or_else(|_| "unnamed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_offsets_survive_their_text_form() {
        for text in ["UTC", "Europe/Berlin", "America/St_Johns", "+05:30", "-03:00"] {
            assert_eq!(time_zone_name(&parse_time_zone(text).unwrap()), text);
        }
        for bad in ["", "Europe/Berlim", "local", "+99:00", "Etc/Unknown"] {
            let line = parse_time_zone(bad).unwrap_err().one_line();
            assert!(line.contains("Europe/Berlin"), "{bad}: {line}");
        }
    }
}
