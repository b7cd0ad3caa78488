//! The page that a person reads.

use std::io::Write;
use std::time::Duration;

/// One line. The demo goes on when nobody reads it any more.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A new step.
pub(crate) fn step(number: u32, title: &str) {
    line(&format!("\n{number}. {title}"));
}

/// A remark on a step.
pub(crate) fn remark(text: &str) {
    line(&format!("   {text}"));
}

/// A command line as the user would type it.
pub(crate) fn command(typed: &str) {
    line(&format!("   $ {typed}"));
}

/// What a command said.
pub(crate) fn said(text: &str) {
    for said in text.lines() {
        line(&format!("     {said}"));
    }
}

/// Bytes, in the units that the command has.
pub(crate) fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") }
}

/// A number of things, with spaces between the thousands.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A stretch of time.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
