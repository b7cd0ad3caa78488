//! Sizes, shares and times as people write them.

use std::time::Duration;

use lifeboat_repository::SampleSize;

/// A number and the unit that follows it.
fn split(text: &str) -> Result<(f64, &str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 =
        number.parse().map_err(|_| format!("\"{text}\" does not begin with a number"))?;
    Ok((number, unit.trim()))
}

/// Bytes: `50GB`, `1.5TiB`, `1000`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => f64::from(1 << 10),
        "mib" => f64::from(1 << 20),
        "gib" => f64::from(1 << 30),
        "tib" => 1024.0 * f64::from(1 << 30),
        _ => return Err("a size is written 500MB, 50GB, 2TiB".to_owned()),
    };
    let bytes = number * factor;
    if (1.0..1e18).contains(&bytes) {
        Ok(bytes as u64)
    } else {
        Err("a size is 1 byte or more".to_owned())
    }
}

/// Bytes, or `0` for none.
pub(super) fn bytes_or_none(text: &str) -> Result<u64, String> {
    if text.trim() == "0" { Ok(0) } else { bytes(text) }
}

/// A time: `30m`, `1h`, `30d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "w" => 604_800.0,
        _ => return Err("a time is written 90s, 30m, 1h, 30d, 4w".to_owned()),
    };
    let seconds = number * seconds;
    if (1.0..1e10).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("a time is a second or more".to_owned())
    }
}

/// A part of the repository: `5%`, or a size.
pub(crate) fn sample(text: &str) -> Result<SampleSize, String> {
    let Some(number) = text.trim().strip_suffix('%') else {
        let wrong = |_| "a sample is written 5% or 10GB".to_owned();
        return bytes(text).map(SampleSize::Bytes).map_err(wrong);
    };
    let share: f64 = number.trim().parse().map_err(|_| format!("\"{number}\" is no number"))?;
    if (0.0001..=100.0).contains(&share) {
        Ok(SampleSize::PartsPerMillion((share * 1e4).round() as u32))
    } else {
        Err("a share is from 0.0001% to 100%".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_sizes_and_times() {
        assert_eq!(bytes("50GB").unwrap(), 50_000_000_000);
        assert_eq!(bytes("1.5 MiB").unwrap(), 3 << 19);
        assert_eq!(bytes("7").unwrap(), 7);
        assert_eq!(bytes_or_none("0").unwrap(), 0);
        assert_eq!(bytes_or_none("1GiB").unwrap(), 1 << 30);
        assert_eq!(duration("30d").unwrap(), Duration::from_hours(720));
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(sample("5%").unwrap(), SampleSize::PartsPerMillion(50_000));
        assert_eq!(sample("2GB").unwrap(), SampleSize::Bytes(2_000_000_000));
        for bad in ["", "GB", "5 parsecs", "-5GB", "0", "1e99GB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        for bad in ["", "5", "1 month", "0s", "9999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for bad in ["0%", "101%", "%", "some", "NaN%"] {
            assert!(sample(bad).is_err(), "{bad}");
        }
    }
}
