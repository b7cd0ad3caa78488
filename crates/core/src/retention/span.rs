//! Times as people write them.

use jiff::Span;

use crate::error::{Error, ErrorKind, Result};

/// A time to keep snapshots for: `36h`, `14d`, `2w`, `3mo`, `1y`, or several of these together.
///
/// # Errors
/// When it is not written so. Minutes and less are refused as well: in the words of other programs
/// `3m` is three months, and who takes a quarter of a year for three minutes loses it.
pub fn parse_span(text: &str) -> Result<Span> {
    let bad = || {
        let message = format!("\"{text}\" is no time to keep snapshots for");
        let hint = "write hours (36h), days (14d), weeks (2w), months (3mo) or years (1y)";
        Error::new(ErrorKind::InvalidInput, message).with_hint(hint)
    };
    let span: Span = text.parse().map_err(|cause: jiff::Error| bad().with_source(cause))?;
    let small = [
        span.get_minutes(),
        span.get_seconds(),
        span.get_milliseconds(),
        span.get_microseconds(),
        span.get_nanoseconds(),
    ];
    if span.is_positive() && small.iter().all(|part| *part == 0) { Ok(span) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them_and_minutes_are_not_months() {
        for (text, same) in [
            ("36h", "36h"),
            ("14d", "14d"),
            ("3mo", "3mo"),
            ("1y 6 months", "1y 6mo"),
            ("P2W", "2w"),
        ] {
            assert_eq!(format!("{:#}", parse_span(text).unwrap()), same);
        }
        for bad in ["3m", "", "0d", "-3d", "3d ago", "14", "90s", "3x", "1d 1m"] {
            let line = parse_span(bad).unwrap_err().one_line();
            assert!(line.contains("months (3mo)"), "{bad}: {line}");
        }
    }
}
